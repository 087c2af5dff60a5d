"""Texts (N) in; their embeddings, by the tokenizer and the text tower, out: in the graph."""

from typing import Any

import tensorflow as tf

from tf_groupvit.models.comparing import normalise
from tf_groupvit.segmentation.prompts import PROMPTS_AT_ONCE

IDS = tf.TensorSpec([None, None], tf.int32)


class Reading:
    """The text side of one model; the tower is traced once, for all signatures."""

    def __init__(self, model: Any, tokens: Any) -> None:
        self.tokens, self.width = tokens, model.config.projection_dim

        def tower(input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
            features = model.get_text_features(input_ids, attention_mask, training=False)
            return tf.ensure_shape(tf.cast(features, tf.float32), [None, self.width])

        self.tower = tf.function(tower, input_signature=[IDS, IDS], autograph=False)

    def features(self, texts: tf.Tensor) -> tf.Tensor:
        """Projected features (N, D) of texts (N), not normalised.

        Texts of like length go through the tower together, cut to the longest among them: most prompts have ten
        tokens, and the tower takes 77.
        """
        tokens = self.tokens(texts)
        lengths = tf.reduce_sum(tokens["attention_mask"], axis=1)
        order = tf.argsort(lengths, stable=True)
        ids, mask = tf.gather(tokens["input_ids"], order), tf.gather(tokens["attention_mask"], order)
        lengths = tf.gather(lengths, order)
        features = tf.gather(self.by_parts(ids, mask, lengths), tf.math.invert_permutation(order))
        return tf.ensure_shape(features, [None, self.width])

    def by_parts(self, ids: tf.Tensor, mask: tf.Tensor, lengths: tf.Tensor | None = None) -> tf.Tensor:
        """Projected features (N, D) of tokens (N, T), some texts at a time.

        With ``lengths`` (N), those that go together are cut to the longest of them.
        """
        N, T = tf.unstack(tf.shape(ids))
        rounds = (N + PROMPTS_AT_ONCE - 1) // PROMPTS_AT_ONCE

        def step(i: Any, found: Any) -> tuple[Any, Any]:
            rows = slice(i * PROMPTS_AT_ONCE, (i + 1) * PROMPTS_AT_ONCE)
            longest = T if lengths is None else tf.reduce_max(lengths[rows])
            return i + 1, found.write(i, self.tower(ids[rows, :longest], mask[rows, :longest]))

        found = tf.TensorArray(tf.float32, rounds, infer_shape=False, element_shape=[None, self.width])
        _, found = tf.while_loop(lambda i, _: i < rounds, step, (0, found), parallel_iterations=1)
        return tf.ensure_shape(found.concat(), [None, self.width])

    def embeds(self, texts: tf.Tensor) -> tf.Tensor:
        """Normalised embeddings (N, D) of texts (N)."""
        return normalise(self.features(texts))

    def class_embeds(self, names: tf.RaggedTensor, templates: tuple[str, ...]) -> tf.Tensor:
        """Classes by their names (M, synonyms) -> embeddings (M, D), as segmentation/prompts.py makes them.

        Each prompt is encoded once, however often the batch has it.
        """
        parts = [template.split("{}") for template in templates]
        prompts = tf.stack([tf.strings.join([before, names.values, after]) for before, after in parts], axis=1)
        unique, use = tf.unique(tf.reshape(prompts, [-1]))
        rows = tf.reshape(tf.gather(self.features(unique), use), [-1, len(templates), self.width])
        return normalise(tf.math.segment_mean(tf.reduce_mean(rows, axis=1), names.value_rowids()))
