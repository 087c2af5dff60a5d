"""A joint model in, a snapshot of its weights folded for inference out: the same answers faster,
nothing to train.

What is folded, each part tested by itself in tests/models/test_folding.py: layer norms' affine
parts, the attention's scale and the activation's into the products beside them, queries, keys and
values into one product, the keys of the assignment into its queries, its values into what follows,
the batch norm into the projection; the mean of every residual sum is taken out of the weights that
write to it.
"""

import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.models.base_model import BaseModel
from tf_groupvit.models.groupvit import Projection, TFGroupViTModel
from tf_groupvit.models.layers import LOWEST
from tf_groupvit.models.optimized_layers import (
    Folded,
    FoldedBlock,
    before_batch_norm,
    centre,
    dense_of,
    refuse_what_is_folded,
    values,
)
from tf_groupvit.models.optimized_vision import FoldedVisionTower
from tf_groupvit.models.outputs import TowerOutput
from tf_groupvit.models.text import TextTower
from tf_groupvit.runtimes import GRAPH, OPENVINO, check_runtime
from tf_groupvit.runtimes.compiled import CompiledFunction
from tf_groupvit.runtimes.openvino import OpenVinoProgram


class FoldedTextTower(Folded, TextTower):
    """Takes the place of a ``TextTower`` in inference; hidden states and attentions are not there
    to be had.

    The tables of tokens and positions are copies, large as they are: a snapshot of some weights
    alone would be of none.
    """

    def __init__(self, tower: TextTower, name: str = "text_model") -> None:
        Folded.__init__(self, name)
        self.config, activation = tower.config, tower.config.hidden_act
        self.tokens = self.keep("tokens", values(tower.token_embedding.embeddings))
        self.positions = self.keep("positions", values(tower.position_embedding.embeddings))
        self.blocks = [
            FoldedBlock(block, activation, f"layer_{i}") for i, block in enumerate(tower.blocks)
        ]
        self.last_norm = self.norm("final_layer_norm", tower.final_layer_norm)

    def call(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: Any = None,
    ) -> TowerOutput:
        refuse_what_is_folded(output_hidden_states, training, output_attentions)
        ids, rows, length, hidden = self._start(input_ids, attention_mask, position_ids)
        for block in self.blocks:
            rows = block(rows, length=length, hidden=hidden)
        x = tf.reshape(self.last_norm(rows), (-1, length, rows.shape[-1]))
        end = self._end_of_text(ids)[:, 0]
        return TowerOutput.of(
            last_hidden_state=x, pooler_output=tf.gather(x, end, axis=1, batch_dims=1)
        )

    def pooled(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None) -> Any:
        """The state of each text's end token alone, (N, C): the last block has nothing else to
        compute.
        """
        ids, rows, length, hidden = self._start(input_ids, attention_mask, position_ids)
        for block in self.blocks[:-1]:
            rows = block(rows, length=length, hidden=hidden)
        end = self._end_of_text(ids)[:, 0]  # (N)
        texts = tf.shape(ids)[0]
        hidden = tf.broadcast_to(hidden[:, 0], (texts, length, length))
        hidden = tf.gather(hidden, end, axis=1, batch_dims=1)[:, None, None]  # (N, 1, 1, T)
        return self.last_norm(
            self.blocks[-1].only(rows, tf.range(texts) * length + end, length, hidden)
        )

    def _start(
        self, input_ids: Any, attention_mask: Any, position_ids: Any
    ) -> tuple[Any, Any, Any, Any]:
        """ids (N, T), centred rows (N * T, C), T, and what is hidden from whom (N or 1, 1, T, T)."""
        ids = self._checked(input_ids)
        length = tf.shape(ids)[1]
        positions = (
            tf.range(length)[None] if position_ids is None else self._positions(position_ids, ids)
        )
        x = tf.gather(self.tokens.value, ids) + tf.gather(self.positions.value, positions)
        hidden = tf.where(self._seen(length, attention_mask, ids), 0.0, LOWEST)
        return ids, centre(tf.reshape(x, (-1, x.shape[-1]))), length, hidden


