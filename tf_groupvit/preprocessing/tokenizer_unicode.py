"""Code points -> what the Python tokenizer makes of them, int32, as small tables for TensorFlow
graphs.

The tables are read off the tokenizers library itself, whose Unicode version and lower-casing
neither RE2 nor ``tf.strings.lower`` shares (the latter also turns a sigma at the end of a word into
its final form).
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import tensorflow as tf
from tokenizers import Regex, normalizers

from tf_groupvit.preprocessing.tokenizer import NORMALIZER

# the first number that is no code point; added tokens stand for themselves from here on
CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)
PAGE = 256

# One ASCII letter for each class of characters that the pattern of pieces tells apart.
LETTER, NUMBER, SPACE, OTHER, ADDED = b"L0 !A"
CLASSES = {LETTER: r"\p{L}", NUMBER: r"\p{N}", SPACE: r"\s"}
# What the pattern names by itself is its own class: quotes, contractions, the two tokens of CLIP in
# lower case.
NAMED = b"'<|>" + bytes(sorted(set(b"strevmlld" + b"startoftext" + b"endoftext")))


class PageTable(tf.Module):
    """A table over code points, int32: equal pages of 256 entries are stored once."""

    def __init__(self, values: np.ndarray, name: str | None = None) -> None:
        super().__init__(name=name)
        padded = np.pad(values, (0, -len(values) % PAGE), mode="edge").reshape(-1, PAGE)
        number_of: dict[bytes, int] = {}
        page_of = [number_of.setdefault(page.tobytes(), len(number_of)) for page in padded]
        self.pages = tf.constant(np.frombuffer(b"".join(number_of), padded.dtype), tf.int32)
        self.first_entry = tf.constant(np.array(page_of) * PAGE, tf.int32)

    def __call__(self, points: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.pages, tf.gather(self.first_entry, points // PAGE) + points % PAGE)


class NormalForms(tf.Module):
    """Code points (S) and their texts (S) -> the same in normal form: composed, lower case, 1 to 3
    for each.
    """

    def __init__(self, added: int) -> None:
        """``added``: how many numbers from CODE_POINTS on stand for added tokens, which stay as
        they are.
        """
        super().__init__(name="normal_forms")
        forms = normal_forms()
        long = np.flatnonzero(forms[:, 1] >= 0)
        first = np.append(forms[:, 0], np.arange(CODE_POINTS, CODE_POINTS + added))
        first[long] = -1 - np.arange(
            len(long)
        )  # the longer forms are few, and rare: a table of their own
        self.steps = PageTable(
            first - np.arange(len(first))
        )  # most are 0, so that most pages are one
        self.longer = tf.constant(forms[long], tf.int32)

    def __call__(self, points: tf.Tensor, of: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        forms = points + self.steps(points)
        return tf.cond(
            tf.reduce_any(forms < 0), lambda: self._lengthen(forms, of), lambda: (forms, of)
        )

    def _lengthen(self, forms: tf.Tensor, of: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        longer = tf.gather(self.longer, tf.maximum(-1 - forms, 0))  # (S, 3)
        alone = tf.stack([forms, -tf.ones_like(forms), -tf.ones_like(forms)], 1)
        every = tf.reshape(tf.where(forms[:, None] < 0, longer, alone), [-1])
        places = tf.where(every >= 0)[:, 0]
        return tf.gather(every, places), tf.gather(of, places // 3)


class Classes(PageTable):
    """Code points (S) -> their classes (S); the numbers of added tokens are the class ADDED."""

    def __init__(self, added: int) -> None:
        super().__init__(np.append(classes(), np.full(added, ADDED)), name="classes")


def all_characters() -> str:
    """Every code point that may be a character: planes 4 to 13 are empty, 15 and 16 are for private
    use.
    """
    used = np.r_[: SURROGATES.start, SURROGATES.stop : 0x40000, 0xE0000:0xF0000]
    return used.astype(np.uint32).tobytes().decode("utf-32-le")


def changed_by(change: Callable[[str], str], before: str = "", after: str = "") -> dict[str, str]:
    """What ``change`` makes of each character, between two texts, where it makes another of it."""
    # A zero keeps neighbors apart from each other; zero itself, the first, changes under nothing
    # that is asked here.
    given = [before + character + after for character in all_characters()[1:]]
    made = change("\0".join(given)).split("\0")
    pairs = zip(all_characters()[1:], given, made, strict=True)
    return {character: after for character, before, after in pairs if before != after}


@cache
def normal_forms() -> np.ndarray:
    """Normal form (composed, white space as blank, lower case) of each code point alone: (code
    points, 3), -1 filled.

    It is the normal form of a composed string too, character by character, since lower-casing here
    knows no context.
    """
    changed = changed_by(NORMALIZER.normalize_str)
    table = np.full((CODE_POINTS, max(map(len, changed.values()))), -1, np.int32)
    table[:, 0] = np.arange(CODE_POINTS)
    for point, form in changed.items():
        table[ord(point), : len(form)] = [ord(character) for character in form]
    return table


@cache
def classes() -> np.ndarray:
    """Class of each code point, one of LETTER, NUMBER, SPACE, OTHER, or itself where the pattern
    names it.
    """
    characters = all_characters()
    points = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
    table = np.full(CODE_POINTS, OTHER, np.int32)
    for kind, pattern in CLASSES.items():
        # \0 is in none of the classes, so what has become \0 (but for \0 itself) is in this one.
        replaced = normalizers.Replace(Regex(pattern), "\0").normalize_str(characters)
        found = np.frombuffer(replaced.encode("utf-32-le"), np.uint32) == 0
        table[points[1:][found[1:]]] = kind
    named = np.frombuffer(NAMED, np.uint8)
    table[named] = named
    return table
