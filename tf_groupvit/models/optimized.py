"""A snapshot of a model for inference: folded weights, and another runtime for the vision tower if
one is wanted.

Folding moves what surrounds a product into its weights, where it costs nothing; it is pure NumPy,
in float64. In each block the layer norms' gamma and beta, the scale of queries, and queries, keys
and values themselves become one product; what is written to the residual stream has its mean taken
out, so that norms need not do it. The keys of the assignment go into its few queries.
Measured: scripts/bench tower --folding.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_groupvit.checkpoints.names import checkpoint_name
from tf_groupvit.errors import InputError
from tf_groupvit.models.grouping import AssignAttention
from tf_groupvit.models.groupvit import Projection, TFGroupViTModel
from tf_groupvit.models.layers import Block, is_plain, refuse_what_is_folded
from tf_groupvit.models.outputs import TowerOutput
from tf_groupvit.models.vision import VisionTower
from tf_groupvit.models.weights import Source, starting_from, variables_by_name
from tf_groupvit.runtimes import GRAPH, OPENVINO, check_runtime
from tf_groupvit.types import Tensor


class Linear(NamedTuple):
    """``x @ kernel + bias``: kernel (inputs, outputs) and bias (outputs), float64."""

    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(..., inputs) -> (..., outputs)."""
        return x @ self.kernel + self.bias


def linear_of(layer: keras.layers.Dense) -> Linear:
    """The weights of a Dense layer."""
    return Linear(_array(layer.kernel), _array(layer.bias))


def fold_layer_norm(linear: Linear, norm: keras.layers.LayerNormalization) -> Linear:
    """The gamma and beta of the layer norm before a product become part of the product.

    ``(x * gamma + beta) @ kernel = x @ (gamma * kernel) + beta @ kernel``
    """
    gamma, beta = _array(norm.gamma), _array(norm.beta)
    return Linear(gamma[:, None] * linear.kernel, linear.bias + beta @ linear.kernel)


def fold_scale(linear: Linear, scale: float) -> Linear:
    """Outputs times a number."""
    return Linear(linear.kernel * scale, linear.bias * scale)


def fold_mean(linear: Linear) -> Linear:
    """Outputs less their mean: of sums of such outputs, a norm need not take the mean out."""
    kernel, bias = linear
    return Linear(kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean())


def concat_linear(parts: Sequence[Linear]) -> Linear:
    """Products of the same input as one, outputs one after the other."""
    kernels, biases = zip(*parts, strict=True)
    return Linear(np.concatenate(kernels, axis=1), np.concatenate(biases))


def fold_keys(queries: Linear, keys: Linear) -> Linear:
    """Queries and keys of one head as a product of the queries' side alone: (inputs, inputs + 1).

    ``(g Wq + bq) . (s Wk + bk)`` is ``(g Wq + bq) Wk' . s``, whose left side the first outputs are,
    plus ``(g Wq + bq) . bk``, which is the last.
    """
    across = np.concatenate([keys.kernel.T, keys.bias[:, None]], axis=1)
    return Linear(queries.kernel @ across, queries.bias @ across)


