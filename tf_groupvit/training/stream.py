"""Shards of training pairs and a seed in; the records of one round after the other, shuffled and repeatable, out."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tf_groupvit.errors import InputError
from tf_groupvit.training.records import Record, Source


@dataclass(frozen=True)
class Position:
    """Where training stands in its data, to be saved beside a checkpoint.

    Attributes:
        batches: how many batches have been taken since the beginning.
        round: how often all data have been gone through.
        record: the next record in this round's order, broken ones counted.
    """

    batches: int = 0
    round: int = 0
    record: int = 0

    def to_dict(self) -> dict[str, int]:
        return {"batches": self.batches, "round": self.round, "record": self.record}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Position":
        """Read what ``to_dict`` gave. Raises InputError for anything else."""
        try:
            position = cls(**{name: int(value) for name, value in content.items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"Expected a position such as {cls().to_dict()}, got {str(content)[:80]}.") from error
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
            raise InputError(f"There is no worker {self.worker} among {self.workers}: count from 0.")


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


def one_round(source: Source, number: int, seed: int, buffer: int, share: Share) -> Iterator[tuple[int, Record]]:
    """Records of a round with their places in its order; the share's alone. Seed and round say all about the order.

    Shards come in another order each round, unless the buffer says not to shuffle. What is in the buffer is names and
    places in files, not images: ten thousand take a few megabytes, and skipping to a place loads nothing.
    """
    rng = random.Random(f"{seed} {number}")
    shards = list(source.shards)
    if buffer > 1:
        rng.shuffle(shards)
    records = (record for shard in shards for record in source.read(shard))
    for place, record in enumerate(shuffled(records, buffer, rng)):
        if place % share.workers == share.worker:
            yield place, record
