"""Layers that both towers are made of: layer norm, attention, MLP and the transformer block.

Tokens of all images or texts run through a block merged, one row a token: (B * T, C). Every dense
layer is then one plain matrix product, which runtimes fuse and run fastest. ``num_tokens``, T, says
where one image or text ends.

Every layer has the full name that it has in a checkpoint, so that a variable's path is its name
there. Children are made and built in ``__init__``: a model has its weights before it is called, and
`.keras` files keep them.

``folded`` layers hold the weights of a snapshot, which models/optimized.py makes for inference.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from tf_groupvit.config import GroupViTTextConfig, GroupViTVisionConfig
from tf_groupvit.errors import InputError
from tf_groupvit.models.operations import times_transposed
from tf_groupvit.models.weights import constant, normal
from tf_groupvit.types import Tensor

# Scores of what may not be seen; a row that may see nothing stays finite, and uniform.
LOWEST = float(np.finfo("float32").min)

Config = GroupViTTextConfig | GroupViTVisionConfig
RunsBlock: TypeAlias = Callable[..., tuple[Tensor, Tensor]]  # a block, or what does as it does
Policy: TypeAlias = "str | keras.DTypePolicy | None"  # how a layer computes


def gelu(x: Tensor) -> Tensor:
    """The exact GELU of x, of any shape, in the form that TensorFlow and OpenVINO fuse with the
    product before.
    """
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))


ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_new": lambda x: ops.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": ops.relu,
    "selu": ops.selu,
}


def layer_name(name: str) -> str:
    """A checkpoint prefix as a layer's name; under PyTorch, which refuses dots, with "-"."""
    return name.replace(".", "-") if keras.backend.backend() == "torch" else name


def dense(name: str, inputs: int, units: int, std: float, dtype: Policy) -> keras.layers.Dense:
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


def dropout(rate: float, name: str, dtype: Policy) -> Callable[..., Tensor]:
    """A Dropout layer, x (...) -> (...), or nothing at all for a rate of 0."""
    if rate:
        return keras.layers.Dropout(rate, name=layer_name(name), dtype=dtype)
    return lambda x, training=None: x


def merge_batch(x: Tensor) -> Tensor:
    """(..., C) -> one row a token, (tokens, C)."""
    return ops.reshape(x, (-1, x.shape[-1]))


def subtract_mean(x: Tensor) -> Tensor:
    """Tokens (..., C) less the mean of each."""
    return x - ops.mean(x, axis=-1, keepdims=True)


def softmax(x: Tensor, axis: int) -> Tensor:
    """Softmax along an axis, the shape of x; of a single score without Keras' warning."""
    return ops.ones_like(x) if x.shape[axis] == 1 else ops.softmax(x, axis=axis)


def refuse_what_is_folded(folded: bool, output_hidden_states: bool, training: bool | None) -> None:
    """A folded tower has the results of inference alone. Raises ``InputError`` for others."""
    asked = {"hidden states": output_hidden_states, "training": training}
    for what, wanted in asked.items():
        if folded and wanted:
            raise InputError(
                f"An optimized model has no {what}: ask the model that it was made from."
            )


class Part(keras.layers.Layer):
    """A layer made of others, under its full name in a checkpoint.

    Its children are built when they are made. Keras is told so: it would look for variables by
    running the layer, and each of its parts once more for every level above them.
    """

    def __init__(self, name: str, dtype: Policy) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        self.built = True


