"""Drop path, and activations computed again."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_recipe import some_batch, tiny_model

from tf_groupvit.errors import InputError
from tf_groupvit.training.model_setup import rematerialize, set_drop_path


def gradients(model, pixels):
    """Of the vision tower, under the same noise each time."""
    for stage in model.vision_model.stages:
        stage.drops.state.assign([1, 2])
        if stage.tokens:
            stage.downsample.assign.noise.state.assign([3, 4])

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(model.vision_model(x, training=True)["pooler_output"][:, :4])
        return tape.gradient(value, model.vision_model.trainable_variables)

    return [gradient.numpy() for gradient in run(tf.constant(pixels))]


def test_gradients_are_the_same_when_activations_are_computed_again():
    keras.utils.set_random_seed(0)
    model, pixels = tiny_model(), some_batch(4)["pixel_values"]
    set_drop_path(model, 0.4)
    kept = gradients(model, pixels)
    rematerialize(model)
    again = gradients(model, pixels)
    assert any(np.abs(gradient).max() > 0.01 for gradient in kept)
    for one, other in zip(kept, again, strict=True):
        assert np.allclose(one, other, atol=1e-4)  # of values up to 10, in sums of another order


def test_drop_path_grows_with_depth_and_leaves_inference_alone():
    keras.utils.set_random_seed(0)
    model, pixels = tiny_model(), some_batch(4)["pixel_values"]
    before = model.vision_model(pixels, training=False)["pooler_output"]
    set_drop_path(model, 0.5)
    assert [stage.drop_rates for stage in model.vision_model.stages] == [(0.0, 0.5), ()]
    assert np.array_equal(before, model.vision_model(pixels, training=False)["pooler_output"])


def test_dropped_branches_are_left_out_and_the_others_scaled():
    keras.utils.set_random_seed(0)
    stage = tiny_model().vision_model.stages[0]
    kept = np.asarray(stage._draw_kept(0.25, 4000))
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(kept.mean() - 1) < 0.03  # four deviations of the mean of 8,000 draws
    block, rows = stage.blocks[1], tf.random.stateless_normal((2 * 20, 16), (0, 1))
    out, _ = block(rows, length=20, keep=tf.constant([[0.0, 1.0], [0.0, 1.0]]))
    whole, _ = block(rows, length=20)
    assert np.array_equal(out[:20], rows[:20]) and np.allclose(out[20:], whole[20:])


def test_a_rate_of_one_is_refused():
    with pytest.raises(InputError, match="less than 1"):
        set_drop_path(tiny_model(), 1.0)