def _array(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype("float64")


def fold_block(block: Block) -> dict[str, Linear]:
    """Name of each product of a folded block -> its weights, made of a plain block's."""
    attention, mlp, name = block.self_attn, block.mlp, block.name
    queries = fold_scale(linear_of(attention.q_proj), attention.head_width**-0.5)
    qkv = concat_linear([queries, linear_of(attention.k_proj), linear_of(attention.v_proj)])
    return {
        f"{name}.self_attn.qkv_proj": fold_layer_norm(qkv, block.layer_norm1),
        f"{name}.self_attn.out_proj": fold_mean(linear_of(attention.out_proj)),
        f"{name}.mlp.fc1": fold_layer_norm(linear_of(mlp.fc1), block.layer_norm2),
        f"{name}.mlp.fc2": fold_mean(linear_of(mlp.fc2)),
    }


def fold_assignment(assign: AssignAttention) -> dict[str, Linear]:
    """The product of a folded assignment, by name."""
    queries = fold_scale(linear_of(assign.q_proj), assign.scale)
    return {f"{assign.name}.qk_proj": fold_keys(queries, linear_of(assign.k_proj))}


def folded_weights(model: TFGroupViTModel) -> Source:
    """What a folded model of the same config starts from: blocks folded, and all else as it is."""
    plain, folded = variables_by_name(model), dict[str, Linear]()
    stages = model.vision_model.stages
    for block in [*model.text_model.blocks, *(one for stage in stages for one in stage.blocks)]:
        folded |= fold_block(block)
    for stage in stages:
        if stage.num_group_tokens:
            folded |= fold_assignment(stage.downsample.assign)

    def read(path: str, shape: tuple[int, ...]) -> np.ndarray:
        name, _, part = path.rpartition("/")
        if name in folded:
            return getattr(folded[name], part).astype("float32")
        values: np.ndarray = keras.ops.convert_to_numpy(plain[checkpoint_name(path)])
        return values

    return read


class CompiledVisionTower(keras.layers.Layer):
    """A vision tower that another runtime runs: its program of each image size is made when a size
    is seen first.
    """

    def __init__(self, tower: VisionTower, runtime: str) -> None:
        super().__init__(name=tower.name, dtype="float32", trainable=False)
        from tf_groupvit.runtimes.compiled import CompiledFunction

        self.tower, self.config, self.built = tower, tower.config, True
        counts = [stage.downsample.num_groups for stage in tower.stages if stage.num_group_tokens]
        features = (counts[-1] if counts else None, tower.config.hidden_size)
        shapes = [features, *((count, None) for count in counts)]
        self.run = CompiledFunction(self._groups, shapes, runtime)

    def call(
        self,
        pixel_values: Tensor,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: bool | None = None,
    ) -> TowerOutput:
        """Pixels (B, 3, H, W) -> group features (B, G, C), their mean (B, C), and assignments (B,
        G, P) as ``attentions``. Raises ``InputError`` where hidden states or training are wanted.
        """
        refuse_what_is_folded(True, output_hidden_states, training)
        x, *assignments = self.run(self.tower.checked(pixel_values))
        return TowerOutput.of(
            last_hidden_state=x,
            pooler_output=keras.ops.mean(x, axis=1),
            attentions=tuple(assignments) if output_attentions else None,
        )

    def _groups(self, pixel_values: Tensor) -> list[Tensor]:
        found = self.tower(pixel_values, output_attentions=True, training=False)
        return [found["last_hidden_state"], *(found.attentions or ())]


class CompiledProjection(keras.layers.Layer):
    """A projection that another runtime runs. With few rows, reading the weights dominates, and
    TensorFlow packs them again at each call. Measured: 1 ms with OpenVINO, 3 without.
    """

    def __init__(self, projection: Projection, runtime: str) -> None:
        super().__init__(name=projection.name, dtype="float32", trainable=False)
        from tf_groupvit.runtimes.compiled import CompiledFunction

        self.projection, self.built = projection, True
        shape = (None, projection.outer.kernel.shape[1])
        self.run = CompiledFunction(lambda x: [projection(x, training=False)], [shape], runtime)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        """A tower's features (B, C) or (B, G, C) -> (B, D) or (B, G, D)."""
        return self.run(x)[0] if len(x.shape) == 3 else self.run(x[:, None])[0][:, 0]


class OptimizedGroupViT(TFGroupViTModel):
    """Takes the place of the model that it was made from, in inference.

    The same calls, features, ``predict`` and ``with_text_embeds``, within 1e-4 and with the same
    assignments. It is a snapshot: it holds the weights as they were when it was made; make another
    to renew it. Hidden states, training and saving are refused. With a ``runtime`` other than
    "graph" LiteRT or OpenVINO runs the vision tower (runtimes/compiled.py); "lite_int8" keeps
    neither the 1e-4 nor the assignments.
    """

    folded = True

    def __init__(self, model: TFGroupViTModel, runtime: str = GRAPH) -> None:
        with starting_from(folded_weights(model)):
            super().__init__(model.config, dtype="float32", name=f"{model.name}_optimized")
        self.trainable, self.runtime = False, runtime
        if runtime != GRAPH:
            self.vision_model = CompiledVisionTower(self.vision_model, runtime)
        if runtime == OPENVINO:  # LiteRT would read the weights again for each image of a batch
            self.visual_projection = CompiledProjection(self.visual_projection, runtime)

    def flags(self, attentions: bool | None, hidden_states: bool | None) -> dict[str, bool]:
        """A config that asks for hidden states, which are not there, is left alone; a caller who
        does is told.
        """
        return super().flags(attentions, bool(hidden_states))

    def fit(self, *arguments: Any, **keywords: Any) -> Any:
        """Refused with ``InputError``."""
        raise InputError(
            "An optimized model cannot be trained: train the model that it was made from."
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Refused with ``InputError``."""
        raise InputError(
            "An optimized model is not saved: save the model that it was made from, and"
            " optimize it."
        )

    def get_config(self) -> dict[str, Any]:
        """Refused with ``InputError``."""
        raise InputError(
            "An optimized model is not saved: save the model that it was made from, and"
            " optimize it."
        )


def can_be_optimized(model: keras.Model) -> bool:
    """Whether a model can be folded: float32, on TensorFlow, neither quantized nor with LoRA."""
    if type(model) is not TFGroupViTModel or keras.backend.backend() != "tensorflow":
        return False
    return is_plain(model)


def optimized(model: TFGroupViTModel, runtime: str = GRAPH) -> OptimizedGroupViT:
    """The model as it is now folded for inference, its vision tower run by one of ``RUNTIMES``.

    Raises:
        InputError: a runtime that is not known or not installed, or a model that cannot be folded,
            and why.
    """
    check_runtime(runtime)
    if not can_be_optimized(model):
        backend, kind = keras.backend.backend(), model.dtype_policy.name
        raise InputError(
            "Only a float32 TFGroupViTModel on TensorFlow, neither quantized nor with LoRA, can be"
            f" optimized: this is a {kind} {type(model).__name__} on {backend}."
        )
    return OptimizedGroupViT(model, runtime)
