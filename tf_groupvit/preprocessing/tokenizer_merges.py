"""Byte-pair encoding of a batch of words in a TensorFlow graph: words to symbols, then merges."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.tokenizer_files import END_OF_WORD
from tf_groupvit.preprocessing.tokenizer_unicode import (
    begins,
    decode,
    encode,
    ends,
    flatten,
    keep,
    shifted_left,
    shifted_right,
)

if TYPE_CHECKING:
    from tf_groupvit.preprocessing.tokenizer import Tokenizer

NO_MERGE = tf.int64.max
LETTERS = 512  # no byte's letter is beyond


def byte_letters() -> list[str]:
    """The printable character that stands for each of the 256 bytes in the vocabulary.

    It is GPT-2's byte-level alphabet.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, LETTERS))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def spell(points: tf.Tensor, of: tf.Tensor, N: tf.Tensor) -> tf.Tensor:
    """Strings (N) of the letters of the UTF-8 bytes of code points (S), given their strings (S).

    Written out, since ``tf.strings.unicode_encode`` of TensorFlow 2.19 replaces the 66
    noncharacters.
    """
    size = tf.reduce_sum(tf.cast(points[:, None] >= [0x80, 0x800, 0x10000], tf.int32), 1)
    parts = points[:, None] // [2**18, 2**12, 2**6, 1] % tf.gather(_PART_OF, size)
    octets, of = flatten(parts + tf.gather(_MARKS, size), of)
    return encode(tf.gather([ord(letter) for letter in byte_letters()], octets), of, N)


# The bytes of a character of 1 to 4: how many numbers of its bits each tells apart, and what is
# added to that, which is below any byte where there is none.
_PART_OF = [[64, 64, 64, 128], *[[64] * 4] * 3]
_MARKS = [
    [-256, -256, -256, 0],
    [-256, -256, 0xC0, 0x80],
    [-256, 0xE0, 0x80, 0x80],
    [0xF0, 0x80, 0x80, 0x80],
]


def read_table(
    file: Path, rows: Iterable[str], key_dtype: tf.DType, default: int
) -> tf.lookup.StaticHashTable:
    """A table from tab-separated rows (key, int64 value).

    It is read from a file that is written for it, which a SavedModel keeps as its asset.
    """
    file.write_bytes("".join(rows).encode())
    source = tf.lookup.TextFileInitializer(str(file), key_dtype, 0, tf.int64, 1, delimiter="\t")
    return tf.lookup.StaticHashTable(source, default, name=file.stem)


