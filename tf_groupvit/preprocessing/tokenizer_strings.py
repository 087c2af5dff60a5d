"""Strings (N) <-> the code points of all of them in one row (S), each with the number of its string
(S).

Flat rows in place of ragged tensors: ``RaggedTensor.value_rowids`` makes a mask of N times the
longest string, so that one long text in a batch would cost the memory of many.
"""

import numpy as np
import tensorflow as tf

from tf_groupvit.preprocessing.tokenizer_unicode import PageTable

LETTERS = 512  # no byte's letter is beyond


def decode(strings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Code points (S) int32 and the string that each is of (S) int64; bytes that are no UTF-8
    become U+FFFD.
    """
    found = tf.raw_ops.UnicodeDecode(
        input=strings,
        input_encoding="UTF-8",
        errors="replace",
        replacement_char=0xFFFD,
        Tsplits=tf.int64,
    )
    points, ends = found.char_values, found.row_splits[1:-1]
    size = tf.size(points, tf.int64)
    begins = tf.math.unsorted_segment_sum(
        tf.ones_like(ends), ends, size + 1
    )  # strings that begin at each point
    return points, tf.cumsum(begins)[:size]


def encode(points: tf.Tensor, of: tf.Tensor, N: tf.Tensor) -> tf.Tensor:
    """Strings (N) of code points (S), given the never falling number of each point's string (S)."""
    return tf.raw_ops.UnicodeEncode(
        input_values=points, input_splits=splits(of, N), output_encoding="UTF-8", errors="replace"
    )


def splits(of: tf.Tensor, N: tf.Tensor) -> tf.Tensor:
    """Where each of N groups begins, and the end: (N + 1), given the never falling group of each
    value.
    """
    return tf.searchsorted(of, tf.range(N + 1))


def keep(mask: tf.Tensor, *rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The values of each row at the places where the mask is true."""
    places = tf.where(mask)[:, 0]
    return tuple(tf.gather(row, places) for row in rows)


def flatten(columns: list[tf.Tensor], of: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Values of each place, as columns (S) with -1 for none -> all values in order, and their
    groups.
    """
    values = tf.reshape(tf.stack(columns, 1), [-1])
    places = tf.where(values >= 0)[:, 0]
    return tf.gather(values, places), tf.gather(of, places // len(columns))


def begins(groups: tf.Tensor) -> tf.Tensor:
    """Where a group differs from the one before, and the first place: (S) bool."""
    return tf.concat([tf.ones_like(groups[:1], tf.bool), groups[1:] != groups[:-1]], 0)


# ---- bytes as the vocabulary writes them ----


def byte_letters() -> list[str]:
    """The printable character that stands for each of the 256 bytes in the vocabulary (GPT-2's
    byte-level alphabet).
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, LETTERS))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def spell(points: tf.Tensor, of: tf.Tensor, N: tf.Tensor) -> tf.Tensor:
    """Strings (N) of the letters of the UTF-8 bytes of code points (S).

    Written out, since ``tf.strings.unicode_encode`` of TensorFlow 2.19 replaces the 66
    noncharacters.
    """
    lead = tf.where(points < 0x10000, 0xE0 | points // 4096, 0xF0 | points // 262144)
    lead = tf.where(points < 0x80, points, tf.where(points < 0x800, 0xC0 | points // 64, lead))
    columns = [
        lead % 256
    ]  # an added token, which is above all code points, has another name in the end
    for least, shift in ((0x10000, 4096), (0x800, 64), (0x80, 1)):
        columns.append(tf.where(points < least, -1, 0x80 | points // shift % 64))
    octets, of = flatten(columns, of)
    return encode(tf.gather([ord(letter) for letter in byte_letters()], octets), of, N)


# ---- fixed strings within others ----


class Literals(tf.Module):
    """Finds fixed strings among code points, the longest of those that begin leftmost, and puts one
    number for each.
    """

    def __init__(self, numbers: dict[str, int], highest: int) -> None:
        """``numbers``: literal -> its number; no code point is above ``highest``."""
        super().__init__(name="literals")
        longest_first = sorted(numbers, key=len, reverse=True)
        self.numbers = tf.constant([numbers[literal] for literal in longest_first], tf.int32)
        # Every letter of the literals has a code of its own, first letters first; all others share
        # the blank.
        letters = dict.fromkeys(
            [literal[0] for literal in numbers]
            + [letter for literal in numbers for letter in literal]
        )
        code_of = {letter: chr(0x100 + i) for i, letter in enumerate(letters)}
        self.after_first = 0x100 + len({literal[0] for literal in numbers})
        coded = ["".join(code_of[letter] for letter in literal) for literal in longest_first]
        self.pattern, self.coded = "|".join(coded), tf.constant(coded, tf.string)
        table = np.full(highest + 1, ord(" "), np.int32)
        table[[ord(letter) for letter in letters]] = [ord(code) for code in code_of.values()]
        self.codes = PageTable(table)

    def __call__(
        self, points: tf.Tensor, of: tf.Tensor, N: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not self.pattern:
            return points, of
        codes = self.codes(points)
        present = tf.reduce_any((codes >= 0x100) & (codes < self.after_first))
        return tf.cond(present, lambda: self._replace(points, of, codes, N), lambda: (points, of))

    def _replace(
        self, points: tf.Tensor, of: tf.Tensor, codes: tf.Tensor, N: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        marked, _ = decode(tf.strings.regex_replace(encode(codes, of, N), self.pattern, r"(\0)"))
        opens, closes = marked == ord("("), marked == ord(")")
        depth = tf.cumsum(tf.cast(opens, tf.int32)) - tf.cumsum(tf.cast(closes, tf.int32))
        after_open = tf.concat([tf.zeros_like(opens[:1]), opens[:-1]], 0)
        inside, first = keep(~(opens | closes), depth > 0, after_open)  # (S)
        letters, literal = keep(inside, codes, tf.cumsum(tf.cast(first, tf.int64)) - 1)
        places = tf.where(first)
        found = encode(letters, literal, tf.size(places, tf.int64))  # (literals found)
        number = tf.gather(self.numbers, tf.argmax(found[:, None] == self.coded, 1))
        return keep(first | ~inside, tf.tensor_scatter_nd_update(points, places, number), of)
