"""Every way of folding weights, by itself: the folded product gives what the operations that it
stands for give.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tf_groupvit.models.optimized_layers import (
    Dense,
    after_norm,
    before_batch_norm,
    centred,
    chained,
    compared,
    scaled,
    side_by_side,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="folding is TensorFlow's"
)

RANDOM = np.random.default_rng(0)
WIDTH = 6
X = RANDOM.normal(size=(5, WIDTH))


def dense(inputs: int = WIDTH, outputs: int = 4) -> Dense:
    return Dense(RANDOM.normal(size=(inputs, outputs)), RANDOM.normal(size=outputs))


def layer(**weights: object) -> SimpleNamespace:
    return SimpleNamespace(**weights)


def test_a_norm_before_a_product_is_in_its_weights():
    norm, product = layer(gamma=RANDOM.normal(size=WIDTH), beta=RANDOM.normal(size=WIDTH)), dense()
    np.testing.assert_allclose(after_norm(product, norm)(X), product(X * norm.gamma + norm.beta))


def test_a_batch_norm_after_a_product_is_in_its_weights():
    product, norm = dense(), keras.layers.BatchNormalization(epsilon=1e-5)
    norm.build((None, 4))
    for variable in norm.weights:
        variable.assign(RANDOM.uniform(0.5, 2.0, 4))
    expected = norm(product(X).astype("float32"), training=False)
    np.testing.assert_allclose(before_batch_norm(product, norm)(X), expected, atol=1e-5)


def test_a_factor_after_a_product_is_in_its_weights():
    product = dense()
    np.testing.assert_allclose(scaled(product, 0.125)(X), product(X) * 0.125)
    np.testing.assert_allclose(
        scaled(product, np.arange(4.0), 2.0)(X), product(X) * np.arange(4.0) + 2.0
    )


def test_centred_weights_give_outputs_without_their_mean():
    product = dense()
    expected = product(X) - product(X).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(centred(product)(X), expected, atol=1e-12)


def test_products_of_one_input_side_by_side_are_one_product():
    parts = [dense(), dense(outputs=2)]
    np.testing.assert_allclose(
        side_by_side(*parts)(X), np.concatenate([part(X) for part in parts], axis=1)
    )


def test_two_products_in_a_row_are_one_product():
    first, second = dense(), dense(4, 3)
    np.testing.assert_allclose(chained(first, second)(X), second(first(X)))


def test_queries_that_hold_the_keys_weights_give_the_same_scores():
    queries, keys, groups = dense(), dense(), RANDOM.normal(size=(3, WIDTH))
    wanted = compared(queries, keys)(groups)
    np.testing.assert_allclose(X @ wanted[:, :-1].T + wanted[:, -1], keys(X) @ queries(groups).T)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_the_scales_of_an_activation_may_stand_outside_of_it(activation):
    from tf_groupvit.models.layers import ACTIVATION
    from tf_groupvit.models.optimized_layers import FOLDED

    function, before, after = FOLDED[activation]
    x = np.linspace(-6, 6, 49, dtype="float32")
    np.testing.assert_allclose(
        function(keras.ops.convert_to_tensor(x * before)) * after,
        ACTIVATION[activation](x),
        atol=1e-6,
    )


def test_centred_rows_are_normalised_by_their_length_alone():
    from tf_groupvit.models.optimized_layers import centre, unit

    norm = keras.layers.LayerNormalization(epsilon=1e-5)
    rows = ((RANDOM.normal(size=(4, 32)) + 3) * 10.0 ** np.arange(-2, 2)[:, None]).astype("float32")
    np.testing.assert_allclose(
        unit(centre(keras.ops.convert_to_tensor(rows)), 1e-5), norm(rows), atol=1e-5
    )
