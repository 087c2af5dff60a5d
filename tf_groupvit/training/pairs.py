"""A record in; its image and clean caption, or what is wrong with them, out."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from tf_groupvit.errors import DatasetError, GroupViTError
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.training.captions import clean_caption
from tf_groupvit.training.records import Record, Source

MIN_SIDE = 2  # an image of one pixel stands on the web where a picture has been taken away
UNDECODED = "its image cannot be decoded"


def load_pair(record: Record) -> tuple[bytes, str]:
    """Image and clean caption of a record. Raises DatasetError where it cannot be read or has no caption."""
    image, caption = record.load()
    caption = clean_caption(caption)
    if not caption:
        raise DatasetError("its caption is empty")
    return image, caption


def why_not(record: Record) -> str:
    """What is wrong with an image that did not come out of the graph."""
    try:
        sides = read_image(record.load()[0], name="its image").shape[:2]
    except GroupViTError as error:
        return str(error).rstrip(".")
    return f"its image has {sides[1]} x {sides[0]} pixels" if min(sides) < MIN_SIDE else UNDECODED


def records_of(source: Source) -> Iterator[Record]:
    """All records of a source, in the order of its files."""
    return (record for shard in source.shards for record in source.read(shard))


def first_captions(source: Source, count: int) -> Iterator[str]:
    """The captions of the first so many records; training tells the names of those that cannot be read."""
    for record in islice(records_of(source), count):
        try:
            yield load_pair(record)[1]
        except GroupViTError:
            continue


def first_images(source: Source, count: int) -> list[np.ndarray]:
    """The first so many images that can be read, uint8 (H, W, 3). Raises DatasetError where there is none."""
    found: list[np.ndarray] = []
    for record in records_of(source):
        try:
            found.append(read_image(load_pair(record)[0], name=record.name))
        except GroupViTError:
            continue
        if len(found) == count:
            return found
    if not found:
        raise DatasetError("None of the images can be read: there is nothing to show.")
    return found
