"""Captions of a batch with their places in the data in; token ids that the losses read out."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training.captions import Prompts
from tf_groupvit.training.words import Words


class Texts:
    """``texts(number, where, captions)`` -> arrays of a batch by name, as ``signature`` says.

    ``input_ids`` and ``attention_mask`` int32 (B, T); with prompts ``label_ids`` and ``label_mask`` int32 (B, L, T);
    with a vocabulary ``word_ids`` and ``word_mask`` int32 (V, T), and ``present`` float32 (B, V).

    Args:
        tokenizer: its ``max_length`` is T; longer captions are cut, as published.
        prompts: draws L words of a caption.
        words: the vocabulary.
        seed: of the words that are drawn.
    """

    def __init__(self, tokenizer: Tokenizer, prompts: Prompts | None, words: Words | None, seed: int) -> None:
        self.tokenizer, self.prompts, self.words, self.seed = tokenizer, prompts, words, seed

    def signature(self, B: int) -> dict[str, tf.TensorSpec]:
        """Name -> shape and type, in the order of the arrays."""
        T = self.tokenizer.max_length
        shapes: dict[str, tuple[int, ...]] = {"input_ids": (B, T), "attention_mask": (B, T)}
        if self.prompts:
            L = self.prompts.count
            shapes |= {"label_ids": (B, L, T), "label_mask": (B, L, T)}
        if self.words:
            shapes |= {"word_ids": self.words.shape, "word_mask": self.words.shape}
        found = {name: tf.TensorSpec(shape, tf.int32) for name, shape in shapes.items()}
        if self.words:
            found["present"] = tf.TensorSpec((B, self.words.shape[0]), tf.float32)
        return found

    def __call__(self, number: int, where: Sequence[tuple[int, int]], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Batch ``number``. ``where`` are round and place of each caption, on which hangs what is drawn of it."""
        rows: list[str] = []
        for place, caption in zip(where, captions, strict=True):
            rng = np.random.default_rng((self.seed, *place))
            rows += [caption, *(self.prompts(caption, rng) if self.prompts else ())]
        tokens = self.tokenizer.cut(rows)
        ids, mask = (tokens[name].reshape(len(captions), -1, tokens[name].shape[1]) for name in tokens)
        found = {"input_ids": ids[:, 0], "attention_mask": mask[:, 0]}
        if self.prompts:
            found |= {"label_ids": ids[:, 1:], "label_mask": mask[:, 1:]}
        if self.words:
            found["word_ids"], found["word_mask"] = self.words.prompts(number)
            found["present"] = self.words.present(captions)
        return found
