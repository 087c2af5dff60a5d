"""Batches of training pairs as a ``tf.data.Dataset`` that resumes exactly where it stopped.

Python reads records and draws words; images are decoded and augmented in graph ops, on all cores.
Each batch is a dict: ``pixel_values`` float32 (B, 3, S, S), normalized, and the arrays that
``texts.Texts`` makes of the captions.
"""

import os
import random
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import NoReturn

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import DatasetError, GroupViTError, InputError, asserted, one_line
from tf_groupvit.preprocessing.image_arrays import statistics
from tf_groupvit.preprocessing.image_graph import decode, to_pixel_values
from tf_groupvit.preprocessing.image_graph_bytes import assert_with_message
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training.augment import PUBLISHED, Augmentation, augmenter, erase
from tf_groupvit.training.caption_loading import (
    IN_A_ROW,
    LONGEST,
    MIN_SIDE,
    UNDECODED,
    decode_error,
    load_pair,
    load_pairs,
    threads_for,
)
from tf_groupvit.training.caption_shards import Record
from tf_groupvit.training.caption_sources import Source, records_of
from tf_groupvit.training.texts import Prompts, Texts, Words

SHOWN = 10  # skipped records that a summary names
KEPT = 100_000  # of the last batches it is known where they ended
Place = tuple[int, int]  # round, and place in its order


@dataclass(frozen=True)
class Position:
    """Where training stands in its data, to be saved with a checkpoint.

    Attributes:
        batches: how many batches have been taken since the beginning.
        round: how often all data have been gone through.
        record: the next record in this round's order, broken ones counted.
    """

    batches: int = 0
    round: int = 0
    record: int = 0

    def to_dict(self) -> dict[str, int]:
        """The position as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, int]) -> "Position":
        """Read what ``to_dict`` gave. Raises InputError for anything else."""
        try:
            position = cls(**{name: int(value) for name, value in content.items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"Expected a position such as {cls().to_dict()}, got {str(content)[:80]}."
            ) from error
        if min(position.to_dict().values()) < 0:
            raise InputError(f"A position counts from 0, got {content}.")
        return position


@dataclass(frozen=True)
class Share:
    """Which records are this worker's: every ``workers``-th, beginning with number ``worker``."""

    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.worker < self.workers:
            raise InputError(
                f"There is no worker {self.worker} among {self.workers}: count from 0."
            )


WHOLE = Share()


def shuffled(records: Iterable[Record], buffer: int, rng: random.Random) -> Iterator[Record]:
    """Draw each record from the next ``buffer`` ones; with a buffer of 0 or 1 the order stays."""
    held: list[Record] = []
    for record in records:
        if len(held) < max(buffer, 1):
            held.append(record)
            continue
        place = rng.randrange(len(held))
        yield held[place]
        held[place] = record
    if buffer > 1:
        rng.shuffle(held)
    yield from held


def one_round(
    source: Source, number: int, seed: int, buffer: int, share: Share, before: int = 0
) -> Generator[tuple[int, Record], None, int]:
    """The share's records of a round, with their places in its order: by seed and number alone.

    Returns how many records the round has, those of all shares. ``before`` it came so many records
    of other rounds, which were shared in turn, too.

    Shards are in another order each round, unless the buffer says not to shuffle. The buffer holds
    names and places in files, not images: ten thousand take a few megabytes, and skipping to a
    place loads nothing.
    """
    rng = random.Random(f"{seed} {number}")
    shards = list(source.shards)
    if buffer > 1:
        rng.shuffle(shards)
    records = (record for shard in shards for record in source.read(shard))
    place = -1
    for place, record in enumerate(shuffled(records, buffer, rng)):
        if (before + place) % share.workers == share.worker:
            yield place, record
    return place + 1


class Skipped(dict[str, str]):
    """Name -> reason of every record that was left out, each once."""

    def add(self, name: str, reason: str) -> None:
        """Note a record, with the reason on one line."""
        self[name] = sys.intern(" ".join(reason.split()))  # of millions, most share a few

    def summary(self, shown: int = SHOWN) -> str:
        """How many there are, and the first ones by name, one a line."""
        if not self:
            return "no records were skipped"
        count = f"{len(self)} record{'s were' if len(self) > 1 else ' was'} skipped:"
        first = list(self.items())[:shown]
        lines = [f"  {one_line(name, LONGEST)}: {reason}" for name, reason in first]
        more = [f"  and {len(self) - shown} more"] if len(self) > shown else []
        return "\n".join([count, *lines, *more])

    def in_one_line(self) -> str:
        """How many there are, and the first one by name: for an error."""
        if not self:
            return "no records were skipped"
        name, reason = next(iter(self.items()))
        first = f"{one_line(name, LONGEST)}: {reason}"
        return f"{len(self)} records were skipped, the first of them {first}."


