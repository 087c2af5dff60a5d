"""Code points of texts in any spelling -> in composed form (NFC), as the Python tokenizer's.

Everything is read off the tokenizers library: what it takes apart, how it orders marks, what it
composes. Its version of Unicode is not that of Python's ``unicodedata`` (today it is older), and
the ids of a model are those of the library.
"""

from functools import cache, cmp_to_key

import numpy as np
import tensorflow as tf
from tokenizers import normalizers

from tf_groupvit.preprocessing.tokenizer_strings import begins, flatten, keep
from tf_groupvit.preprocessing.tokenizer_unicode import CODE_POINTS, PageTable, changed_by

# What a code point is: a mark of one of the classes 1, 2, ..., in canonical order, or
STAYS = 0  # a character that begins anew and stays as it is, unless what follows composes with it
FOLLOWER = (
    -1
)  # the same, but it may compose with the character before it: vowels of Hangul or Tamil
APART = 256  # and above: a character that is taken apart first

take_apart = normalizers.NFD().normalize_str
compose = normalizers.NFC().normalize_str


class Composition(tf.Module):
    """Code points (S) and their texts (S) -> the same in composed form.

    As Unicode defines it: characters are taken apart, the marks behind each are put in canonical
    order, then what composes is composed from left to right. Each step is made in all texts at
    once.
    """

    def __init__(self, added: int) -> None:
        """``added``: how many numbers from CODE_POINTS on stand for added tokens, which stay."""
        super().__init__(name="composition")
        kinds, parts = kinds_and_parts()
        self.kinds = PageTable(np.append(kinds, np.full(added, STAYS)))
        self.parts = [tf.constant(column, tf.int32) for column in parts.T]
        pairs = compositions()
        self.pairs = _key(*tf.unstack(tf.constant([*pairs], tf.int64), axis=1))  # rising
        self.composites = tf.constant([*pairs.values()], tf.int32)

    def __call__(self, points: tf.Tensor, of: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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
        # A composite has as many parts as there are columns at most: a round less composes them
        # all.
        points, of, _, _ = tf.while_loop(
            lambda points, of, kinds, again: again,
            lambda points, of, kinds, again: self._compose(points, of, kinds),
            (points, of, kinds, tf.constant(True)),
            shape_invariants=(*[tf.TensorShape([None])] * 3, tf.TensorShape([])),
            maximum_iterations=len(self.parts) - 1,
        )
        return points, of

    def _take_apart(
        self, points: tf.Tensor, of: tf.Tensor, kinds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def parts() -> tuple[tf.Tensor, tf.Tensor]:
            row = tf.maximum(kinds - APART + 1, 0)  # (S) 0 for what stays as it is
            first, *others = (tf.gather(column, row) for column in self.parts)
            return flatten([tf.where(row > 0, first, points), *others], of)

        return tf.cond(tf.reduce_any(kinds >= APART), parts, lambda: (points, of))

    def _compose(self, points: tf.Tensor, of: tf.Tensor, kinds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Each beginner takes the first of what composes with it: the new row, and whether any did."""
        begins_text = begins(of)
        anew = begins_text | (kinds <= STAYS)
        beginner = tf.gather(
            tf.where(anew)[:, 0], tf.cumsum(tf.cast(anew, tf.int64)) - 1
        )  # (S) of each one's run
        # A mark reaches the beginner of its run unless a mark of its class is between, a follower
        # only the character beside it.
        mark = ~anew & (kinds != tf.roll(kinds, 1, 0))
        follower = (kinds == FOLLOWER) & ~begins_text & tf.roll(anew, 1, 0)
        place = tf.where(mark | follower)[:, 0]
        target = tf.gather(beginner, place - 1)
        composite = self._composite(tf.gather(points, target), tf.gather(points, place))
        place, target, composite = keep(composite >= 0, place, target, composite)
        place, target, composite = keep(begins(target), place, target, composite)
        # Of three in a row that compose by pairs, the left pair does.
        place, target, composite = keep(
            ~tf.gather(_marked(place, points), target), place, target, composite
        )
        points = tf.tensor_scatter_nd_update(points, target[:, None], composite)
        points, of, kinds = keep(~_marked(place, points), points, of, kinds)
        return points, of, kinds, tf.size(place) > 0

    def _composite(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """What each pair becomes, -1 where it does not compose: (P) <- (P), (P)."""
        pair = _key(tf.cast(first, tf.int64), tf.cast(second, tf.int64))
        entry = tf.searchsorted(
            self.pairs[:-1], pair
        )  # without the last, so that there always is an entry
        return tf.where(tf.gather(self.pairs, entry) == pair, tf.gather(self.composites, entry), -1)


def _key(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return first * (1 << 32) + second


def order_marks(points: tf.Tensor, of: tf.Tensor, kinds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Points and kinds (S), the marks of each run sorted by class; those of one class keep their
    order.
    """
    anew = begins(of) | (kinds <= STAYS)
    wrong = ~anew & (kinds < tf.roll(kinds, 1, 0))

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


def _marked(places: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """True at the places (P), False elsewhere: as long as the row (S)."""
    return tf.tensor_scatter_nd_update(
        tf.zeros_like(row, tf.bool), places[:, None], tf.ones_like(places, tf.bool)
    )


# ---- what the library knows ----


@cache
def kinds_and_parts() -> tuple[np.ndarray, np.ndarray]:
    """The kind of every code point, and the parts of those that are taken apart: (rows, 4), filled
    with -1.

    Row 0 stands for a character that is not taken apart. One that is made of no marks (Hangul) is
    left
    whole: nothing that follows can come between its parts.
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
    return dict(
        sorted(
            ((ord(first), ord(parts[-1])), ord(character))
            for (character, parts), again, first in zip(
                several.items(), composed, firsts, strict=True
            )
            if again == character
        )
    )
