"""The text tower folded for inference: token ids (N, T) -> states (N, T, C), or only one pooled state a text (N, C)."""

from typing import Any

import tensorflow as tf

from tf_groupvit.models.layers import LOWEST
from tf_groupvit.models.optimized_layers import Folded, FoldedBlock, centre, refuse_what_is_folded, values
from tf_groupvit.models.outputs import TowerOutput
from tf_groupvit.models.text import TextTower


class FoldedTextTower(Folded, TextTower):
    """Takes the place of a ``TextTower`` in inference; hidden states and attentions are not there to be had.

    The tables of tokens and positions are copies, large as they are: a snapshot of some weights alone would be of none.
    """

    def __init__(self, tower: TextTower, name: str = "text_model") -> None:
        Folded.__init__(self, name)
        self.config, activation = tower.config, tower.config.hidden_act
        self.tokens = self.keep("tokens", values(tower.token_embedding.embeddings))
        self.positions = self.keep("positions", values(tower.position_embedding.embeddings))
        self.blocks = [FoldedBlock(block, activation, f"layer_{i}") for i, block in enumerate(tower.blocks)]
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
        return TowerOutput.of(last_hidden_state=x, pooler_output=tf.gather(x, end, axis=1, batch_dims=1))

    def pooled(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None) -> Any:
        """The state of each text's end token alone, (N, C): the last block has nothing else to compute."""
        ids, rows, length, hidden = self._start(input_ids, attention_mask, position_ids)
        for block in self.blocks[:-1]:
            rows = block(rows, length=length, hidden=hidden)
        end = self._end_of_text(ids)[:, 0]  # (N)
        texts = tf.shape(ids)[0]
        hidden = tf.broadcast_to(hidden[:, 0], (texts, length, length))
        hidden = tf.gather(hidden, end, axis=1, batch_dims=1)[:, None, None]  # (N, 1, 1, T)
        return self.last_norm(self.blocks[-1].only(rows, tf.range(texts) * length + end, length, hidden))

    def _start(self, input_ids: Any, attention_mask: Any, position_ids: Any) -> tuple[Any, Any, Any, Any]:
        """ids (N, T), centred rows (N * T, C), T, and what is hidden from whom (N or 1, 1, T, T)."""
        ids = self._checked(input_ids)
        length = tf.shape(ids)[1]
        positions = tf.range(length)[None] if position_ids is None else self._positions(position_ids, ids)
        x = tf.gather(self.tokens.value, ids) + tf.gather(self.positions.value, positions)
        hidden = tf.where(self._seen(length, attention_mask, ids), 0.0, LOWEST)
        return ids, centre(tf.reshape(x, (-1, x.shape[-1]))), length, hidden
