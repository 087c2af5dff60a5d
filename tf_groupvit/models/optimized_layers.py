"""Weights folded for inference, and the operations that run them over rows (tokens, C) in
TensorFlow: forward alone.

Folding puts the weights of neighboring operations into the one product that does the work of both;
it is pure NumPy. A dense layer is a pair: kernel (in, out) and bias (out). Sums are made in
float64, so that folding itself costs no
accuracy: what follows differs from the plain model by rounding alone.

Between blocks rows have mean 0: whatever writes to them is folded so (``centred``). A layer norm of
such rows is a division by their length, and its affine part belongs to the product that follows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.models.layers import ACTIVATION, Attention, Block
from tf_groupvit.runtimes import GRAPH, OPENVINO, built_for


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
    """The BatchNormalization after a product, in inference an affine map of each unit, becomes part
    of it.
    """
    gain = values(norm.gamma) / np.sqrt(values(norm.moving_variance) + norm.epsilon)
    return scaled(
        Dense(dense.kernel, dense.bias - values(norm.moving_mean)), gain, values(norm.beta)
    )


def scaled(dense: Dense, factor: Any, offset: Any = 0.0) -> Dense:
    """Every output times a factor, or each times its own, and an offset."""
    return Dense(dense.kernel * factor, dense.bias * factor + offset)


def centred(dense: Dense) -> Dense:
    """Outputs less their mean over the units: of sums of such outputs, a norm need not take the
    mean out.
    """
    return Dense(
        dense.kernel - dense.kernel.mean(axis=1, keepdims=True), dense.bias - dense.bias.mean()
    )


def side_by_side(*parts: Dense) -> Dense:
    """Several products of the same input as one, outputs one after the other."""
    return Dense(
        np.concatenate([part.kernel for part in parts], 1),
        np.concatenate([part.bias for part in parts]),
    )


def chained(first: Dense, second: Dense) -> Dense:
    """Two products in a row as one."""
    return Dense(first.kernel @ second.kernel, second(first.bias))


def compared(queries: Dense, keys: Dense) -> Dense:
    """Queries and keys of one head as a product of the queries' side alone, and a number a query:
    (in, in + 1).

    ``(g Wq + bq) . (x Wk + bk)`` is ``(g Wq Wk') . x``, plus ``(g Wq + bq) . bk``, which is the
    last output here, plus ``(bq Wk') . x``, which the first outputs hold.
    """
    across = Dense(keys.kernel.T, np.zeros(keys.kernel.shape[0]))
    level = Dense(keys.bias[:, None], np.zeros(1))
    return chained(queries, side_by_side(across, level))


HALF = 0.5**0.5
SWISH = 1.702

# Activation -> how it is computed, what its input and its output are to be multiplied with
# beforehand and afterwards, which the products around it do for nothing. Three passes over the
# largest tensors instead of five.
FOLDED: dict[str, tuple[Callable[[Any], Any], float, float]] = {
    "gelu": (lambda h: h + h * tf.math.erf(h), HALF, HALF),
    "quick_gelu": (lambda h: h * tf.math.sigmoid(h), SWISH, 1 / SWISH),
}


def one_fused_operation() -> bool:
    """Whether TensorFlow runs oneDNN's kernels here: then it fuses product, bias and the exact GELU
    into one.
    """
    try:
        from tensorflow.python.util import _pywrap_util_port
    except ImportError:
        return False
    return bool(getattr(_pywrap_util_port, "IsMklEnabled", bool)())


def gelu(x: Any) -> Any:
    """As OpenVINO fuses it with the product before; not from the complement of erf, as TensorFlow
    writes it.
    """
    return 0.5 * x * (1.0 + tf.math.erf(x * HALF))


def activation_of(name: str) -> tuple[Callable[[Any], Any], float, float]:
    """An entry of ``FOLDED``; the plain activation where there is none, or where it is fused as it
    is.
    """
    plain = gelu if name == "gelu" and built_for() == OPENVINO else ACTIVATION[name], 1.0, 1.0
    fused = built_for() != GRAPH or one_fused_operation()
    return plain if name == "gelu" and fused else FOLDED.get(name, plain)


def refuse_what_is_folded(
    output_hidden_states: Any, training: Any, output_attentions: Any = False
) -> None:
    """Nothing but the results of inference can be had of folded weights."""
    asked = {
        "hidden states": output_hidden_states,
        "training": training,
        "attentions of texts": output_attentions,
    }
    for what, value in asked.items():
        if value:
            raise InputError(
                f"An optimized model has no {what}: ask the model that it was made from."
            )


class Folded(keras.layers.Layer):
    """A layer that holds folded weights: variables that nothing trains."""

    def __init__(self, name: str) -> None:
        keras.layers.Layer.__init__(
            self, name=name, dtype="float32", trainable=False
        )  # of towers, nothing else
        self.built = True

    def keep(self, name: str, array: Any) -> Any:
        """An array as a variable of its own, float32."""
        variable = self.add_weight(
            name=name, shape=array.shape, initializer="zeros", trainable=False
        )
        variable.assign(array.astype("float32"))
        return variable

    def product(self, name: str, dense: Dense) -> Callable[[Any], Any]:
        """rows (M, in) -> rows (M, out)."""
        kernel, bias = (
            self.keep(f"{name}_kernel", dense.kernel),
            self.keep(f"{name}_bias", dense.bias),
        )
        return lambda x: tf.nn.bias_add(tf.matmul(x, kernel.value), bias.value)

    def norm(self, name: str, layer: Any) -> Callable[[Any], Any]:
        """A whole layer norm, for the few rows that are not centred, or whose affine part has no
        product after it.
        """
        gamma, beta = (
            self.keep(f"{name}_gamma", values(layer.gamma)),
            self.keep(f"{name}_beta", values(layer.beta)),
        )
        epsilon = layer.epsilon
        return lambda x: unit(centre(x), epsilon) * gamma.value + beta.value


def centre(x: Any) -> Any:
    """x (..., C) less its mean."""
    return x - tf.reduce_mean(x, axis=-1, keepdims=True)


def unit(x: Any, epsilon: float) -> Any:
    """Layer norm without the affine part of rows (..., C) whose mean is 0."""
    if built_for() != GRAPH:  # LiteRT has no Euclidean norm, and OpenVINO fuses this one
        return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + epsilon)
    length = tf.math.reduce_euclidean_norm(x, axis=-1, keepdims=True)
    return x * tf.math.rsqrt(tf.square(length) / x.shape[-1] + epsilon)


def attend(q: Any, k: Any, v: Any, hidden: Any = None) -> Any:
    """Queries (B, heads, T, D), scaled; keys and values (B, heads, S, D) -> rows (B * T, C).

    ``hidden`` (B or 1, 1, T, S) is added to the scores: the lowest float where nothing is to be
    seen.
    """
    scores = tf.matmul(q, k, transpose_b=True)
    if hidden is not None:
        scores += hidden
    x = tf.matmul(tf.nn.softmax(scores), v)
    return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, x.shape[1] * x.shape[3]))


def heads_of(rows: Any, length: Any, parts: int, heads: int) -> list[Any]:
    """rows (B * T, parts * C) -> ``parts`` tensors (B, heads, T, C / heads)."""
    width = rows.shape[-1] // (parts * heads)
    apart = tf.transpose(tf.reshape(rows, (-1, length, parts, heads, width)), (2, 0, 3, 1, 4))
    return tf.unstack(apart)


class FoldedMLP(Folded):
    """Normalised rows (M, in) -> rows (M, out), the scales of the activation folded into both
    products.
    """

    def __init__(
        self, mlp: Any, activation: str, name: str, norm: Any = None, centre_out: bool = False
    ) -> None:
        super().__init__(name)
        inner, outer = dense_of(mlp.fc1), dense_of(mlp.fc2)
        inner = after_norm(inner, norm) if norm is not None else inner
        self.activation, before, after = activation_of(activation)
        outer = Dense(outer.kernel * after, outer.bias)
        self.inner = self.product("inner", scaled(inner, before))
        self.outer = self.product("outer", centred(outer) if centre_out else outer)

    def call(self, x: Any) -> Any:
        return self.outer(self.activation(self.inner(x)))


def scaled_queries(attention: Attention) -> Dense:
    return scaled(dense_of(attention.q_proj), attention.head_width**-0.5)


class FoldedBlock(Folded):
    """A transformer layer over centred rows (B * T, C), which stay centred."""

    def __init__(self, block: Block, activation: str, name: str) -> None:
        super().__init__(name)
        attention = block.self_attn
        self.heads, self.epsilon = attention.heads, block.layer_norm1.epsilon
        inward = side_by_side(
            scaled_queries(attention), dense_of(attention.k_proj), dense_of(attention.v_proj)
        )
        self.inward = self.product("inward", after_norm(inward, block.layer_norm1))
        self.outward = self.product("outward", centred(dense_of(attention.out_proj)))
        self.mlp = FoldedMLP(
            block.mlp, activation, f"{name}_mlp", block.layer_norm2, centre_out=True
        )

    def call(self, x: Any, length: Any, hidden: Any = None) -> Any:
        q, k, v = heads_of(self.inward(unit(x, self.epsilon)), length, 3, self.heads)
        return self.finish(x, attend(q, k, v, hidden))

    def finish(self, x: Any, attended: Any) -> Any:
        x = x + self.outward(attended)
        return x + self.mlp(unit(x, self.epsilon))

    def only(self, x: Any, rows: Any, length: Any, hidden: Any) -> Any:
        """As ``call``, for one token of each text: ``rows`` (N) are their numbers among all -> (N,
        C).

        hidden (N, 1, 1, T): what those tokens may look at.
        """
        q, k, v = heads_of(self.inward(unit(x, self.epsilon)), length, 3, self.heads)
        place = tf.stack([rows // length, rows % length], axis=1)
        q = tf.gather_nd(tf.transpose(q, (0, 2, 1, 3)), place)[:, :, None]  # (N, heads, 1, D)
        return self.finish(tf.gather(x, rows), attend(q, k, v, hidden))
