"""Training pairs of images and captions: finding their records, reading one pair, and holding a
share of them out.

The format shows in the name: ``*.tar`` are WebDataset shards, as img2dataset writes them,
``*.tfrecord`` TFRecord files, anything else a folder with a captions file, or that file. Where one
reader ends and the next begins nobody else needs to know: a record is loaded when its turn comes,
and until then it is a name and a place in a file.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from tf_groupvit.errors import DatasetError, GroupViTError
from tf_groupvit.files import is_junk, refuse_pointer
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.training.captions import clean_caption

MIN_SIDE = 2  # an image of one pixel stands on the web where a picture has been taken away
UNDECODED = "its image cannot be decoded"
PARTS = 10_000  # a share is counted in so many parts, so that no rounding error moves a record


@dataclass(frozen=True, slots=True)
class Record:
    """One pair. ``load`` reads the bytes of its image and its caption; DatasetError says why it
    cannot.
    """

    name: str
    load: Callable[[], tuple[bytes, str]]


def broken(name: str, reason: str) -> Record:
    """A record in the place of what should have been one, or more: it is told by name when its turn
    comes.
    """

    def load() -> tuple[bytes, str]:
        raise DatasetError(reason)

    return Record(name, load)


class Source(Protocol):
    """Pairs in shards: an epoch takes the shards in any order, and each shard from its beginning to
    its end.
    """

    shards: Sequence[Path]

    def read(self, shard: Path) -> Iterator[Record]:
        """The records of a shard, nothing of which is loaded yet; the same ones in the same order
        each time.
        """
        ...


def read_bytes(path: Path, start: int = 0, length: int | None = None) -> bytes:
    """Part of a file, or DatasetError where it is shorter by now, or cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(-1 if length is None else length)
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read: {error.strerror or error}") from error
    if length is not None and len(data) < length:
        raise DatasetError(f"{path.name} ends within the record")
    return data


def open_pairs(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Source:
    """Find the pairs that a path names: shards, a folder of shards, a folder with a captions file,
    or that file.

    A path may hold wildcards, and numbers in braces as WebDataset has them:
    ``shards/{00000..00331}.tar``. Several paths are several shards of one kind.

    Raises:
        DatasetError: nothing is there, or a pointer of git-lfs is; kinds are mixed; or a captions
            file names images that are missing.
    """
    from tf_groupvit.training.records_folder import CaptionedFolder, captions_file
    from tf_groupvit.training.records_tar import TarShards
    from tf_groupvit.training.records_tfrecord import TFRecordShards

    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files = [file for path in given for file in _found(os.fspath(path))]
    if not files:
        raise DatasetError("No paths to training pairs came: give at least one.")
    if len(files) == 1 and files[0].is_dir():
        folder = files[0]
        shards = sorted(file for file in folder.iterdir() if _kind(file) and not is_junk(file.name))
        files = shards or [captions_file(folder)]
    for file in files:
        refuse_pointer(file, DatasetError)
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        names = ", ".join(file.name for file in files[:3])
        raise DatasetError(
            f"Expected shards of one kind, tar or tfrecord, came a mixture: {names} ..."
        )
    (kind,) = kinds
    if kind:
        return TarShards(files) if kind == "tar" else TFRecordShards(files)
    if len(files) > 1:
        raise DatasetError(
            f"Expected one captions file, came {len(files)}: {files[0].name}, {files[1].name} ..."
        )
    return CaptionedFolder(files[0])


def size_in_words(source: Source) -> str:
    """How much a source holds: pairs, or shards where counting pairs would mean to go through all
    of them.
    """
    counts_pairs = not _kind(source.shards[0])
    count = sum(1 for _ in source.read(source.shards[0])) if counts_pairs else len(source.shards)
    return f"{count:,} {'pair' if counts_pairs else 'shard'}{'s' if count != 1 else ''}"


def _kind(file: Path) -> str:
    """tar, tfrecord, or nothing: TFRecord files are also named ``x.tfrecord-00001-of-00010``."""
    if file.suffix == ".tar":
        return "tar"
    return "tfrecord" if re.search(r"\.tfrecords?(-\d+-of-\d+)?$", file.name) else ""


def _found(path: str) -> list[Path]:
    """The files that a path with wildcards and braces stands for, in order."""
    names = [
        name
        for one in _unfolded(path)
        for name in (sorted(glob.glob(one)) if glob.has_magic(one) else [one])
    ]
    missing = [name for name in names if not os.path.exists(name)]
    if missing or not names:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DatasetError(
            f"There is nothing at {missing[0] if missing else path}{more}: check the path."
        )
    return [Path(name) for name in names]


def _unfolded(path: str) -> list[str]:
    """``a{00..02}`` -> a00, a01, a02; the digits keep their number."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if not match:
        return [path]
    first, last = match.groups()
    ends = path[: match.start()], path[match.end() :]
    numbers = range(int(first), int(last) + 1)
    return [one for n in numbers for one in _unfolded(f"{ends[0]}{n:0{len(first)}d}{ends[1]}")]


def load_pair(record: Record) -> tuple[bytes, str]:
    """Image and clean caption of a record. Raises DatasetError where it cannot be read or has no
    caption.
    """
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
    """The captions of the first so many records; training tells the names of those that cannot be
    read.
    """
    for record in islice(records_of(source), count):
        try:
            yield load_pair(record)[1]
        except GroupViTError:
            continue


def first_images(source: Source, count: int) -> list[np.ndarray]:
    """The first so many images that can be read, uint8 (H, W, 3). Raises DatasetError where there
    is none.
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
    """The pairs of a source that are held out, or the others. Which they are hangs on their places
    in the files alone.

    They lie spread over each shard: of ten with a share of 0.2 the fifth and the tenth are held
    out.
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