class FoldedProjection(Folded):
    """A tower's features, (B, C) or (B, G, C) -> the shared space, as many of (..., D), not
    normalised.

    An image's few rows wait for the weights to be read, which TensorFlow does twice more, to pack
    them: OpenVINO runs the projection along with its tower, 1 ms instead of 3. LiteRT would read
    them again for each image of a batch.
    """

    def __init__(self, projection: Projection, name: str, runtime: str = GRAPH) -> None:
        super().__init__(name)
        self.inner = self.product(
            "inner", before_batch_norm(dense_of(projection.inner), projection.norm)
        )
        self.outer = self.product("outer", dense_of(projection.outer))
        shape = (None, projection.outer.kernel.shape[1])
        self.program = (
            CompiledFunction(self._rows, [shape], OpenVinoProgram) if runtime == OPENVINO else None
        )

    def call(self, x: Any, training: Any = None) -> Any:
        if len(x.shape) == 2:
            return self.call(x[:, None])[:, 0]
        return (self.program or self._rows)(x)[0]

    def _rows(self, x: Any) -> list[Any]:
        rows = self.outer(tf.nn.relu(self.inner(tf.reshape(x, (-1, x.shape[-1])))))
        return [tf.reshape(rows, (-1, tf.shape(x)[1], rows.shape[-1]))]


class OptimizedGroupViT(TFGroupViTModel):
    """Takes the place of the model that it was made from, in inference.

    The same call, features, ``predict`` and ``with_text_embeds``, within 1e-4 and with the same
    assignments. It is a
    snapshot: it holds the weights as they were when it was made, whatever becomes of them; make
        another to renew it. Hidden states, attentions of texts, training and saving are refused.
        With a ``runtime`` other than "graph" LiteRT or OpenVINO runs the vision tower
        (runtimes/compiled.py); with "lite_int8" neither the 1e-4 nor the assignments are kept.
    """

    def __init__(self, model: TFGroupViTModel, runtime: str = GRAPH) -> None:
        BaseModel.__init__(self, dtype="float32", name=f"{model.name}_optimized")
        self.config = model.config
        self.vision_model = FoldedVisionTower(model.vision_model, runtime=runtime)
        self.text_model = FoldedTextTower(model.text_model)
        self.visual_projection = FoldedProjection(
            model.visual_projection, "visual_projection", runtime
        )
        self.text_projection = FoldedProjection(model.text_projection, "text_projection")
        self.logit_scale = self.add_weight(
            name="logit_scale", shape=(), initializer="zeros", trainable=False
        )
        self.logit_scale.assign(model.logit_scale)
        self.trainable, self.built, self.runtime = False, True, runtime

    def _flag(self, name: str, value: bool | None) -> bool:
        # A config that asks for what is not there is left alone; a caller who does is told.
        return super()._flag(name, value) if name == "output_segmentation" else bool(value)

    def _pooled_texts(self, given: Mapping[str, Any], training: Any) -> Any:
        return self.text_model.pooled(**given)

    def fit(self, *arguments: Any, **keywords: Any) -> Any:
        raise InputError(
            "An optimized model cannot be trained: train the model that it was made from."
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        raise InputError(
            "An optimized model is not saved: save the model that it was made from, and"
            " optimize it."
        )

    def get_config(self) -> dict[str, Any]:
        raise InputError(
            "An optimized model is not saved: save the model that it was made from, and"
            " optimize it."
        )


def can_be_optimized(model: Any) -> bool:
    """Whether a model is of the kind that is folded: float32, on TensorFlow, neither quantized nor
    with LoRA.
    """
    if type(model) is not TFGroupViTModel or keras.backend.backend() != "tensorflow":
        return False
    layers = list(model._flatten_layers())
    changed = any(
        getattr(layer, name, None)
        for layer in layers
        for name in ("quantization_mode", "lora_enabled")
    )
    return model.compute_dtype == model.variable_dtype == "float32" and not changed


def check_can_be_optimized(model: Any) -> None:
    """Raises ``InputError`` where ``can_be_optimized`` says no."""
    if not can_be_optimized(model):
        backend, kind = keras.backend.backend(), model.dtype_policy.name
        raise InputError(
            "Only a float32 TFGroupViTModel on TensorFlow, neither quantized nor with LoRA, can be"
            f" optimized: this is a {kind} {type(model).__name__} on {backend}."
        )


def optimized(model: TFGroupViTModel, runtime: str = GRAPH) -> OptimizedGroupViT:
    """The model as it is now folded for inference, its vision tower run by one of ``RUNTIMES``.

    Raises:
        InputError: a runtime that is not known or not installed, or a model that cannot be folded,
            and why.
    """
    check_runtime(runtime)
    check_can_be_optimized(model)
    return OptimizedGroupViT(model, runtime)
