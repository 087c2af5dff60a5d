"""Unicode in TensorFlow graphs as the tokenizers library has it: characters, normal forms, classes.

Everything is read off the library itself: what it takes apart and composes, how it orders marks,
what it lower-cases. Its version of Unicode is not that of Python's ``unicodedata``, nor that of
RE2, and ``tf.strings.lower`` also turns a sigma at the end of a word into its final form; but the
ids of a model are those of the library.

Texts are flat rows: the code points of all texts (S), each with the number of its text (S). Ragged
tensors would not do: ``RaggedTensor.value_rowids`` makes a mask of N times the longest string, so
that one long text in a batch would cost the memory of many.
"""

from collections.abc import Callable
from functools import cache, cmp_to_key

import numpy as np
import tensorflow as tf
from tokenizers import Regex, normalizers

from tf_groupvit.preprocessing.tokenizer import NORMALIZER

# The first number that is no code point; added tokens stand for themselves from here on.
CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)
PAGE = 256

# ---- flat rows ----


def decode(strings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Code points of strings (N), (S) int32, and the string that each is of, (S) int64.

    Bytes that are no UTF-8 become U+FFFD.
    """
    bounds, points = _decode(strings)
    before = tf.raw_ops.UpperBound(
        sorted_inputs=bounds[None],
        values=tf.range(tf.size(points, tf.int64))[None],
        out_type=tf.int64,
    )
    return points, tf.squeeze(before, [0]) - 1


def decode_points(strings: tf.Tensor) -> tf.Tensor:
    """As ``decode``, the code points alone."""
    return _decode(strings)[1]


def _decode(strings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.raw_ops.UnicodeDecode(
        input=strings,
        input_encoding="UTF-8",
        errors="replace",
        replacement_char=0xFFFD,
        Tsplits=tf.int64,
    )


def encode(points: tf.Tensor, of: tf.Tensor, N: tf.Tensor) -> tf.Tensor:
    """Strings (N) of code points (S), given the never falling number of each point's string (S)."""
    return tf.raw_ops.UnicodeEncode(
        input_values=points, input_splits=splits(of, N), output_encoding="UTF-8", errors="replace"
    )


def splits(of: tf.Tensor, N: tf.Tensor) -> tf.Tensor:
    """Where each of N groups begins, and the end, (N + 1), given the group of each value (S)."""
    return first_at_least(of, tf.range(N + 1), tf.int32)


def first_at_least(row: tf.Tensor, values: tf.Tensor, kind: tf.DType = tf.int64) -> tf.Tensor:
    """Where in a rising row (S) the first number is that is not below each value: (V) <- (V).

    That is ``tf.searchsorted``, of fewer operations.
    """
    found = tf.raw_ops.LowerBound(sorted_inputs=row[None], values=values[None], out_type=kind)
    return tf.squeeze(found, [0])


def keep(mask: tf.Tensor, *rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The values of each row (S) at the places where the mask (S) is true."""
    places = true_places(mask)
    return tuple(tf.gather(row, places) for row in rows)


def true_places(mask: tf.Tensor) -> tf.Tensor:
    """Where the mask (S) is true, int64."""
    return tf.squeeze(tf.where(mask), [1])


def flatten(values: tf.Tensor, of: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """All values (S, C), row by row, and the group of each, given those of the rows (S).

    A value below 0 stands for none.
    """
    places = tf.where(values >= 0)
    return tf.gather_nd(values, places), tf.gather(of, places[:, 0])


def begins(groups: tf.Tensor) -> tf.Tensor:
    """Where a group, 0 and more, differs from the one before, and the first place: (S) bool."""
    return groups != shifted_right(groups, -1)


def ends(groups: tf.Tensor) -> tf.Tensor:
    """Where a group, 0 and more, differs from the one after, and the last place: (S) bool."""
    return groups != shifted_left(groups, -1)


def shifted_right(row: tf.Tensor, first: int | bool) -> tf.Tensor:
    """What is before each place of a row (S), if that is not empty: (S)."""
    return tf.concat([tf.constant([first], row.dtype), row[:-1]], 0)


def shifted_left(row: tf.Tensor, last: int | bool) -> tf.Tensor:
    """What is behind each place of a row (S), if that is not empty: (S)."""
    return tf.concat([row[1:], tf.constant([last], row.dtype)], 0)


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
        """The entries of code points (S), (S)."""
        return tf.gather(self.pages, tf.gather(self.first_entry, points // PAGE) + points % PAGE)


# ---- what the library makes of characters ----


def all_characters() -> str:
    """Every code point that may be a character.

    Planes 4 to 13 are empty, 15 and 16 are for private use.
    """
    used = np.r_[: SURROGATES.start, SURROGATES.stop : 0x40000, 0xE0000:0xF0000]
    return used.astype(np.uint32).tobytes().decode("utf-32-le")


def changed_by(change: Callable[[str], str], before: str = "", after: str = "") -> dict[str, str]:
    """What ``change`` makes of each character between two texts, where it makes another of it."""
    # A zero keeps neighbors apart from each other; zero itself, the first, changes under nothing
    # that is asked here.
    given = [before + character + after for character in all_characters()[1:]]
    made = change("\0".join(given)).split("\0")
    pairs = zip(all_characters()[1:], given, made, strict=True)
    return {character: after for character, before, after in pairs if before != after}


# ---- lower case and blanks ----


@cache
def normal_forms() -> np.ndarray:
    """Normal form of each code point alone: composed, lower case, white space as blank.

    It is the normal form of a composed string too, character by character, since lower-casing here
    knows no context.

    Returns:
        int32 (CODE_POINTS, 3), filled with -1.
    """
    changed = changed_by(NORMALIZER.normalize_str)
    table = np.full((CODE_POINTS, max(map(len, changed.values()))), -1, np.int32)
    table[:, 0] = np.arange(CODE_POINTS)
    for point, form in changed.items():
        table[ord(point), : len(form)] = [ord(character) for character in form]
    return table


class NormalForms(tf.Module):
    """Composed texts to their normal form, which has 1 to 3 code points for each."""

    def __init__(self, added: int) -> None:
        """``added``: how many numbers from CODE_POINTS on stand for added tokens, which stay."""
        super().__init__(name="normal_forms")
        forms = normal_forms()
        long = np.flatnonzero(forms[:, 1] >= 0)
        first = np.append(forms[:, 0], np.arange(CODE_POINTS, CODE_POINTS + added))
        # The longer forms are few, and rare: a table of their own.
        first[long] = -1 - np.arange(len(long))
        self.steps = PageTable(first - np.arange(len(first)))  # most are 0, so most pages are one
        self.longer = tf.constant(forms[long], tf.int32)

    def __call__(self, points: tf.Tensor, of: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Code points (S) and their texts (S) -> the same of the normal forms."""
        forms = points + self.steps(points)
        return tf.cond(
            tf.reduce_any(forms < 0), lambda: self._lengthen(forms, of), lambda: (forms, of)
        )

    def _lengthen(self, forms: tf.Tensor, of: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        longer = tf.gather(self.longer, tf.maximum(-1 - forms, 0))  # (S, 3)
        alone = forms[:, None] * [1, 0, 0] - [0, 1, 1]
        return flatten(tf.where(forms[:, None] < 0, longer, alone), of)


# ---- classes of characters ----

# One ASCII letter for each class of characters that the pattern of pieces tells apart.
LETTER, NUMBER, SPACE, OTHER, ADDED = b"L0 !A"
CLASSES = {LETTER: r"\p{L}", NUMBER: r"\p{N}", SPACE: r"\s"}
# What the pattern names by itself is its own class: quotes, contractions, the two tokens of CLIP in
# lower case.
NAMED = b"'<|>" + bytes(sorted(set(b"strevmlld" + b"startoftext" + b"endoftext")))


@cache
def classes() -> np.ndarray:
    """Class of each code point: LETTER, NUMBER, SPACE, OTHER, or itself where the pattern names it.

    Returns:
        int32 (CODE_POINTS).
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


def class_table(added: int) -> PageTable:
    """Code points to their classes; the numbers of ``added`` tokens are the class ADDED."""
    return PageTable(np.append(classes(), np.full(added, ADDED)), name="classes")


# ---- composed form (NFC) ----

# What a code point is: a mark of one of the classes 1, 2, ..., in canonical order, or
STAYS = 0  # a character that begins anew and stays as it is, unless what follows composes with it
FOLLOWER = -1  # the same, but it may compose with the one before it: vowels of Hangul or Tamil
APART = 256  # and above: a character that is taken apart first

take_apart = normalizers.NFD().normalize_str
compose = normalizers.NFC().normalize_str


class Composition(tf.Module):
    """Texts in any spelling to composed form.

    As Unicode defines it: characters are taken apart, the marks behind each are put in canonical
    order, then what composes is composed from left to right. Each step is made in all texts at
    once.
    """

    def __init__(self, added: int) -> None:
        """``added``: how many numbers from CODE_POINTS on stand for added tokens, which stay."""
        super().__init__(name="composition")
        kinds, parts = kinds_and_parts()
        self.kinds = PageTable(np.append(kinds, np.full(added, STAYS)))
        self.parts = tf.constant(parts, tf.int32)
        pairs = compositions()
        self.pairs = _key(*tf.unstack(tf.constant([*pairs], tf.int64), axis=1))  # rising
        self.composites = tf.constant([*pairs.values()], tf.int32)

    def __call__(self, points: tf.Tensor, of: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Code points (S) and their texts (S) -> the same in composed form."""
        kinds = self.kinds(points)
        return tf.cond(
            tf.reduce_any(kinds != STAYS),
            lambda: self._normalize(points, of, kinds),
            lambda: (points, of),
        )

    def _normalize(
        self, points: tf.Tensor, of: tf.Tensor, kinds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        points, of = self._take_apart(points, of, kinds)
        points, kinds = order_marks(points, of, self.kinds(points))
        # A composite has at most as many parts as there are columns: one round less composes all.
        points, of, _, _ = tf.while_loop(
            lambda points, of, kinds, again: again,
            lambda points, of, kinds, again: self._compose(points, of, kinds),
            (points, of, kinds, tf.constant(True)),
            shape_invariants=(*[tf.TensorShape([None])] * 3, tf.TensorShape([])),
            maximum_iterations=self.parts.shape[1] - 1,
        )
        return points, of

    def _take_apart(
        self, points: tf.Tensor, of: tf.Tensor, kinds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def parts() -> tuple[tf.Tensor, tf.Tensor]:
            row = tf.maximum(kinds - APART + 1, 0)  # (S) 0 for what stays as it is
            # Row 0 is 0 and nothing more.
            stays = tf.where(row > 0, 0, points)
            first = [1] + [0] * (self.parts.shape[1] - 1)
            return flatten(tf.gather(self.parts, row) + stays[:, None] * first, of)

        return tf.cond(tf.reduce_any(kinds >= APART), parts, lambda: (points, of))

    def _compose(self, points: tf.Tensor, of: tf.Tensor, kinds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Each starter composes with the first mark that it can: the new row, whether any did."""
        begins_text = begins(of)
        anew = begins_text | (kinds <= STAYS)
        run = tf.cumsum(tf.cast(anew, tf.int64)) - 1
        beginner = tf.gather(true_places(anew), run)  # (S) of each one's run
        # A mark reaches the beginner of its run unless a mark of its class is between; a follower
        # reaches only the character next to it.
        mark = ~anew & (kinds != shifted_right(kinds, 0))
        follower = (kinds == FOLLOWER) & ~begins_text & shifted_right(anew, False)
        place = true_places(mark | follower)
        target = tf.gather(beginner, place - 1)
        composite = self._composite(tf.gather(points, target), tf.gather(points, place))
        place, target, composite = keep(composite >= 0, place, target, composite)
        place, target, composite = keep(begins(target), place, target, composite)
        # Of three in a row that compose by pairs, the left pair does.
        taken = tf.gather(_marked(place, points), target)
        place, target, composite = keep(~taken, place, target, composite)
        points = tf.tensor_scatter_nd_update(points, target[:, None], composite)
        points, of, kinds = keep(~_marked(place, points), points, of, kinds)
        return points, of, kinds, tf.size(place) > 0

    def _composite(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """What each pair becomes, -1 where it does not compose: (P) <- (P), (P)."""
        pair = _key(tf.cast(first, tf.int64), tf.cast(second, tf.int64))
        # Without the last, so that there always is an entry.
        entry = first_at_least(self.pairs[:-1], pair)
        return tf.where(tf.gather(self.pairs, entry) == pair, tf.gather(self.composites, entry), -1)


def _key(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return first * (1 << 32) + second


def _marked(places: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """True at the places (P), False elsewhere: as long as the row (S)."""
    return tf.tensor_scatter_nd_update(
        tf.zeros_like(row, tf.bool), places[:, None], tf.ones_like(places, tf.bool)
    )


def order_marks(points: tf.Tensor, of: tf.Tensor, kinds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Points and kinds (S), the marks of each run sorted by class; those of one class stay put."""
    anew = begins(of) | (kinds <= STAYS)
    wrong = ~anew & (kinds < shifted_right(kinds, 0))

    def sort() -> tuple[tf.Tensor, ...]:
        run = tf.cumsum(tf.cast(anew, tf.int64))  # (S) a beginner and its marks have one number
        ordered = tf.math.unsorted_segment_min(tf.cast(~wrong, tf.int32), run, tf.size(run) + 1)
        places = tf.where(tf.gather(ordered, run) == 0)
        runs, classes = tf.gather_nd(run, places), tf.cast(tf.gather_nd(kinds, places), tf.int64)
        source = tf.gather(places, tf.argsort(runs * APART + tf.maximum(classes, 0), stable=True))
        return tuple(
            tf.tensor_scatter_nd_update(row, places, tf.gather_nd(row, source))
            for row in (points, kinds)
        )

    return tf.cond(tf.reduce_any(wrong), sort, lambda: (points, kinds))


@cache
def kinds_and_parts() -> tuple[np.ndarray, np.ndarray]:
    """The kind of every code point, and the parts of those that are taken apart.

    Returns:
        int32 (CODE_POINTS), and int32 (R, 4), filled with -1. Row 0 stands for a character that
        is not taken apart. One that is made of no marks (Hangul) is left whole: nothing that
        follows can come between its parts.
    """
    classes, rows = mark_classes(), ["\0"]
    kinds = np.full(CODE_POINTS, STAYS, np.int32)
    kinds[[second for _, second in compositions()]] = FOLLOWER
    kinds[[ord(mark) for mark in classes]] = [*classes.values()]
    for character, parts in parts_of().items():
        if compose(character) != character or not classes.keys().isdisjoint(parts):
            kinds[ord(character)] = APART + len(rows) - 1
            rows.append(parts)
    table = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for row, parts in zip(table, rows, strict=True):
        row[: len(parts)] = [ord(part) for part in parts]
    return kinds, table


@cache
def parts_of() -> dict[str, str]:
    """Every character that is taken apart, and its parts in canonical order."""
    return changed_by(take_apart)


@cache
def mark_classes() -> dict[str, int]:
    """Every mark that is not taken apart, and its class: 1, 2, ..., in canonical order."""
    # Put between one of the highest class and one of the lowest, a mark moves; nothing else does.
    marks = sorted(changed_by(take_apart, "\u0345", "\u0334").keys() - parts_of().keys())
    number, classes = 1, {}
    ordered = sorted(marks, key=cmp_to_key(_compare))
    for before, mark in zip([ordered[0], *ordered], ordered, strict=False):
        number += _compare(before, mark) < 0
        classes[mark] = number
    return classes


def _compare(mark: str, other: str) -> int:
    """-1, 0 or 1 where the class of ``mark`` is below, the same as or above that of ``other``."""
    return (take_apart(mark + other) != mark + other) - (take_apart(other + mark) != other + mark)


@cache
def compositions() -> dict[tuple[int, int], int]:
    """What every pair that composes becomes, by code points, pairs rising."""
    several = {character: parts for character, parts in parts_of().items() if len(parts) > 1}
    composed = compose("\0".join(several.values())).split("\0")
    firsts = compose("\0".join(parts[:-1] for parts in several.values())).split("\0")
    rows = zip(several.items(), composed, firsts, strict=True)
    return dict(
        sorted(
            ((ord(first), ord(parts[-1])), ord(character))
            for (character, parts), again, first in rows
            if again == character
        )
    )
