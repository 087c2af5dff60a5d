"""Each way of folding weights by itself: the folded product gives what the operations that it
stands for give.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tf_groupvit.models.layers import LayerNorm, gelu
from tf_groupvit.models.optimized import (
    Linear,
    concat_linear,
    fold_keys,
    fold_layer_norm,
    fold_mean,
    fold_scale,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="folding is TensorFlow's"
)

RANDOM = np.random.default_rng(0)
WIDTH = 6
X = RANDOM.normal(size=(5, WIDTH))


def linear(outputs: int = 4) -> Linear:
    return Linear(RANDOM.normal(size=(WIDTH, outputs)), RANDOM.normal(size=outputs))


def test_a_layer_norm_before_a_product_is_in_its_weights():
    norm = SimpleNamespace(gamma=RANDOM.normal(size=WIDTH), beta=RANDOM.normal(size=WIDTH))
    product = linear()
    expected = product(X * norm.gamma + norm.beta)
    np.testing.assert_allclose(fold_layer_norm(product, norm)(X), expected)


def test_a_factor_after_a_product_is_in_its_weights():
    product = linear()
    np.testing.assert_allclose(fold_scale(product, 0.125)(X), product(X) * 0.125)


def test_weights_without_their_mean_give_outputs_without_theirs():
    product = linear()
    expected = product(X) - product(X).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(fold_mean(product)(X), expected, atol=1e-12)


def test_products_of_one_input_are_one_product():
    parts = [linear(), linear(outputs=2)]
    expected = np.concatenate([part(X) for part in parts], axis=1)
    np.testing.assert_allclose(concat_linear(parts)(X), expected)


def test_queries_that_hold_the_keys_weights_give_the_same_scores():
    queries, keys, groups = linear(), linear(), RANDOM.normal(size=(3, WIDTH))
    wanted = fold_keys(queries, keys)(groups)
    np.testing.assert_allclose(X @ wanted[:, :-1].T + wanted[:, -1], keys(X) @ queries(groups).T)


@pytest.mark.parametrize("folded", [False, True])
def test_the_layer_norm_is_that_of_keras_and_folded_that_of_rows_without_a_mean(folded):
    norm, plain = LayerNorm("norm", 32, 1e-5, None, folded), keras.layers.LayerNormalization()
    plain.epsilon = 1e-5
    rows = ((RANDOM.normal(size=(4, 32)) + 3) * 10.0 ** np.arange(-2, 2)[:, None]).astype("float32")
    rows = rows - rows.mean(axis=1, keepdims=True) if folded else rows
    plain.build(rows.shape)
    if not folded:
        for layer in (norm, plain):
            layer.gamma.assign(np.linspace(-1, 2, 32))
            layer.beta.assign(np.linspace(2, -1, 32))
    np.testing.assert_allclose(norm(rows), plain(rows), atol=1e-5)


def test_the_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 49, dtype="float32")
    expected = keras.ops.gelu(x, approximate=False)
    np.testing.assert_allclose(gelu(keras.ops.convert_to_tensor(x)), expected, atol=1e-6)
