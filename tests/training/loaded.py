"""What a source of pairs gives: what the tests of each of its kinds look at."""

from tf_groupvit.errors import DatasetError
from tf_groupvit.training.caption_sources import Source


def loaded(source: Source) -> tuple[list[tuple[bytes, str]], dict[str, str]]:
    """All pairs of a source, and the reason why by the name of what could not be loaded."""
    good, bad = [], {}
    for one in source.shards:
        for record in source.read(one):
            try:
                good.append(record.load())
            except DatasetError as error:
                bad[record.name] = str(error)
    return good, bad
