"""A caption in; words that it mentions, and prompts made of them for the multi-label loss, out.

Paper: section 3.3. The published models draw up to three words, in random templates of the full
    set.
"""

import html
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.templates import templates_of

Words = Callable[[str], list[str]]  # a caption -> the words that may be drawn, each once

# Nouns and verbs of the Penn treebank, as published: verbs too, and no plural proper nouns.
TAGS = frozenset("NN NNS NNP VB VBD VBG VBN VBP VBZ".split())
TAGGER_DATA = "averaged_perceptron_tagger_eng"


def clean_caption(caption: str) -> str:
    """Turn HTML's entities into characters, twice, since the web escapes twice, and drop blanks
    around.
    """
    return html.unescape(html.unescape(caption)).strip()


def listed_words(words: Iterable[str]) -> Words:
    """Look for these words, or several words in a row, in a caption: whole words, whatever their
    case.

    Of words that overlap, the longer one counts: "traffic light" hides "light". They come in the
    order of the caption, each once, spelled as in the list.

    Raises:
        InputError: one string instead of several, no words, or an empty one among them.
    """
    if isinstance(words, str):
        raise InputError(
            f"words are one string, {words[:40]!r}: expected several, e.g. ['apple', 'star']."
        )
    spelled = {" ".join(word.lower().split()): word for word in words}
    if not spelled or "" in spelled:
        raise InputError(f"words should be one or more, none of them empty; {len(spelled)} came.")
    longest_first = sorted(spelled, key=len, reverse=True)
    parts = ("".join(rf"\s+{re.escape(w)}" for w in word.split())[3:] for word in longest_first)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)")

    def find(caption: str) -> list[str]:
        found = (" ".join(match.split()) for match in pattern.findall(caption.lower()))
        return [spelled[word] for word in dict.fromkeys(found)]

    return find


def tagged_words(tags: Iterable[str] = TAGS) -> Words:
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
        return list(
            dict.fromkeys(
                word for word, tag in tagged if tag in wanted and any(map(str.isalnum, word))
            )
        )

    return find


class Prompts:
    """Draws the prompts of a caption: up to ``count`` of its words, each in a random template, no
    word twice.

    Where the caption has fewer words, it stands itself in the place of the rest, as published.

    Raises:
        InputError: a count below 1, or templates without a place for the word.
    """

    def __init__(
        self, words: Words, count: int = 3, templates: str | Sequence[str] = "full"
    ) -> None:
        if count < 1:
            raise InputError(f"The count of prompts a caption should be 1 or more, {count} came.")
        self.words, self.count, self.templates = words, count, templates_of(templates)

    def __call__(self, caption: str, rng: np.random.Generator) -> list[str]:
        words = self.words(caption)
        drawn = [words[k] for k in rng.permutation(len(words))[: self.count]]
        chosen = rng.integers(len(self.templates), size=len(drawn))
        prompts = [self.templates[k].format(word) for k, word in zip(chosen, drawn, strict=True)]
        return prompts + [caption] * (self.count - len(prompts))