class TrainingData:
    """Pairs of a source in batches, endlessly: ``model.fit(data.batches(), steps_per_epoch=...)``.

    A record that is broken (cannot be read or decoded, no caption, one pixel) is left out and noted
    by name in ``skipped``. Captions are cleaned of HTML's entities. What is drawn for a record
    depends only on the seed and its place in the order: ``batches(data.position(n))`` resumes
    exactly after ``n`` batches.

    Args:
        source: see ``caption_sources.open_pairs``.
        tokenizer: its ``max_length`` is T; longer captions are cut, as published.
        size: S, the side of the images.
        batch_size: B, of this worker.
        prompts: draws the words of a caption for the multi-label loss; none unless given.
        words: the vocabulary of the losses that have one; none unless given.
        augmentation: the published one unless given; ``PLAIN`` for none.
        normalize: the mean and standard deviation of pixels, by name or as two triples.
        shuffle: size of the buffer from which records are drawn; 1 keeps the order.
        seed: of the order, the augmentation and the words.
        share: which records are this worker's, where there are several.

    Raises:
        InputError: a batch size or a size below 1.
        DatasetError: fewer records than one batch takes.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        size: int,
        batch_size: int,
        prompts: Prompts | None = None,
        words: Sequence[str] = (),
        augmentation: Augmentation = PUBLISHED,
        normalize: str | tuple[tuple[float, ...], tuple[float, ...]] = "imagenet",
        shuffle: int = 10_000,
        seed: int = 0,
        share: Share = WHOLE,
    ) -> None:
        if batch_size < 1 or size < 1:
            raise InputError(
                f"batch_size and size should be 1 or more, got {batch_size} and {size}."
            )
        self.source, self.tokenizer, self.augmentation = source, tokenizer, augmentation
        self.size, self.batch_size = size, batch_size
        self.shuffle, self.seed, self.share = shuffle, seed, share
        self.mean, self.std = statistics(normalize) if isinstance(normalize, str) else normalize
        vocabulary = Words(words, tokenizer, tokenizer.max_length, seed) if words else None
        self.texts = Texts(tokenizer, prompts, vocabulary, seed)
        self.skipped = Skipped()
        self.failure: Exception | None = None
        self._loaded: dict[Place, Record] = {}  # on their way through the graph
        self._ends: dict[int, Position] = {}  # where each batch ended, by how many had been taken
        self._last = 0  # of the batches that left the graph
        # More records than are ever on their way at once.
        self._in_graph = 4 * batch_size + 4 * (os.cpu_count() or 1) + 64
        found = sum(1 for _ in islice(self._round(0), batch_size))
        if found < batch_size:
            raise DatasetError(
                f"The data hold {found} records, fewer than a batch of {batch_size}: lower"
                " batch_size."
            )

    def batches(self, position: Position = Position()) -> tf.data.Dataset:
        """Batches from a position on, without an end; see the module for their arrays.

        Only the latest dataset's batches are known to ``position``.
        """
        self._ends[position.batches] = position
        spec = tf.TensorSpec([2], tf.int64), *[tf.TensorSpec([], tf.string)] * 2
        records = tf.data.Dataset.from_generator(
            lambda: self._load(position), output_signature=spec
        )
        images = records.map(
            self._image, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        ).ignore_errors()
        refusal = tf.data.Dataset.from_generator(self._refuse, output_signature=images.element_spec)
        batches = images.concatenate(refusal).batch(self.batch_size, drop_remainder=True)
        counted = batches.enumerate(position.batches + 1)
        return counted.map(self._batch, num_parallel_calls=1, deterministic=True).prefetch(2)

    def position(self, batches: int) -> Position:
        """Where the data stand when ``batches`` batches have been taken since the very beginning.

        Raises:
            InputError: batches that have not been made, or too long ago.
        """
        if batches not in self._ends:
            raise InputError(
                f"It is not known where batch {batches} ended: it has not been made, or long ago."
            )
        return self._ends[batches]

    def __len__(self) -> int:
        """How many records a round has, broken ones included; reads the headers of all shards."""
        return sum(1 for _ in self._round(0))

    def _round(self, number: int) -> Iterator[tuple[int, Record]]:
        before = 0
        if number and self.share.workers > 1:
            before = number * self._in_all
        self._in_all = yield from one_round(
            self.source, number, self.seed, self.shuffle, self.share, before
        )

    @cached_property
    def _in_all(self) -> int:
        """How many records a round has, those of all workers; reads the headers of all shards."""
        return sum(1 for _ in records_of(self.source))

    def _load(self, position: Position) -> Iterator[tuple[Place, bytes, bytes]]:
        """``records_from``, whose error is kept: it would be ignored with the errors of images."""
        try:
            yield from self.records_from(position)
        except Exception as error:
            self.failure = error

    def _refuse(self) -> NoReturn:
        """Called where endless data ended: raises the reason."""
        raise self.failure or DatasetError("The data ended, which they should not.")

    def records_from(self, position: Position) -> Iterator[tuple[Place, bytes, bytes]]:
        """Place, image and caption of every record from a position on, without an end.

        What cannot be loaded is noted in ``skipped``.

        Raises:
            DatasetError: two whole rounds gave no batch, or ``IN_A_ROW`` records more than can be
                on their way; or see ``load_pairs``.
        """
        self._loaded.clear()
        number, start, waiting, last = position.round, position.record, 0, self._last
        while True:
            before = waiting
            wanted = (
                (place, record)
                for place, record in self._round(number)
                if place >= start and record.name not in self.skipped
            )
            for place, record, pair in load_pairs(wanted, threads_for(self.source.shards)):
                if isinstance(pair, GroupViTError):
                    self.skipped.add(record.name, str(pair))
                    continue
                image, caption = pair
                self._loaded[number, place] = record
                if (many := len(self._loaded)) > self._in_graph + IN_A_ROW:
                    raise DatasetError(
                        f"{many:,} pairs in a row gave no batch of {self.batch_size}:"
                        f" {self._left_out()}"
                    )
                waiting += 1
                yield (number, place), image, caption.encode()
            if last != self._last:
                waiting, last = 0, self._last
            elif number > position.round + 1 and (waiting == before or waiting > self._in_graph):
                self._note_unreadable()
                why = self.skipped.in_one_line() if self.skipped else self._left_out()
                raise DatasetError(f"Two rounds gave no batch of {self.batch_size}: {why}")
            number, start = number + 1, 0

    def _image(
        self, place: tf.Tensor, contents: tf.Tensor, caption: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """An encoded image as normalized values (3, S, S); place and caption as they are.

        INVALID_ARGUMENT, which leaves the record out, if it cannot be decoded or has one pixel.
        """
        pixels = decode(contents)
        shortest = tf.reduce_min(tf.shape(pixels)[:2])
        pixels = assert_with_message(
            shortest >= MIN_SIDE, ["Expected more than one pixel."], pixels
        )
        number, record = tf.unstack(tf.cast(place, tf.int32))
        seed = tf.random.fold_in([self.seed % 2**31, number], record, alg="philox")
        of_pixels, of_values = tf.unstack(tf.random.split(seed, 2, alg="philox"))
        pixels = augmenter(self.size, self.augmentation)(pixels, of_pixels)
        values = to_pixel_values(pixels[None], self.mean, self.std)[0]
        if self.augmentation.erasing:
            values = tf.transpose(values, [1, 2, 0])
            values = erase(values, self.augmentation.erasing, of_values)
            values = tf.transpose(values, [2, 0, 1])
        return place, values, caption

    def _batch(self, number: tf.Tensor, rows: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Images (B, 3, S, S) with the arrays of their captions, which Python makes."""
        places, values, captions = rows
        specs = self.texts.signature(self.batch_size)
        arrays = tf.numpy_function(
            self._texts_of, [number, places, captions], [spec.dtype for spec in specs.values()]
        )
        batch = {"pixel_values": values}
        for (name, spec), array in zip(specs.items(), arrays, strict=True):
            batch[name] = tf.ensure_shape(array, spec.shape)
        return batch

    def _texts_of(
        self, number: np.int64, places: np.ndarray, captions: np.ndarray
    ) -> list[np.ndarray]:
        """The arrays of ``Texts`` of batch ``number``; called once a batch, in their order."""
        where = [(int(round_), int(place)) for round_, place in places]
        self._note_batch(int(number), where)
        texts = [caption.decode() for caption in captions]
        return list(self.texts(int(number), where, texts).values())

    def _note_batch(self, number: int, where: list[Place]) -> None:
        """Note where a batch ended, and which records before its end the graph left out."""
        end = where[-1]
        self._ends[number] = Position(number, end[0], end[1] + 1)
        self._last = number
        self._ends.pop(number - KEPT, None)
        found = set(where)
        for key in [key for key in list(self._loaded) if key <= end]:  # another thread adds to it
            record = self._loaded.pop(key)
            if key not in found:
                self.skipped.add(record.name, decode_error(record))

    def _note_unreadable(self) -> None:
        """Note records on their way that Pillow cannot read either: no batch will tell of them."""
        for record in list(self._loaded.values()):
            if (reason := decode_error(record)) != UNDECODED:
                self.skipped.add(record.name, reason)

    def _left_out(self) -> str:
        """Name one of the latest records that the graph does not take, and why."""
        for place, record in [*self._loaded.items()][: -SHOWN - 1 : -1]:
            reason = decode_error(record)
            if reason == UNDECODED:
                try:
                    image, caption = load_pair(record)
                    one = tf.constant(place, tf.int64), image, caption.encode()
                    tf.data.Dataset.from_tensors(one).map(self._image).get_single_element()
                    continue
                except (GroupViTError, tf.errors.OpError) as error:
                    reason = f"{UNDECODED}: {one_line(asserted(str(error)))}"
            return f"{one_line(record.name, LONGEST)}: {reason}"
        return "TensorFlow left them out, though each alone can be decoded"