class Words(tf.Module):
    """Words in byte letters to the symbols that are merged.

    A word that is a token is one symbol; any other has one for each byte.
    """

    def __init__(self, tokenizer: "Tokenizer", added: dict[str, int], folder: Path) -> None:
        """``added``: names of added tokens and their ids; a file is written to ``folder``."""
        super().__init__(name="words")
        rows = [f"{word}\t{number}\n" for word, number in (whole_words(tokenizer) | added).items()]
        self.table = read_table(folder / "vocabulary.tsv", rows, tf.string, default=-1)
        ids = tokenizer.files.vocabulary
        unknown = ids.get(tokenizer.files.special["unk_token"], -1)
        letters = [chr(i) for i in range(LETTERS)]
        self.inner, self.last = (
            tf.constant([ids.get(letter + end, unknown) for letter in letters], tf.int64)
            for end in ("", END_OF_WORD)
        )
        ends = {letter + END_OF_WORD for letter in byte_letters()}
        if unknown < 0 and not ids.keys() >= ends | set(byte_letters()):
            raise InputError(
                "A graph needs a token for every byte or an unk_token in the vocabulary, and has"
                " neither."
            )

    def __call__(self, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Symbols (S) of words (U), and the word that each is of (S), both int64."""
        known = self.table.lookup(words)  # (U)
        letter, word = decode(tf.where(known < 0, words, "?"))  # (S) one for a known word
        symbols = tf.where(ends(word), tf.gather(self.last, letter), tf.gather(self.inner, letter))
        whole = tf.gather(known, word)
        return tf.where(whole < 0, symbols, whole), word


def whole_words(tokenizer: "Tokenizer") -> dict[str, int]:
    """Words that the merges make one token of, in byte letters, each with its id."""
    alphabet = set(byte_letters())
    found: dict[str, int] = {}
    for token in tokenizer.files.vocabulary:
        word = token.removesuffix(END_OF_WORD)
        if word != token and word and alphabet >= set(word):
            made = tokenizer.backend.model.tokenize(word)
            if len(made) == 1:
                found[word] = made[0].id
    return found


def merge_ranks(tokenizer: "Tokenizer") -> dict[tuple[int, int], tuple[int, int]]:
    """(left id, right id) -> (rank, merged id).

    Of a pair that is listed twice, the later rank counts, as in the tokenizers library.
    """
    ids = tokenizer.files.vocabulary
    return {
        (ids[left], ids[right]): (rank, ids[left + right])
        for rank, (left, right) in enumerate(tokenizer.files.merges)
    }


class Merges(tf.Module):
    """Byte-pair merges of all words of a batch at once.

    The result is that of merging each word's lowest-ranked pair first. In the usual vocabulary a
    merge's result only takes part in later merges. Then a pair may be merged as soon as no pair
    near it ranks lower: a neighbor could only take one of its halves away after growing, growth
    starts with a pair of lower rank inside the grown token, and no token is longer than the longest
    of the vocabulary. So every block of twice that length merges its best pair, wherever the two
    blocks next to it have no better one, and the rounds do not grow with the length of a word. In
    any other vocabulary each round merges one pair per word.
    """

    def __init__(
        self, ranks: dict[tuple[int, int], tuple[int, int]], longest: int, folder: Path
    ) -> None:
        """``ranks``: as ``merge_ranks`` gives them; ``longest``: bytes of the longest token.

        The table's file is written to ``folder`` and becomes an asset of a SavedModel.
        """
        super().__init__(name="merges")
        rows = [f"-1\t{NO_MERGE}\n"]  # no pair has this key, but a table's file must not be empty
        rows += [
            f"{left << 32 | right}\t{rank << 32 | new}\n"
            for (left, right), (rank, new) in ranks.items()
        ]
        self.table = read_table(folder / "merges.tsv", rows, tf.int64, default=NO_MERGE)
        self.block_length = 2 * longest
        self.ordered = merges_are_ordered(ranks)

    def __call__(self, symbols: tf.Tensor, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Merge ``symbols`` (S) int64, one per byte; ``words`` (S) int64 are their words, rising.

        Returns:
            Symbols and words after the merges, (S), shorter rows.
        """
        blocks, near = self._blocks(words)

        def merge(
            symbols: tf.Tensor, words: tf.Tensor, blocks: tf.Tensor, merges: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            taken = (
                best_of_blocks(merges, blocks, near)
                if self.ordered
                else first_of_words(merges, words)
            )
            merged = tf.where(taken, merges & 0xFFFFFFFF, symbols)
            goes = shifted_right(taken, False)  # a right half
            symbols, words, blocks = keep(~goes, merged, words, blocks)
            return symbols, words, blocks, self._look_up(symbols, words)

        symbols, words, _, _ = tf.while_loop(
            lambda symbols, words, blocks, merges: tf.reduce_any(merges != NO_MERGE),
            merge,
            (symbols, words, blocks, self._look_up(symbols, words)),
            shape_invariants=(tf.TensorShape([None]),) * 4,
        )
        return symbols, words

    def _look_up(self, symbols: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
        """Merge of each symbol with its right neighbor, rank << 32 | result, or NO_MERGE: (S)."""
        keys = symbols * 2**32 + shifted_left(symbols, 0)
        return tf.where(ends(words), NO_MERGE, self.table.lookup(keys))

    def _blocks(self, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Block of each symbol (S); whether each block's right neighbor is of its word (blocks)."""
        position = tf.range(tf.size(words, tf.int64))
        starts = tf.math.segment_min(position, words)
        starting = (position - tf.gather(starts, words)) % self.block_length == 0
        (word_of_block,) = keep(starting, words)
        return tf.cumsum(tf.cast(starting, tf.int64)) - 1, ~ends(word_of_block)


def best_of_blocks(merges: tf.Tensor, blocks: tf.Tensor, near: tf.Tensor) -> tf.Tensor:
    """Which merges (S) to make now: the lowest of each block and of the two next to it.

    Args:
        blocks: (S) of each symbol; ``near`` (blocks) as ``Merges`` finds them.

    Returns:
        bool (S), leftmost first where merges overlap.
    """
    best = tf.math.unsorted_segment_min(merges, blocks, tf.size(near, tf.int64))  # (blocks)
    from_right = tf.where(near, shifted_left(best, NO_MERGE), NO_MERGE)
    from_left = shifted_right(tf.where(near, best, NO_MERGE), NO_MERGE)
    lowest = tf.gather(tf.minimum(best, tf.minimum(from_left, from_right)), blocks)
    ready = (merges == lowest) & (merges != NO_MERGE)  # (S)

    # In a run such as a-a-a-a the same merge overlaps itself: from the run's start, every other one
    # is made.
    position = tf.range(tf.size(merges, tf.int64))
    run = tf.cumsum(tf.cast(begins(merges) | (merges == NO_MERGE), tf.int64)) - 1
    waiting = tf.where(ready, tf.int64.max, position)
    firsts = tf.math.segment_min(tf.stack([position, waiting], 1), run)
    start, first_waiting = tf.unstack(tf.gather(firsts, run), axis=1)
    return ready & ((position - start) % 2 == 0) & (position < first_waiting)


def first_of_words(merges: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """Which merges (S) to make now: in each of the words (S) the leftmost of the lowest rank."""
    best = tf.gather(tf.math.segment_min(merges, words), words)
    lowest = (merges == best) & (merges != NO_MERGE)
    position = tf.range(tf.size(merges, tf.int64))
    leftmost = tf.math.segment_min(tf.where(lowest, position, tf.int64.max), words)
    return lowest & (position == tf.gather(leftmost, words))


def merges_are_ordered(ranks: dict[tuple[int, int], tuple[int, int]]) -> bool:
    """Whether each merge ranks after all merges that make one of its halves."""
    made: dict[int, int] = {}
    for rank, new in ranks.values():
        made[new] = max(rank, made.get(new, -1))
    return all(rank > max(made.get(half, -1) for half in pair) for pair, (rank, _) in ranks.items())
