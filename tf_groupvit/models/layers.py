"""Tokens (B * T, C) in, tokens (B * T, C) out: the transformer block that both towers are made of.

Tokens run through it flattened, one row each: every dense layer is then one plain matrix product,
which is what runtimes fuse and run fastest, and a traced graph has a third of the operations.
``length`` T says where rows part.

Every layer bears the full name that it has in a checkpoint, so that a variable's path is its name
there. Children are made and built in ``__init__``: a model has its weights before it is called, and
`.keras` files keep them.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_groupvit.config import GroupViTTextConfig, GroupViTVisionConfig
from tf_groupvit.models.weights import constant, normal

LOWEST = float(
    np.finfo("float32").min
)  # stands where nothing is to be seen; a row without any stays finite, uniform

Config = GroupViTTextConfig | GroupViTVisionConfig

ACTIVATION: dict[str, Callable[[Any], Any]] = {
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "gelu_new": lambda x: ops.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": ops.relu,
    "selu": ops.selu,
}


def layer_name(name: str) -> str:
    """A checkpoint prefix as a layer's name; PyTorch allows no dots in parameter names, so there
    they are "-".
    """
    return name.replace(".", "-") if keras.backend.backend() == "torch" else name


def dense(name: str, inputs: int, units: int, std: float, dtype: Any) -> keras.layers.Dense:
    """A built Dense layer (..., inputs) -> (..., units) whose kernel starts as N(0, std)."""
    layer = keras.layers.Dense(
        units,
        kernel_initializer=normal(f"{name}/kernel", std),
        bias_initializer=constant(f"{name}/bias", 0.0),
        name=layer_name(name),
        dtype=dtype,
    )
    layer.build((None, inputs))
    return layer


def layer_norm(
    name: str, width: int, epsilon: float, dtype: Any
) -> keras.layers.LayerNormalization:
    """A built LayerNormalization over the last axis."""
    layer = keras.layers.LayerNormalization(
        epsilon=epsilon,
        gamma_initializer=constant(f"{name}/gamma", 1.0),
        beta_initializer=constant(f"{name}/beta", 0.0),
        name=layer_name(name),
        dtype=dtype,
    )
    layer.build((None, None, width))
    return layer


def dropout(rate: float, name: str, dtype: Any) -> Callable[..., Any]:
    """A Dropout layer, or nothing at all for a rate of 0."""
    return (
        keras.layers.Dropout(rate, name=layer_name(name), dtype=dtype)
        if rate
        else lambda x, training=None: x
    )


def flat(x: Any) -> Any:
    """(..., C) -> one row a token, (tokens, C)."""
    return ops.reshape(x, (-1, x.shape[-1]))


def softmax(x: Any, axis: int) -> Any:
    """Keras' own, which warns where there is but one to choose from: one token, one patch, one
    group.
    """
    return ops.ones_like(x) if x.shape[axis] == 1 else ops.softmax(x, axis=axis)


class MLP(keras.layers.Layer):
    """Two dense layers with the config's activation between: rows (..., inputs) -> (..., outputs)."""

    def __init__(
        self,
        config: Config,
        name: str,
        dtype: Any,
        inputs: int = 0,
        hidden: int = 0,
        outputs: int = 0,
    ) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        width = config.hidden_size
        inputs, hidden, outputs = (
            inputs or width,
            hidden or config.intermediate_size,
            outputs or width,
        )
        factor = config.initializer_factor
        residual = (
            2 * config.num_hidden_layers
        ) ** -0.5  # two residual additions a layer, as in GPT-2
        self.fc1 = dense(
            f"{name}.fc1", inputs, hidden, (2 * width) ** -0.5 * factor, self.dtype_policy
        )
        self.fc2 = dense(
            f"{name}.fc2", hidden, outputs, width**-0.5 * residual * factor, self.dtype_policy
        )
        self.activation = ACTIVATION[config.hidden_act]

    def call(self, x: Any) -> Any:
        return self.fc2(self.activation(self.fc1(x)))


