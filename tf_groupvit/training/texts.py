"""Words, prompts and token ids of captions, and a vocabulary that is learned from them."""

import html
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from tf_groupvit.errors import InputError
from tf_groupvit.files import atomic_write, make_folder
from tf_groupvit.preprocessing.tokenizer import NORMALIZER, PIECES, Tokenizer
from tf_groupvit.preprocessing.tokenizer_files import DEFAULT_SPECIAL, END_OF_WORD
from tf_groupvit.segmentation.templates import templates_of

FindWords = Callable[[str], list[str]]  # a caption -> its words that a loss may use, each once

# Nouns and verbs of the Penn treebank, as published: verbs too, and no plural proper nouns.
TAGS = frozenset("NN NNS NNP VB VBD VBG VBN VBP VBZ".split())
LEARNED = 20_000  # letters of a text; the time grows with the square of a word's
TAGGER_DATA = "averaged_perceptron_tagger_eng"
# The prompt of a vocabulary's word uses a different one of these at each step, so that learning
# does not depend on the wording.
TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}.",
    "a picture of the {}.",
    "a photo of {}.",
    "{}.",
    "nothing but {}.",
)


def clean_caption(caption: str) -> str:
    """Strip blanks and decode HTML's entities, twice, since the web escapes twice."""
    return html.unescape(html.unescape(caption)).strip()


def listed_words(words: Iterable[str]) -> FindWords:
    """Look for these words, or phrases, in a caption: whole words, in upper or lower case.

    Of words that overlap, the longer one counts: "traffic light" hides "light". They are returned
    in the order of the caption, each once, spelled as in the list.

    Raises:
        InputError: one string instead of several, no words, or an empty one among them.
    """
    if isinstance(words, str):
        raise InputError(
            f"words are one string, {words[:40]!r}: expected several, e.g. ['apple', 'star']."
        )
    spelled = {" ".join(word.lower().split()): word for word in words}
    if not spelled or "" in spelled:
        raise InputError(f"words should be one or more, none of them empty; got {len(spelled)}.")
    longest_first = sorted(spelled, key=len, reverse=True)
    parts = (r"\s+".join(map(re.escape, word.split())) for word in longest_first)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)")

    def find(caption: str) -> list[str]:
        found = (" ".join(match.split()) for match in pattern.findall(caption.lower()))
        return [spelled[word] for word in dict.fromkeys(found)]

    return find


def tagged_words(tags: Iterable[str] = TAGS) -> FindWords:
    """Look for the nouns and verbs of a caption with NLTK's part-of-speech tagger, as published.

    Raises:
        InputError: NLTK or its tagger's data is missing.
    """
    try:
        import nltk
        from nltk.tokenize import NLTKWordTokenizer
    except ImportError as error:
        raise InputError(
            "Words by part of speech need NLTK: pip install 'tf-groupvit[train]'."
        ) from error
    split, wanted = NLTKWordTokenizer().tokenize, frozenset(tags)
    try:
        nltk.pos_tag(["word"])
    except LookupError as error:
        raise InputError(
            f"NLTK's tagger has no data: run 'python -m nltk.downloader {TAGGER_DATA}', or give a"
            " list of words."
        ) from error

    def find(caption: str) -> list[str]:
        tagged = nltk.pos_tag(split(caption))
        words = (word for word, tag in tagged if tag in wanted and any(map(str.isalnum, word)))
        return list(dict.fromkeys(words))

    return find


