"""The same weights have the same fingerprint, whatever the model is called; others have another."""

import keras
import numpy as np

from tf_groupvit.evaluation.evaluator import fingerprint


def made(first=1.0, width=2):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(width), keras.layers.Dropout(0.5, seed=None)]
    )
    model.set_weights([np.full((3, width), first), np.zeros(width)])
    return model


def test_models_of_the_same_weights_agree_though_keras_names_them_apart():
    one, two = made(), made()
    assert one.weights[0].path != two.weights[0].path
    assert fingerprint(one) == fingerprint(two)
    assert len(fingerprint(one)) == 16


def test_another_value_or_shape_gives_another_fingerprint():
    assert len({fingerprint(model) for model in (made(), made(first=1.0001), made(width=3))}) == 3
