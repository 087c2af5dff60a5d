"""Weights of neighbouring operations in, weights of the one product that does the work of both out.

Pure NumPy. A dense layer is a pair: kernel (in, out) and bias (out). Sums are made in float64, so that folding itself
costs no accuracy: what follows differs from the plain model by rounding alone.
"""

from typing import Any, NamedTuple

import keras
import numpy as np


class Dense(NamedTuple):
    """``x @ kernel + bias``: kernel (in, out), bias (out), float64."""

    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.kernel + self.bias


def values(variable: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype("float64")


def dense_of(layer: Any) -> Dense:
    """The weights of a Keras Dense layer."""
    return Dense(values(layer.kernel), values(layer.bias))


def after_norm(dense: Dense, norm: Any) -> Dense:
    """The affine part of the LayerNormalization before a product becomes part of the product.

    ``(x * gamma + beta) @ kernel = x @ (gamma * kernel) + beta @ kernel``
    """
    gamma, beta = values(norm.gamma), values(norm.beta)
    return Dense(gamma[:, None] * dense.kernel, dense.bias + beta @ dense.kernel)


def before_batch_norm(dense: Dense, norm: Any) -> Dense:
    """The BatchNormalization after a product, in inference an affine map of each unit, becomes part of it."""
    gain = values(norm.gamma) / np.sqrt(values(norm.moving_variance) + norm.epsilon)
    return scaled(Dense(dense.kernel, dense.bias - values(norm.moving_mean)), gain, values(norm.beta))


def scaled(dense: Dense, factor: Any, offset: Any = 0.0) -> Dense:
    """Every output times a factor, or each times its own, and an offset."""
    return Dense(dense.kernel * factor, dense.bias * factor + offset)


def centred(dense: Dense) -> Dense:
    """Outputs less their mean over the units: of sums of such outputs, a norm need not take the mean out."""
    return Dense(dense.kernel - dense.kernel.mean(axis=1, keepdims=True), dense.bias - dense.bias.mean())


def side_by_side(*parts: Dense) -> Dense:
    """Several products of the same input as one, outputs one after the other."""
    return Dense(np.concatenate([part.kernel for part in parts], 1), np.concatenate([part.bias for part in parts]))


def chained(first: Dense, second: Dense) -> Dense:
    """Two products in a row as one."""
    return Dense(first.kernel @ second.kernel, second(first.bias))


def compared(queries: Dense, keys: Dense) -> Dense:
    """Queries and keys of one head as a product of the queries' side alone, and a number a query: (in, in + 1).

    ``(g Wq + bq) . (x Wk + bk)`` is ``(g Wq Wk') . x``, plus ``(g Wq + bq) . bk``, which is the last output here, plus
    ``(bq Wk') . x``, which the first outputs hold.
    """
    across = Dense(keys.kernel.T, np.zeros(keys.kernel.shape[0]))
    level = Dense(keys.bias[:, None], np.zeros(1))
    return chained(queries, side_by_side(across, level))
