"""A source of pairs and a share in; two sources out, which have no pair in common."""

from collections.abc import Iterator
from pathlib import Path

from tf_groupvit.training.records import Record, Source

PARTS = 10_000  # a share is counted in so many parts, so that no rounding error moves a record


class Part:
    """The pairs of a source that are held out, or the others. Which they are hangs on their places in the files alone.

    They lie spread over each shard: of ten with a share of 0.2 the fifth and the tenth are held out.
    """

    def __init__(self, source: Source, share: float, held_out: bool) -> None:
        self.source, self.shards = source, source.shards
        self.parts, self.held_out = round(share * PARTS), held_out

    def read(self, shard: Path) -> Iterator[Record]:
        for number, record in enumerate(self.source.read(shard)):
            taken = (number + 1) * self.parts // PARTS > number * self.parts // PARTS
            if taken is self.held_out:
                yield record


def split(source: Source, share: float) -> tuple[Source, Source]:
    """What is trained on, and what is held out."""
    return Part(source, share, held_out=False), Part(source, share, held_out=True)
