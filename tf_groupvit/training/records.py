"""A path to training pairs in; records, each of which loads one image and its caption, out.

The format shows in the name: ``*.tar`` are WebDataset shards, as img2dataset writes them, ``*.tfrecord`` TFRecord
files, anything else a folder with a captions file, or that file. Where one reader ends and the next begins nobody else
needs to know: a record is loaded when its turn comes, and until then it is a name and a place in a file.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tf_groupvit.errors import DatasetError
from tf_groupvit.evaluation.file_names import is_junk
from tf_groupvit.hub import refuse_pointer


@dataclass(frozen=True, slots=True)
class Record:
    """One pair. ``load`` reads the bytes of its image and its caption; DatasetError says why it cannot."""

    name: str
    load: Callable[[], tuple[bytes, str]]


def broken(name: str, reason: str) -> Record:
    """A record in the place of what should have been one, or more: it is told by name when its turn comes."""

    def load() -> tuple[bytes, str]:
        raise DatasetError(reason)

    return Record(name, load)


class Source(Protocol):
    """Pairs in shards: an epoch takes the shards in any order, and each shard from its beginning to its end."""

    shards: Sequence[Path]

    def read(self, shard: Path) -> Iterator[Record]:
        """The records of a shard, nothing of which is loaded yet; the same ones in the same order each time."""
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
    """Find the pairs that a path names: shards, a folder of shards, a folder with a captions file, or that file.

    A path may hold wildcards, and numbers in braces as WebDataset has them: ``shards/{00000..00331}.tar``. Several
    paths are several shards of one kind.

    Raises:
        DatasetError: nothing is there, or a pointer of git-lfs is; kinds are mixed; or a captions file names images
            that are missing.
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
        raise DatasetError(f"Expected shards of one kind, tar or tfrecord, came a mixture: {names} ...")
    (kind,) = kinds
    if kind:
        return TarShards(files) if kind == "tar" else TFRecordShards(files)
    if len(files) > 1:
        raise DatasetError(f"Expected one captions file, came {len(files)}: {files[0].name}, {files[1].name} ...")
    return CaptionedFolder(files[0])


def size_in_words(source: Source) -> str:
    """How much a source holds: pairs, or shards where counting pairs would mean to go through all of them."""
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
    names = [name for one in _unfolded(path) for name in (sorted(glob.glob(one)) if glob.has_magic(one) else [one])]
    missing = [name for name in names if not os.path.exists(name)]
    if missing or not names:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DatasetError(f"There is nothing at {missing[0] if missing else path}{more}: check the path.")
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
