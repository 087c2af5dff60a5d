"""Text tower of GroupViT: token ids to the state of each text's end token."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from tf_groupvit.checkpoints.matching import UNUSED_BY_TEXT
from tf_groupvit.config import GroupViTTextConfig
from tf_groupvit.errors import InputError
from tf_groupvit.models.inputs import as_ids, concrete, refuse_tuple, text_inputs
from tf_groupvit.models.layers import (
    Block,
    LayerNorm,
    Part,
    Policy,
    layer_name,
    merge_batch,
    refuse_what_is_folded,
    subtract_mean,
    written_once,
)
from tf_groupvit.models.operations import first_argmax
from tf_groupvit.models.outputs import TowerOutput
from tf_groupvit.models.pretrained import PretrainedModel
from tf_groupvit.models.weights import normal
from tf_groupvit.types import Tensor

LEGACY_END = 2  # configs from before the end token was named: a text ends at its highest id


class TextTower(Part):
    """Embeddings, causal transformer blocks, a final norm, and the state of the end token."""

    def __init__(
        self,
        config: GroupViTTextConfig,
        name: str = "text_model",
        dtype: Policy = None,
        folded: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        self.config, self.folded = config, folded
        width, policy, norm = config.hidden_size, self.dtype_policy, f"{name}.final_layer_norm"
        self.token_embedding = self._table("token_embedding", config.vocab_size)
        self.position_embedding = self._table("position_embedding", config.max_position_embeddings)
        self.blocks = [
            Block(config, f"{name}.encoder.layers.{i}", policy, folded)
            for i in range(config.num_hidden_layers)
        ]
        self.final_layer_norm = LayerNorm(norm, width, config.layer_norm_eps, policy)

    def _table(self, part: str, rows: int) -> keras.layers.Embedding:
        name = f"{self.name}.embeddings.{part}"
        start = normal(f"{name}/embeddings", 0.02 * self.config.initializer_factor)
        table = keras.layers.Embedding(
            rows,
            self.config.hidden_size,
            embeddings_initializer=start,
            name=layer_name(name),
            dtype=self.dtype_policy,
        )
        table.build()
        return table

    def call(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: bool | None = None,
    ) -> TowerOutput:
        """Token ids (N, T) -> states (N, T, C), the end token's (N, C), and what is asked for.

        ``attention_mask`` and ``position_ids`` are (N, T) or (1, T).
        """
        refuse_what_is_folded(self.folded, output_hidden_states, training)
        ids = self._checked(input_ids)
        num_tokens = ops.shape(ids)[1]
        positions = ops.arange(num_tokens)[None]
        if position_ids is not None:
            positions = self._positions(position_ids, ids)
        x = self.token_embedding(ids) + self.position_embedding(positions)  # (N, T, C)
        seen = self._seen(num_tokens, attention_mask, ids)
        states, attentions, shape = [x], [], (-1, num_tokens, x.shape[-1])
        tokens = subtract_mean(merge_batch(x)) if self.folded else merge_batch(x)
        for block in self.blocks if training else written_once(self.blocks):
            tokens, weights = block(tokens, num_tokens=num_tokens, seen=seen, training=training)
            attentions.append(weights)
            if output_hidden_states:
                states.append(ops.reshape(tokens, shape))
        x = ops.reshape(self.final_layer_norm(tokens), shape)
        end = self._end_of_text(ids)  # (N, 1)
        return TowerOutput.of(
            last_hidden_state=x,
            pooler_output=ops.take_along_axis(x, end[:, :, None], axis=1)[:, 0],
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def _positions(self, position_ids: Tensor, ids: Tensor) -> Tensor:
        """Given positions, (N or 1, T), where they can be looked at checked against the table."""
        values, longest = concrete(position_ids), self.config.max_position_embeddings
        if (
            values is not None
            and values.size
            and not (values.min() >= 0 and values.max() < longest)
        ):
            received = f"from {values.min()} to {values.max()}"
            raise InputError(
                f"position_ids go {received}: this model has positions 0 to {longest - 1}."
            )
        return _of_shape("position_ids", as_ids(position_ids), ids)

    def _seen(self, num_tokens: int | Tensor, attention_mask: Tensor | None, ids: Tensor) -> Tensor:
        """Where tokens may look, bool (N or 1, 1, T, T): to the left, and not at padding."""
        row, column = ops.arange(num_tokens)[:, None], ops.arange(num_tokens)[None]
        seen = (column <= row)[None, None]
        if attention_mask is not None:
            mask = as_ids(ops.cast(attention_mask, "bool"))  # half a token is a token
            mask = ops.cast(_of_shape("attention_mask", mask, ids), "bool")
            seen = ops.logical_and(seen, mask[:, None, None, :])
        return seen

    def _ends(self, ids: Tensor) -> Tensor:
        """True where a token is an end token, (N, T)."""
        found = ops.zeros_like(ids, dtype="bool")
        for end in end_ids(self.config):
            found = ops.logical_or(found, ops.equal(ids, end))
        return found

    def _end_of_text(self, ids: Tensor) -> Tensor:
        """Where each text ends, (N, 1): its first end token; for legacy configs its highest id."""
        legacy = self.config.eos_token_id == LEGACY_END
        return first_argmax(ids if legacy else ops.cast(self._ends(ids), "int32"), axis=1)

    def _checked(self, input_ids: Tensor) -> Tensor:
        """ids as int32 (N, T); refused where they cannot be right and that can be told before
        running.
        """
        ids = as_ids(input_ids)
        longest = self.config.max_position_embeddings
        if ids.shape[1] == 0:
            raise InputError("input_ids have no tokens: a text has at least its end token.")
        if isinstance(ids.shape[1], int) and ids.shape[1] > longest:
            raise InputError(
                f"input_ids are {ids.shape[1]} tokens long: this model takes {longest}, truncate"
                " them."
            )
        self.check_values(input_ids)
        return ids

    def check_values(self, input_ids: Tensor) -> None:
        """Token ids (N, T) or (T,) that can be looked at: refused where they cannot be right."""
        ids = concrete(input_ids)
        if ids is None or not ids.size:
            return
        ids = ids.reshape(-1, ids.shape[-1])
        size, end = self.config.vocab_size, self.config.eos_token_id
        if ids.min() < 0 or ids.max() >= size:
            raise InputError(
                f"input_ids go from {ids.min()} to {ids.max()}: this model's vocabulary is 0 to"
                f" {size - 1}; use the tokenizer that came with the checkpoint."
            )
        if end == LEGACY_END:
            return
        without = np.flatnonzero(~np.isin(ids, end_ids(self.config)).any(axis=1))
        if without.size:
            raise InputError(
                f"Row {without[0]} of input_ids has no end token {end}: end every text with it, as"
                " the tokenizer does."
            )


def end_ids(config: GroupViTTextConfig) -> list[int]:
    """The tokens that may end a text."""
    end = config.eos_token_id
    return [one for one in (end if isinstance(end, tuple) else (end,)) if one is not None]


def _of_shape(name: str, rows: Tensor, ids: Tensor) -> Tensor:
    """Rows that go with the ids, (N or 1, T); refused where static shapes show that they do not."""
    for axis, allowed in ((0, (1, ids.shape[0])), (1, (ids.shape[1],))):
        if (
            isinstance(rows.shape[axis], int)
            and None not in allowed
            and rows.shape[axis] not in allowed
        ):
            received = f"has shape {tuple(rows.shape)}, but input_ids have {tuple(ids.shape)}"
            raise InputError(f"{name} {received}: expected one entry a token.")
    return rows


@keras.saving.register_keras_serializable("tf_groupvit")
class TFGroupViTTextModel(PretrainedModel):
    """GroupViT's text tower: token ids (N, T) -> ``TowerOutput``.

    Errors: InputError for ids outside the vocabulary, texts longer than the positions, or a text
        without an end token (in a traced graph only what static shapes tell is checked; a text
        without an end token is then pooled at 0). Keras' loops look at ids that come as arrays.
    """

    config_class = GroupViTTextConfig
    may_ignore = UNUSED_BY_TEXT

    def __init__(self, config: GroupViTTextConfig, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self.text_model = TextTower(config, dtype=self.dtype_policy)
        self.built = True

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
    ) -> TowerOutput:
        """Shapes: input_ids, attention_mask, position_ids (N, T), integers; the first may be a dict
        of them.
        """
        refuse_tuple(return_dict)
        given = text_inputs(input_ids, attention_mask, position_ids)
        return self.text_model(
            given["input_ids"],
            attention_mask=given["attention_mask"],
            position_ids=given["position_ids"],
            training=training,
            **self.flags(output_attentions, output_hidden_states),
        )

    if TYPE_CHECKING:
        config: GroupViTTextConfig

        def __call__(self, *arguments: Any, **keywords: Any) -> TowerOutput: ...

    def default_signature(self) -> dict[str, keras.InputSpec]:
        """Token ids and mask (N, T)."""
        return {
            "input_ids": keras.InputSpec(shape=(None, None), dtype="int32", name="input_ids"),
            "attention_mask": keras.InputSpec(
                shape=(None, None), dtype="int32", name="attention_mask"
            ),
        }
