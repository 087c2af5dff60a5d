"""Texts of a batch: prompts of a fixed vocabulary, token ids that the losses read; and a new
byte-pair vocabulary.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from tf_groupvit.files import atomic_write, make_folder
from tf_groupvit.preprocessing.tokenizer import NORMALIZER, PIECES, Tokenizer
from tf_groupvit.preprocessing.tokenizer_files import DEFAULT_SPECIAL, END_OF_WORD
from tf_groupvit.training.captions import Prompts, listed_words

# A word's prompt is one of these, another at every step: what is learned should not hang on the
# words around it.
TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}.",
    "a picture of the {}.",
    "a photo of {}.",
    "{}.",
    "nothing but {}.",
)


class Words:
    """What losses over a vocabulary read beside pictures: ``word_ids`` and ``word_mask`` (V, T),
    ``present`` (B, V).

    Args:
        words: V names, of one word or several.
        length: T, in tokens; longer prompts are cut, with a warning.
        seed: of the order of the templates.

    Raises:
        InputError: no words, an empty one, or a length that is not the tokenizer's.
    """

    def __init__(
        self, words: Sequence[str], tokenizer: Tokenizer, length: int, seed: int = 0
    ) -> None:
        self.words, self.seed, self.shape = tuple(words), seed, (len(words), length)
        self._find, self._column = (
            listed_words(words),
            {word: column for column, word in enumerate(words)},
        )
        texts = ([form.format(word) for word in words] for form in TEMPLATES)
        self._prompts = [tokenizer(rows, max_length=length, padding="max_length") for rows in texts]

    def prompts(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask, int32 (V, T), of batch ``number``."""
        chosen = self._prompts[np.random.default_rng((self.seed, number)).integers(len(TEMPLATES))]
        return chosen["input_ids"], chosen["attention_mask"]

    def present(self, captions: Sequence[str]) -> np.ndarray:
        """Which words each caption has, as whole words and in any case: float32 (B, V), 1 where it
        has it.

        Of words that overlap, the longer one counts.
        """
        found = np.zeros((len(captions), len(self.words)), np.float32)
        for row, caption in zip(found, captions, strict=True):
            row[[self._column[word] for word in self._find(caption)]] = 1
        return found


class Texts:
    """``texts(number, where, captions)`` -> arrays of a batch by name, as ``signature`` says.

    ``input_ids`` and ``attention_mask`` int32 (B, T); with prompts ``label_ids`` and ``label_mask``
    int32 (B, L, T); with a vocabulary ``word_ids`` and ``word_mask`` int32 (V, T), and ``present``
    float32 (B, V).

    Args:
        tokenizer: its ``max_length`` is T; longer captions are cut, as published.
        prompts: draws L words of a caption.
        words: the vocabulary.
        seed: of the words that are drawn.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompts: Prompts | None, words: Words | None, seed: int
    ) -> None:
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

    def __call__(
        self, number: int, where: Sequence[tuple[int, int]], captions: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Batch ``number``. ``where`` are round and place of each caption, on which hangs what is
        drawn of it.
        """
        rows: list[str] = []
        for place, caption in zip(where, captions, strict=True):
            rng = np.random.default_rng((self.seed, *place))
            rows += [caption, *(self.prompts(caption, rng) if self.prompts else ())]
        tokens = self.tokenizer.cut(rows)
        ids, mask = (
            tokens[name].reshape(len(captions), -1, tokens[name].shape[1]) for name in tokens
        )
        found = {"input_ids": ids[:, 0], "attention_mask": mask[:, 0]}
        if self.prompts:
            found |= {"label_ids": ids[:, 1:], "label_mask": mask[:, 1:]}
        if self.words:
            found["word_ids"], found["word_mask"] = self.words.prompts(number)
            found["present"] = self.words.present(captions)
        return found


def train_vocabulary(folder: Path, texts: Iterable[str], merges: int, max_length: int) -> Tokenizer:
    """Learn at most ``merges`` merges from texts, write vocab.json and merges.txt to ``folder``,
    and read them back.

    Any text can be written with the vocabulary: its first 512 tokens are the bytes, inside a word
    and at its end.
    """
    learned = _learn(texts, merges)
    tokens = [*_bytes(), *map("".join, learned)]
    tokens += dict.fromkeys(
        DEFAULT_SPECIAL.values()
    )  # the end token has the highest id, as in CLIP
    numbered = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    lines = ["#version: 0.2", *map(" ".join, learned)]
    make_folder(folder)
    atomic_write(folder / "vocab.json", json.dumps(numbered, ensure_ascii=False).encode())
    atomic_write(folder / "merges.txt", ("\n".join(lines) + "\n").encode())
    atomic_write(
        folder / "tokenizer_config.json", json.dumps({"model_max_length": max_length}).encode()
    )
    return Tokenizer.from_pretrained(folder)


def _bytes() -> list[str]:
    """The bytes as letters stand for them, inside a word and at its end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*letters, *(letter + END_OF_WORD for letter in letters)]


def _learn(texts: Iterable[str], merges: int) -> list[tuple[str, str]]:
    """The most frequent pairs, in the order in which they are merged: the same ones for the same
    texts.

    Of pairs as frequent as one another, the trainer takes the one whose letters have the lower
    numbers. It would number the ends of words as they come out of a hash table, in another order
    each time; so all are named beforehand.
    """
    backend = Backend(models.BPE(end_of_word_suffix=END_OF_WORD))
    backend.normalizer = NORMALIZER
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(_bytes()) + merges,
        min_frequency=2,
        end_of_word_suffix=END_OF_WORD,
        special_tokens=_bytes(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    found = json.loads(backend.to_str())["model"]["merges"]
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in found]
    return [(first, second) for first, second in pairs][:merges]
