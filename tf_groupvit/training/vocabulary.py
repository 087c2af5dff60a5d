"""Texts in, a small byte-pair vocabulary of their own out, in the files that ``Tokenizer`` reads."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from tf_groupvit.preprocessing.tokenizer import NORMALIZER, PIECES, Tokenizer
from tf_groupvit.preprocessing.tokenizer_files import DEFAULT_SPECIAL, END_OF_WORD
from tf_groupvit.segmentation.writing import make_folder, write_whole


def train_vocabulary(folder: Path, texts: Iterable[str], merges: int, max_length: int) -> Tokenizer:
    """Learn at most ``merges`` merges from texts, write vocab.json and merges.txt to ``folder``, and read them back.

    Any text can be written with the vocabulary: its first 512 tokens are the bytes, inside a word and at its end.
    """
    learned = _learn(texts, merges)
    tokens = [*_bytes(), *map("".join, learned)]
    tokens += dict.fromkeys(DEFAULT_SPECIAL.values())  # the end token has the highest id, as in CLIP
    numbered = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    lines = ["#version: 0.2", *map(" ".join, learned)]
    make_folder(folder)
    write_whole(folder / "vocab.json", json.dumps(numbered, ensure_ascii=False).encode())
    write_whole(folder / "merges.txt", ("\n".join(lines) + "\n").encode())
    write_whole(folder / "tokenizer_config.json", json.dumps({"model_max_length": max_length}).encode())
    return Tokenizer.from_pretrained(folder)


def _bytes() -> list[str]:
    """The bytes as letters stand for them, inside a word and at its end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*letters, *(letter + END_OF_WORD for letter in letters)]


def _learn(texts: Iterable[str], merges: int) -> list[tuple[str, str]]:
    """The most frequent pairs, in the order in which they are merged: the same ones for the same texts.

    Of pairs as frequent as one another, the trainer takes the one whose letters have the lower numbers. It would number
    the ends of words as they come out of a hash table, in another order each time; so all are named beforehand.
    """
    backend = Backend(models.BPE(end_of_word_suffix=END_OF_WORD))
    backend.normalizer = NORMALIZER
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False)])
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
