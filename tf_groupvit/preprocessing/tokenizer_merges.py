"""Symbols of words, (S) ids each with the number of its word -> the same after every byte-pair
merge that applies.
"""

from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

NO_MERGE = tf.int64.max


class Merges(tf.Module):
    """Byte-pair merges of all words of a batch at once, equal to merging each word's lowest-ranked
    pair first.

    In the usual vocabulary a merge's result only takes part in later merges. Then a pair may be
    merged as soon as no pair near it ranks lower: a neighbour could only take one of its halves
    away after growing, growth starts with a pair of lower rank inside the grown token, and no token
    is longer than the longest of the vocabulary. So every block of twice that length merges its
    best pair, wherever the two blocks beside it have no better one, and the rounds do not grow with
    the length of a word. In any other vocabulary each round merges one pair per word.
    """

    def __init__(
        self, ranks: dict[tuple[int, int], tuple[int, int]], longest: int, folder: Path
    ) -> None:
        """``ranks``: (left id, right id) -> (rank, merged id); ``longest``: bytes of the longest
        token; the table's file is written to ``folder`` and becomes an asset of a SavedModel.
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
        """``symbols`` (S) int64, one per byte; ``words`` (S) int64, the number of its word, never
        falling.
        """
        blocks, near = self._blocks(words)
        state = (symbols, words, blocks, self._look_up(symbols, words))

        def unfinished(
            symbols: tf.Tensor, words: tf.Tensor, blocks: tf.Tensor, merges: tf.Tensor
        ) -> tf.Tensor:
            return tf.reduce_any(merges != NO_MERGE)

        def merge(
            symbols: tf.Tensor, words: tf.Tensor, blocks: tf.Tensor, merges: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            taken = (
                best_of_blocks(merges, blocks, near)
                if self.ordered
                else first_of_words(merges, words)
            )
            merged = tf.where(taken, merges & 0xFFFFFFFF, symbols)
            stays = tf.where(~tf.concat([[False], taken[:-1]], 0))[:, 0]  # its right half goes
            symbols, words, blocks = (
                tf.gather(values, stays) for values in (merged, words, blocks)
            )
            return symbols, words, blocks, self._look_up(symbols, words)

        shapes = (tf.TensorShape([None]),) * 4
        symbols, words, _, _ = tf.while_loop(unfinished, merge, state, shape_invariants=shapes)
        return symbols, words

    def _look_up(self, symbols: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
        """Merge of each symbol with its right neighbour, rank << 32 | result, or NO_MERGE: (S)
        int64.
        """
        found = self.table.lookup(
            tf.bitwise.left_shift(symbols[:-1], tf.constant(32, tf.int64)) | symbols[1:]
        )
        within = tf.where(words[:-1] == words[1:], found, NO_MERGE)
        return tf.concat(
            [within, tf.fill(tf.shape(symbols[:1]), tf.constant(NO_MERGE, tf.int64))], 0
        )

    def _blocks(self, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Block of each symbol (S), and whether each block's right neighbour is of the same word
        (blocks).
        """
        position = tf.range(tf.size(words, tf.int64))
        first = tf.gather(
            tf.math.unsorted_segment_min(position, words, _count(words)), words
        )  # (S) its word's start
        begins = (position - first) % self.block_length == 0
        blocks = tf.cumsum(tf.cast(begins, tf.int64)) - 1
        word_of_block = tf.boolean_mask(words, begins)
        return blocks, tf.concat([word_of_block[:-1] == word_of_block[1:], [False]], 0)[
            : tf.size(word_of_block)
        ]


def best_of_blocks(merges: tf.Tensor, blocks: tf.Tensor, near: tf.Tensor) -> tf.Tensor:
    """Which merges to make now, (S): the lowest of their block and of the two blocks beside it,
    leftmost first.
    """
    best = tf.math.unsorted_segment_min(merges, blocks, tf.size(near, tf.int64))  # (blocks)
    from_right = tf.where(near, tf.roll(best, -1, 0), NO_MERGE)
    from_left = tf.where(
        tf.roll(near, 1, 0), tf.roll(best, 1, 0), NO_MERGE
    )  # the last block is near to none
    lowest = tf.gather(tf.minimum(best, tf.minimum(from_left, from_right)), blocks)
    ready = (merges == lowest) & (merges != NO_MERGE)  # (S)

    # In a run such as a-a-a-a the same merge overlaps itself: from the run's start, every other one
    # is made.
    position = tf.range(tf.size(merges, tf.int64))
    repeats = tf.concat([[False], (merges[1:] == merges[:-1]) & (merges[1:] != NO_MERGE)], 0)
    run = tf.cumsum(tf.cast(~repeats, tf.int64)) - 1
    start = tf.gather(tf.math.unsorted_segment_min(position, run, _count(run)), run)
    waiting = tf.where(ready, tf.int64.max, position)
    first_waiting = tf.gather(tf.math.unsorted_segment_min(waiting, run, _count(run)), run)
    return ready & ((position - start) % 2 == 0) & (position < first_waiting)


def first_of_words(merges: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """Which merges to make now, (S): in each word the leftmost of the lowest rank."""
    best = tf.gather(tf.math.unsorted_segment_min(merges, words, _count(words)), words)
    lowest = (merges == best) & (merges != NO_MERGE)
    position = tf.range(tf.size(merges, tf.int64))
    candidate = tf.where(lowest, position, tf.int64.max)
    return lowest & (
        position == tf.gather(tf.math.unsorted_segment_min(candidate, words, _count(words)), words)
    )


def _count(segments: tf.Tensor) -> tf.Tensor:
    """Number of segments, given the never falling number of each element's segment."""
    return tf.reduce_max(tf.concat([segments, [-1]], 0)) + 1


def merges_are_ordered(ranks: dict[tuple[int, int], tuple[int, int]]) -> bool:
    """Whether each merge ranks after all merges that make one of its halves."""
    made: dict[int, int] = {}
    for rank, new in ranks.values():
        made[new] = max(rank, made.get(new, -1))
    return all(rank > max(made.get(half, -1) for half in pair) for pair, (rank, _) in ranks.items())


def read_table(
    file: Path, rows: Iterable[str], key_dtype: tf.DType, default: int
) -> tf.lookup.StaticHashTable:
    """A table from tab-separated rows (key, int64 value), by way of a file that a SavedModel keeps
    as its asset.
    """
    file.write_bytes("".join(rows).encode())
    source = tf.lookup.TextFileInitializer(str(file), key_dtype, 0, tf.int64, 1, delimiter="\t")
    return tf.lookup.StaticHashTable(source, default, name=file.stem)