def read_words(path: Path) -> list[str]:
    """The words of a file, one a line. InputError where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The words in {path} cannot be read ({error}): give a file with one a line."
        ) from error
    return [line.strip() for line in lines if line.strip()]


class Prompts:
    """Draws prompts for a caption: up to ``count`` of its words, each in a random template.

    No word is drawn twice. Where the caption has fewer words, the caption itself fills the
    remaining places. Paper: section 3.3; the published models draw up to three words, in random
    templates of the full set.

    Raises:
        InputError: a count below 1, or templates without a place for the word.
    """

    def __init__(
        self, words: FindWords, count: int = 3, templates: str | Sequence[str] = "full"
    ) -> None:
        if count < 1:
            raise InputError(f"The count of prompts a caption should be 1 or more, got {count}.")
        self.words, self.count, self.templates = words, count, templates_of(templates)

    def __call__(self, caption: str, rng: np.random.Generator) -> list[str]:
        """``count`` prompts."""
        words = self.words(caption)
        drawn = [words[k] for k in rng.permutation(len(words))[: self.count]]
        chosen = rng.integers(len(self.templates), size=len(drawn))
        prompts = [self.templates[k].format(word) for k, word in zip(chosen, drawn, strict=True)]
        return prompts + [caption] * (self.count - len(prompts))


class Words:
    """What losses over a vocabulary read: prompts of its V words, and which caption has which.

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
        self._find = listed_words(words)
        self._column = {word: column for column, word in enumerate(words)}
        texts = ([form.format(word) for word in words] for form in TEMPLATES)
        self._prompts = [tokenizer(rows, max_length=length, padding="max_length") for rows in texts]

    def prompts(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask, int32 (V, T), of batch ``number``."""
        chosen = self._prompts[np.random.default_rng((self.seed, number)).integers(len(TEMPLATES))]
        return chosen["input_ids"], chosen["attention_mask"]

    def present(self, captions: Sequence[str]) -> np.ndarray:
        """Which words each caption has, as ``listed_words`` finds them: float32 (B, V), 1 or 0."""
        found = np.zeros((len(captions), len(self.words)), np.float32)
        for row, caption in zip(found, captions, strict=True):
            row[[self._column[word] for word in self._find(caption)]] = 1
        return found


class Texts:
    """``texts(number, places, captions)`` -> arrays of a batch by name, as ``signature`` says.

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
            shapes |= dict.fromkeys(("label_ids", "label_mask"), (B, self.prompts.count, T))
        if self.words:
            shapes |= dict.fromkeys(("word_ids", "word_mask"), self.words.shape)
        found = {name: tf.TensorSpec(shape, tf.int32) for name, shape in shapes.items()}
        if self.words:
            found["present"] = tf.TensorSpec((B, self.words.shape[0]), tf.float32)
        return found

    def __call__(
        self, number: int, places: Sequence[tuple[int, int]], captions: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Batch ``number``. ``places``: round and place of each caption, which seed its words."""
        rows: list[str] = []
        for place, caption in zip(places, captions, strict=True):
            rng = np.random.default_rng((self.seed, *place))
            rows += [caption, *(self.prompts(caption, rng) if self.prompts else ())]
        tokens = self.tokenizer.cut(rows)
        ids, mask = (x.reshape(len(captions), -1, x.shape[1]) for x in tokens.values())
        found = {"input_ids": ids[:, 0], "attention_mask": mask[:, 0]}
        if self.prompts:
            found |= {"label_ids": ids[:, 1:], "label_mask": mask[:, 1:]}
        if self.words:
            found["word_ids"], found["word_mask"] = self.words.prompts(number)
            found["present"] = self.words.present(captions)
        return found


def train_vocabulary(folder: Path, texts: Iterable[str], merges: int, max_length: int) -> Tokenizer:
    """Learn at most ``merges`` merges from texts and write vocab.json and merges.txt to ``folder``.

    Any text can be written with the vocabulary: its first 512 tokens are the bytes, inside a word
    and at its end. The same texts give the same vocabulary.
    """
    learned = _learn_merges(texts, merges)
    special = dict.fromkeys(DEFAULT_SPECIAL.values())  # the end token gets the highest id, as CLIP
    tokens = [*_byte_tokens(), *map("".join, learned), *special]
    numbered = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    lines = ["#version: 0.2", *map(" ".join, learned)]
    make_folder(folder)
    for name, content in (
        ("vocab.json", json.dumps(numbered, ensure_ascii=False)),
        ("merges.txt", "\n".join(lines) + "\n"),
        ("tokenizer_config.json", json.dumps({"model_max_length": max_length})),
    ):
        atomic_write(folder / name, content)
    return Tokenizer.from_pretrained(folder)


def _byte_tokens() -> list[str]:
    """The letters that stand for the bytes, inside a word and at its end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*letters, *(letter + END_OF_WORD for letter in letters)]


def _learn_merges(texts: Iterable[str], merges: int) -> list[tuple[str, str]]:
    """The most frequent pairs, in the order in which they are merged.

    Of pairs equally frequent, the trainer takes the one whose letters have the lower numbers. It
    would number the ends of words in hash order, which changes from run to run, so all are listed
    first.
    """
    backend = Backend(models.BPE(end_of_word_suffix=END_OF_WORD))
    backend.normalizer = NORMALIZER
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, bytes_])
    trainer = trainers.BpeTrainer(
        vocab_size=len(_byte_tokens()) + merges,
        min_frequency=2,
        end_of_word_suffix=END_OF_WORD,
        special_tokens=_byte_tokens(),
        show_progress=False,
    )
    backend.train_from_iterator((text[:LEARNED] for text in texts), trainer)
    found = json.loads(backend.to_str())["model"]["merges"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in found]
    return [(first, second) for first, second in pairs][:merges]
