"""Open training pairs of images and captions - shards or a folder - and hold out a share of them.

The format shows in the name of the files, see ``KINDS``.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from tf_groupvit.errors import DatasetError, GroupViTError
from tf_groupvit.files import is_junk, refuse_pointer
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.training.caption_shards import (
    Record,
    TarShards,
    TFRecordShards,
    load_spans,
    numbered_name,
)
from tf_groupvit.training.captions_file import find_captions_file, read_rows
from tf_groupvit.training.texts import clean_caption

MIN_SIDE = 2  # an image of one pixel stands on the web where one was taken away
UNDECODED = "its image cannot be decoded"
PARTS = 10_000  # a share is counted in so many parts, so that no rounding error moves a record
SHOWN = 5  # missing images that a message names


class Source(Protocol):
    """Pairs in shards, which an epoch takes in any order, each from its beginning to its end."""

    shards: Sequence[Path]

    def read(self, shard: Path) -> Iterator[Record]:
        """The records of a shard, not loaded yet; the same ones in the same order each time."""
        ...


class CaptionedFolder:
    """Images next to a captions file, see ``captions_file``; all of them must be there.

    Raises:
        DatasetError: the file cannot be read or has no such columns, or names missing images.
    """

    def __init__(self, file: Path) -> None:
        self.shards: Sequence[Path] = [file]
        self._pairs = [(_find_image(file.parent, image), text) for image, text in read_rows(file)]
        if not self._pairs:
            raise DatasetError(f"{file} holds no captions.")
        paths = dict.fromkeys(path for path, _ in self._pairs)
        if missing := [path for path in paths if not path.is_file()]:
            shown = ", ".join(str(path) for path in missing[:SHOWN])
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise DatasetError(
                f"{file.name} names {len(missing)} images that are missing: {shown}{more}."
            )

    def read(self, shard: Path) -> Iterator[Record]:
        """The pairs in the order of the file; further captions of an image get their own names."""
        seen: dict[Path, int] = {}
        for path, caption in self._pairs:
            seen[path] = seen.get(path, 0) + 1
            yield Record(
                numbered_name(str(path), seen[path]), partial(load_spans, path, None, caption)
            )


def _find_image(folder: Path, image: str) -> Path:
    here, below = folder / image, folder / "images" / image
    return below if not here.is_file() and below.is_file() else here


# Kind of shard -> how its file names end, and its reader. Anything else is a captions file.
KINDS: dict[str, tuple[str, Callable[[Sequence[Path]], Source]]] = {
    "tar": (r"\.tar$", TarShards),
    "tfrecord": (r"\.tfrecords?(-\d+-of-\d+)?$", TFRecordShards),
}


def _kind_of(file: Path) -> str | None:
    return next((kind for kind, (end, _) in KINDS.items() if re.search(end, file.name)), None)


def open_pairs(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Source:
    """Find the pairs that a path names: shards, a folder of shards, or a folder with captions.

    A path may hold wildcards, and numbers in braces as WebDataset has them:
    ``shards/{00000..00331}.tar``. Several paths are several shards of one kind. A captions file may
    be named itself, too.

    Raises:
        DatasetError: nothing is there, or a pointer of git-lfs is; kinds are mixed; or a captions
            file names images that are missing.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files = [file for path in given for file in _matching_files(os.fspath(path))]
    if not files:
        raise DatasetError("Expected paths to training pairs, got none: give at least one.")
    if len(files) == 1 and files[0].is_dir():
        folder = files[0]
        shards = [file for file in folder.iterdir() if _kind_of(file) and not is_junk(file.name)]
        files = sorted(shards) or [find_captions_file(folder)]
    for file in files:
        refuse_pointer(file, DatasetError)
    names = ", ".join(file.name for file in files[:3])
    kinds = {_kind_of(file) for file in files}
    if len(kinds) > 1:
        raise DatasetError(
            f"Expected shards of one kind, tar or tfrecord, got a mixture: {names} ..."
        )
    if kind := kinds.pop():
        return KINDS[kind][1](files)
    if len(files) > 1:
        raise DatasetError(f"Expected one captions file, got {len(files)}: {names} ...")
    return CaptionedFolder(files[0])


def _matching_files(path: str) -> list[Path]:
    """The files that a path with wildcards and braces stands for, in order."""
    names: list[str] = []
    for one in _expand_braces(path):
        names += sorted(glob.glob(one)) if glob.has_magic(one) else [one]
    missing = [name for name in names if not os.path.exists(name)]
    if missing or not names:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DatasetError(
            f"There is nothing at {missing[0] if missing else path}{more}: check the path."
        )
    return [Path(name) for name in names]


def _expand_braces(path: str) -> list[str]:
    """``a{00..02}`` -> a00, a01, a02; the digits keep their number."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if not match:
        return [path]
    first, last = match.groups()
    before, after = path[: match.start()], path[match.end() :]
    numbers = range(int(first), int(last) + 1)
    return [one for n in numbers for one in _expand_braces(f"{before}{n:0{len(first)}d}{after}")]


def describe_size(source: Source) -> str:
    """How many pairs a source holds, or shards, whose pairs would take a pass through all files."""
    shards = source.shards
    what = "shard" if _kind_of(shards[0]) else "pair"
    count = len(shards) if what == "shard" else sum(1 for _ in source.read(shards[0]))
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def records_of(source: Source) -> Iterator[Record]:
    """All records of a source, in the order of its files."""
    return (record for shard in source.shards for record in source.read(shard))


def load_pair(record: Record) -> tuple[bytes, str]:
    """Encoded image and clean caption of a record.

    Raises:
        DatasetError: it cannot be read, or its caption is empty.
    """
    image, caption = record.load()
    caption = clean_caption(caption)
    if not caption:
        raise DatasetError("its caption is empty")
    return image, caption


def decode_error(record: Record) -> str:
    """What is wrong with an image that the graph did not decode."""
    try:
        height, width = read_image(record.load()[0], name="its image").shape[:2]
    except GroupViTError as error:
        return str(error).rstrip(".")
    return (
        f"its image has {width} x {height} pixels" if min(height, width) < MIN_SIDE else UNDECODED
    )


def first_captions(source: Source, count: int) -> Iterator[str]:
    """The captions of the first ``count`` records, but for those that cannot be read."""
    for record in islice(records_of(source), count):
        try:
            yield load_pair(record)[1]
        except GroupViTError:
            continue  # training reports it by name


def first_images(source: Source, count: int) -> list[np.ndarray]:
    """The first images that can be read, at most ``count``, uint8 (H, W, 3).

    Raises:
        DatasetError: there is none.
    """
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


class Part:
    """The pairs of a source that are held out, or the others, by their places in the files alone.

    They lie spread over each shard: of ten with a share of 0.2 the fifth and the tenth are held
    out.
    """

    def __init__(self, source: Source, share: float, held_out: bool) -> None:
        self.source, self.shards = source, source.shards
        self.parts, self.held_out = round(share * PARTS), held_out

    def read(self, shard: Path) -> Iterator[Record]:
        """The records of a shard that are this part's."""
        for number, record in enumerate(self.source.read(shard)):
            taken = (number + 1) * self.parts // PARTS > number * self.parts // PARTS
            if taken is self.held_out:
                yield record


def split(source: Source, share: float) -> tuple[Source, Source]:
    """What is trained on, and the share that is held out."""
    return Part(source, share, held_out=False), Part(source, share, held_out=True)