class Attention(keras.layers.Layer):
    """Multi-head attention of queries over keys, which are the queries unless given."""

    def __init__(self, config: Config, name: str, dtype: Any) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        width = config.hidden_size
        self.heads, self.head_width = (
            config.num_attention_heads,
            width // config.num_attention_heads,
        )
        factor = config.initializer_factor
        spread = {"out_proj": width**-0.5 * factor}
        inward = width**-0.5 * (2 * config.num_hidden_layers) ** -0.5 * factor
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            std = spread.get(part, inward)
            setattr(self, part, dense(f"{name}.{part}", width, width, std, self.dtype_policy))
        self.dropout = dropout(config.attention_dropout, f"{name}.dropout", self.dtype_policy)

    def _split(self, x: Any, length: Any) -> Any:
        """(B * T, C) -> (B, heads, T, C / heads)."""
        x = ops.reshape(x, (-1, length, self.heads, self.head_width))
        return ops.transpose(x, (0, 2, 1, 3))

    def call(
        self,
        queries: Any,
        length: Any,
        keys: Any = None,
        key_length: Any = None,
        seen: Any = None,
        training: Any = None,
    ) -> tuple[Any, Any]:
        """Queries (B * T, C) with their length T, keys (B * S, C) with theirs -> (B * T, C), and
        the weights.

        The weights (B, heads, T, S) are those before dropout. ``seen`` (B, 1, T, S) says where
        query t may look at key s; everywhere, unless given.
        """
        if keys is None:
            keys, key_length = queries, length
        q = self._split(self.q_proj(queries) * self.head_width**-0.5, length)
        k, v = (
            self._split(self.k_proj(keys), key_length),
            self._split(self.v_proj(keys), key_length),
        )
        q, k = (
            ops.cast(q, "float32"),
            ops.cast(k, "float32"),
        )  # half floats overflow in their product
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
        if seen is not None:
            scores = ops.where(seen, scores, LOWEST)
        weights = ops.cast(softmax(scores, axis=-1), self.compute_dtype)
        x = ops.matmul(self.dropout(weights, training=training), v)  # (B, heads, T, C / heads)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, self.heads * self.head_width))
        return self.out_proj(x), weights


class Block(keras.layers.Layer):
    """One pre-norm transformer layer over flattened tokens (B * T, C)."""

    def __init__(self, config: Config, name: str, dtype: Any) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        norm = (config.hidden_size, config.layer_norm_eps, self.dtype_policy)
        self.layer_norm1 = layer_norm(f"{name}.layer_norm1", *norm)
        self.self_attn = Attention(config, f"{name}.self_attn", self.dtype_policy)
        self.layer_norm2 = layer_norm(f"{name}.layer_norm2", *norm)
        self.mlp = MLP(config, f"{name}.mlp", self.dtype_policy)

    def call(
        self, x: Any, length: Any, seen: Any = None, training: Any = None, keep: Any = None
    ) -> tuple[Any, Any]:
        """Tokens (B * T, C) of texts or images that are each ``length`` T long; also the weights
        (B, heads, T, T).

        ``keep`` (2, B) are factors of the two residual branches, one an image: how drop path leaves
        them out.
        """
        attended, weights = self.self_attn(
            self.layer_norm1(x), length=length, seen=seen, training=training
        )
        x = x + (attended if keep is None else _scaled(attended, keep[0], length))
        mixed = self.mlp(self.layer_norm2(x))
        return x + (mixed if keep is None else _scaled(mixed, keep[1], length)), weights


def _scaled(rows: Any, factors: Any, length: Any) -> Any:
    """Rows (B * T, C) times a factor an image (B)."""
    factors = ops.cast(factors, rows.dtype)
    return flat(ops.reshape(rows, (-1, length, rows.shape[-1])) * factors[:, None, None])