class LayerNorm(keras.layers.LayerNormalization):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis, in float32.

    Folded, tokens come with mean 0, and gamma and beta are in the product that follows.
    """

    def __init__(
        self, name: str, width: int, epsilon: float, dtype: Policy, folded: bool = False
    ) -> None:
        super().__init__(
            epsilon=epsilon,
            center=not folded,
            scale=not folded,
            gamma_initializer=constant(f"{name}/gamma", 1.0),
            beta_initializer=constant(f"{name}/beta", 0.0),
            name=layer_name(name),
            dtype=dtype,
        )
        self.folded = folded
        self.build((None, None, width))

    def call(self, inputs: Tensor) -> Tensor:
        """Tokens (..., C) -> (..., C)."""
        x = ops.cast(inputs, "float32")
        x = x if self.folded else subtract_mean(x)
        x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        if not self.folded:
            x = x * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(x, self.compute_dtype)


class MLP(Part):
    """Two dense layers with the config's activation between them: fc2(activation(fc1(x)))."""

    def __init__(
        self,
        config: Config,
        name: str,
        dtype: Policy,
        inputs: int = 0,
        hidden: int = 0,
        outputs: int = 0,
    ) -> None:
        super().__init__(name, dtype)
        width, factor, policy = config.hidden_size, config.initializer_factor, self.dtype_policy
        inputs, outputs = inputs or width, outputs or width
        hidden = hidden or config.intermediate_size
        residual = (2 * config.num_hidden_layers) ** -0.5  # two residual additions a layer: GPT-2
        outward = width**-0.5 * residual * factor
        self.fc1 = dense(f"{name}.fc1", inputs, hidden, (2 * width) ** -0.5 * factor, policy)
        self.fc2 = dense(f"{name}.fc2", hidden, outputs, outward, policy)
        self.activation = ACTIVATION[config.hidden_act]

    def call(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.fc2(self.activation(self.fc1(x)))


class Attention(Part):
    """Multi-head attention: softmax(q k' / sqrt(width of a head)) v, of each head.

    Folded, of self-attention, queries, keys and values are one product, which scales queries too.
    """

    def __init__(self, config: Config, name: str, dtype: Policy, folded: bool = False) -> None:
        super().__init__(name, dtype)
        width, factor, policy = config.hidden_size, config.initializer_factor, self.dtype_policy
        self.heads = config.num_attention_heads
        self.head_width, self.folded = width // self.heads, folded
        inward = width**-0.5 * (2 * config.num_hidden_layers) ** -0.5 * factor
        if folded:
            self.qkv_proj = dense(f"{name}.qkv_proj", width, 3 * width, inward, policy)
        else:
            self.q_proj = dense(f"{name}.q_proj", width, width, inward, policy)
            self.k_proj = dense(f"{name}.k_proj", width, width, inward, policy)
            self.v_proj = dense(f"{name}.v_proj", width, width, inward, policy)
        self.out_proj = dense(f"{name}.out_proj", width, width, width**-0.5 * factor, policy)
        self.dropout = dropout(config.attention_dropout, f"{name}.dropout", policy)

    def call(
        self,
        queries: Tensor,
        num_queries: int | Tensor,
        keys: Tensor | None = None,
        num_keys: int | Tensor | None = None,
        seen: Tensor | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend from queries (B * T, C) to keys (B * S, C), which are the queries unless given.

        ``num_queries`` is T, ``num_keys`` S. ``seen``, bool (B or 1, 1, T, S), says where query t
        may look at key s; everywhere, unless given.

        Returns:
            (B * T, C), and the weights before dropout (B, heads, T, S).
        """
        if keys is None:
            keys, num_keys = queries, num_queries
        q, k, v = self._project(queries, num_queries, keys, num_keys)
        # float32: half floats overflow in their product
        q, k = ops.cast(q, "float32"), ops.cast(k, "float32")
        scores = times_transposed(q, k)  # (B, heads, T, S)
        if seen is not None:
            scores = ops.where(seen, scores, LOWEST)
        weights = ops.cast(softmax(scores, axis=-1), self.compute_dtype)
        x = ops.matmul(self.dropout(weights, training=training), v)  # (B, heads, T, C / heads)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, self.heads * self.head_width))
        return self.out_proj(x), weights

    def _project(
        self,
        queries: Tensor,
        num_queries: int | Tensor,
        keys: Tensor,
        num_keys: int | Tensor | None,
    ) -> list[Tensor]:
        """Scaled queries (B, heads, T, C / heads), keys and values (B, heads, S, C / heads)."""
        if self.folded:
            shape = (-1, num_queries, 3, self.heads, self.head_width)
            qkv = ops.reshape(self.qkv_proj(queries), shape)
            return list(ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3, axis=0))
        return [
            self._split_heads(self.q_proj(queries) * self.head_width**-0.5, num_queries),
            self._split_heads(self.k_proj(keys), num_keys),
            self._split_heads(self.v_proj(keys), num_keys),
        ]

    def _split_heads(self, x: Tensor, num_tokens: int | Tensor | None) -> Tensor:
        """(B * T, C) -> (B, heads, T, C / heads)."""
        x = ops.reshape(x, (-1, num_tokens, self.heads, self.head_width))
        return ops.transpose(x, (0, 2, 1, 3))


class Block(Part):
    """A pre-norm transformer layer: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, config: Config, name: str, dtype: Policy, folded: bool = False) -> None:
        super().__init__(name, dtype)
        policy, self.folded = self.dtype_policy, folded
        norm = (config.hidden_size, config.layer_norm_eps, policy, folded)
        self.layer_norm1 = LayerNorm(f"{name}.layer_norm1", *norm)
        self.self_attn = Attention(config, f"{name}.self_attn", policy, folded)
        self.layer_norm2 = LayerNorm(f"{name}.layer_norm2", *norm)
        self.mlp = MLP(config, f"{name}.mlp", policy)

    def call(
        self,
        x: Tensor,
        num_tokens: int | Tensor,
        seen: Tensor | None = None,
        training: bool | None = None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B * T, C), T ``num_tokens`` -> the same, and attention weights (B, heads, T, T).

        ``seen`` as in ``Attention``. ``kept`` (2, B) are factors of the two residual branches, one
        an image: drop path leaves branches out with 0. Folded, tokens come and go with mean 0.
        """
        attended, weights = self.self_attn(
            self.layer_norm1(x), num_queries=num_tokens, seen=seen, training=training
        )
        x = x + (attended if kept is None else _scaled(attended, kept[0], num_tokens))
        mixed = self.mlp(self.layer_norm2(x))
        return x + (mixed if kept is None else _scaled(mixed, kept[1], num_tokens)), weights


def is_plain(layer: keras.layers.Layer) -> bool:
    """Whether a layer and its parts compute in float32, neither quantized nor with LoRA."""
    return all(
        part.compute_dtype == part.variable_dtype == "float32"
        and not getattr(part, "quantization_mode", None)
        and not getattr(part, "lora_enabled", False)
        for part in layer._flatten_layers()
    )


def written_once(blocks: Sequence[Block]) -> Sequence[RunsBlock]:
    """Blocks of one config, to be called in inference: a graph of TensorFlow gets the first one as
    a function, and all are calls of it, each with its own weights. Such a graph is traced faster.

    Blocks that are not plain may differ from each other, and stay as they are. So do folded ones,
    which exports keep: sessions would answer up to 5% slower. So do those whose weights
    ``tf.distribute`` mirrors: a function takes one mirrored weight for another of its shape.
    """
    if keras.backend.backend() != "tensorflow":
        return blocks
    import tensorflow as tf

    if tf.executing_eagerly() or not all(is_plain(one) and not one.folded for one in blocks):
        return blocks
    weights = [[variable.value for variable in one.variables] for one in blocks]
    mirrored = tf.distribute.DistributedValues
    if any(isinstance(value, mirrored) for of_block in weights for value in of_block):
        return blocks

    def block(weights: list[Tensor], *arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor]:
        with keras.StatelessScope(list(zip(blocks[0].variables, weights, strict=True))):
            found: tuple[Tensor, Tensor] = blocks[0](*arguments, **keywords)
            return found

    function = tf.function(block, autograph=False)
    return [partial(function, of_block) for of_block in weights]


def _scaled(x: Tensor, factors: Tensor, num_tokens: int | Tensor | None) -> Tensor:
    """Tokens (B * T, C) times a factor an image (B)."""
    factors = ops.cast(factors, x.dtype)
    return merge_batch(ops.reshape(x, (-1, num_tokens, x.shape[-1])) * factors[:, None, None])
