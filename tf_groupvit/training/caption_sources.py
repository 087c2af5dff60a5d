"""Open training pairs of images and captions - shards or a folder - and hold out a share of them.

The format shows in the name of the files, see ``KINDS``.
"""

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from tf_groupvit.errors import DatasetError, GroupViTError
from tf_groupvit.files import is_junk, refuse_pointer
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.storage import (
    beside,
    bytes_of,
    is_url,
    kind_of,
    listed,
    matching,
    name_of,
    reason_of,
)
from tf_groupvit.training.caption_folders import (
    ImagesWithTexts,
    folders_with_texts,
    open_captions_file,
)
from tf_groupvit.training.caption_loading import load_pair, load_pairs, threads_for
from tf_groupvit.training.caption_parquet import ParquetShards, holds_pairs
from tf_groupvit.training.caption_shards import Record, TarShards, TFRecordShards
from tf_groupvit.training.captions_file import KINDS as CAPTIONS_FILES
from tf_groupvit.training.captions_file import NAMES

PARTS = 10_000  # a share is counted in so many parts, so that no rounding error moves a record


class Source(Protocol):
    """Pairs in shards, which an epoch takes in any order, each from its beginning to its end."""

    shards: Sequence[str]

    def read(self, shard: str) -> Iterator[Record]:
        """The records of a shard, not loaded yet; the same ones in the same order each time."""
        ...


# Kind of shard -> how its file names end, and its reader. Anything else is a captions file.
KINDS: dict[str, tuple[str, Callable[[Sequence[str]], Source]]] = {
    "tar": (r"\.tar$", TarShards),
    "tfrecord": (r"\.tfrecords?(-\d+-of-\d+)?$", TFRecordShards),
    "parquet": (r"\.parquet$", ParquetShards),
}
# Sources that are made of shards alone, so that those of several folders go together.
MANY: tuple[Callable[[Sequence[str]], Source], ...] = (
    *(reader for _, reader in KINDS.values()),
    ImagesWithTexts,
)
COMPRESSED = r"\.(tar\.gz|tgz)$"  # which has no part that can be read alone
SHARDS = " (*.tar, *.tfrecord, *.parquet)"


def _shard_kind(file: str) -> str | None:
    return next((kind for kind, (end, _) in KINDS.items() if re.search(end, name_of(file))), None)


def open_pairs(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Source:
    """Find the pairs that a path or URL names: shards, or images with captions beside them.

    It may be a file of shards or of captions, or a folder with any of them; and it may hold
    wildcards, and braces as WebDataset has them: ``{gcc,yfcc}/{00000..00331}.tar``. Several are
    several shards, or folders of shards, of one kind. A URL is one that fsspec opens, such as
    ``s3://bucket/shards``.

    Raises:
        DatasetError: nothing is there, or a pointer of git-lfs is; kinds are mixed; or a captions
            file names images that are missing.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    try:
        found = [file for path in given for file in _matching_files(os.fspath(path))]
        return _open_all(found)
    except GroupViTError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not any(is_url(os.fspath(path)) for path in given):
            raise  # each storage has errors of its own
        raise DatasetError(f"{given[0]} cannot be read: {reason_of(error)}.") from error


def _open_all(found: Sequence[str]) -> Source:
    if not found:
        raise DatasetError("Expected paths to training pairs, got none: give at least one.")
    folders = [one for one in found if kind_of(one) == "directory"]
    if not folders:
        return _open_files(found)
    sources = [_open_folder(one) for one in folders]
    if len(found) == 1:
        return sources[0]
    kinds = [kind for kind in MANY if all(type(source) is kind for source in sources)]
    if not kinds or len(found) > len(folders):
        raise DatasetError(
            f"Expected one folder of pairs, or several of shards of one kind, got {len(found)}:"
            f" {', '.join(found[:3])} ..."
        )
    return kinds[0]([shard for source in sources for shard in source.shards])


def _open_folder(folder: str) -> Source:
    """What a folder holds: shards, the usual captions file, images with texts, or another file."""
    if shards := _shards_in(folder):
        return _open_files(shards)
    inside = [path for path, is_folder in listed(folder) if not is_folder]
    there = {name_of(path): path for path in inside if not is_junk(name_of(path))}
    if usual := next(filter(there.__contains__, NAMES), None):
        return _open_files([there[usual]])
    tables = [path for name, path in there.items() if _shard_kind(name)]
    if tables and holds_pairs(tables[0]):
        return _open_files(tables)
    if folders := folders_with_texts(folder):
        return ImagesWithTexts(folders)
    below = beside(f"{folder.rstrip('/')}/x", "annotations")
    if kind_of(below) == "directory":  # COCO's
        there |= {name_of(path): path for path, is_folder in listed(below) if not is_folder}
    others = [path for name, path in there.items() if _is_captions_file(name)]
    if len(others) == 1:
        return _open_files(others)
    if others:
        names = ", ".join(map(name_of, others[:3]))
        raise DatasetError(
            f"{folder} has several files of captions, {names} ...: name one of them."
        )
    if packed := [path for name, path in there.items() if re.search(COMPRESSED, name)]:
        return _open_files(packed)
    raise DatasetError(
        f"{folder} has neither shards{SHARDS}, nor images with a txt or json beside each, nor one"
        f" of {', '.join(NAMES)}."
    )


def _is_captions_file(name: str) -> bool:
    stem, suffix = posixpath.splitext(name.lower())
    return suffix in CAPTIONS_FILES and (suffix != ".json" or stem.startswith("captions"))


def _shards_in(folder: str) -> list[str]:
    """The shards of a folder, in order, without Parquet files: they may be notes about others."""
    files = [path for path, is_folder in listed(folder) if not is_folder]
    return [
        file
        for file in files
        if _shard_kind(file) not in (None, "parquet") and not is_junk(name_of(file))
    ]


def _open_files(files: Sequence[str]) -> Source:
    for file in files:
        if re.search(COMPRESSED, file):
            raise DatasetError(
                f"{file} is a compressed tar, and those are not read: unpack it, with gunzip."
            )
        if not is_url(file):
            refuse_pointer(Path(file), DatasetError)
    names = ", ".join(map(name_of, files[:3]))
    kinds = {_shard_kind(file) for file in files}
    if len(kinds) > 1:
        raise DatasetError(
            f"Expected shards of one kind, tar or tfrecord, got a mixture: {names} ..."
        )
    if kind := kinds.pop():
        return KINDS[kind][1](files)
    if len(files) > 1:
        raise DatasetError(f"Expected one captions file, got {len(files)}: {names} ...")
    return open_captions_file(files[0])


def _matching_files(path: str) -> list[str]:
    """The files that a path with wildcards and braces stands for, in order: of itself first."""
    if not is_url(path) and os.path.exists(path):
        return [str(Path(path))]
    names = {one: matching(one) for one in _expand_braces(path)}
    missing = [one for one, found in names.items() if not found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DatasetError(f"There is nothing at {missing[0]}{more}: check the path.")
    found = [file for files in names.values() for file in files]
    return [file if is_url(file) else str(Path(file)) for file in found]


def _expand_braces(path: str) -> list[str]:
    """``a{00..02}`` -> a00, a01, a02, whose digits keep their number; ``{a,b}`` -> a, b.

    Of numbers there are at most a million.
    """
    match = re.search(r"\{(?:(0*\d{1,6})\.\.(0*\d{1,6})|([^{}]*,[^{}]*))\}", path)
    if not match:
        return [path]
    first, last, names = match.groups()
    before, after = path[: match.start()], path[match.end() :]
    parts = names.split(",") if names else []
    if not names:
        parts = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return [one for part in parts for one in _expand_braces(f"{before}{part}{after}")]


def outline(source: Source) -> tuple[str, str]:
    """How many pairs a source holds, in words, and what stands for their names in their order.

    Of several files or folders it is they that are counted and named: their pairs would take a pass
    through all.
    """
    shards = source.shards
    kind = "shard" if _shard_kind(shards[0]) else "pair" if len(shards) == 1 else "folder"
    names = (one.name for one in source.read(shards[0])) if kind == "pair" else iter(shards)
    count, digest = 0, hashlib.sha256()
    for name in names:
        count += 1
        digest.update(os.fsencode(name_of(name)) + b"\0")
    return f"{count:,} {kind}{'s' if count != 1 else ''}", digest.hexdigest()[:12]


def records_of(source: Source) -> Iterator[Record]:
    """All records of a source, in the order of its files."""
    return (record for shard in source.shards for record in source.read(shard))


def first_captions(source: Source, count: int) -> Iterator[str]:
    """The captions of the first ``count`` records, but for those that cannot be read."""
    records = enumerate(islice(records_of(source), count))
    for _, _, pair in load_pairs(records, threads_for(source.shards)):
        if not isinstance(pair, GroupViTError):  # training reports it by name
            yield pair[1]


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

    def read(self, shard: str) -> Iterator[Record]:
        """The records of a shard that are this part's."""
        for number, record in enumerate(self.source.read(shard)):
            taken = (number + 1) * self.parts // PARTS > number * self.parts // PARTS
            if taken is self.held_out:
                yield record


def split(source: Source, share: float) -> tuple[Source, Source]:
    """What is trained on, and the share that is held out."""
    return Part(source, share, held_out=False), Part(source, share, held_out=True)


def count_records(source: Source) -> int:
    """How many records a source has, broken ones included.

    Beside its shards img2dataset writes how many pairs each has, which is taken as it is: their
    headers alone are a pass through all data where those are not on this disk.
    """
    return sum(_count_in(source, shard) for shard in source.shards)


def _count_in(source: Source, shard: str) -> int:
    if isinstance(source, Part):
        count = _count_in(source.source, shard)
        held_out = count * source.parts // PARTS
        return held_out if source.held_out else count - held_out
    noted = _noted_count(shard) if isinstance(source, TarShards | TFRecordShards) else None
    return sum(1 for _ in source.read(shard)) if noted is None else noted


def _noted_count(shard: str) -> int | None:
    try:
        noted = json.loads(bytes_of(f"{posixpath.splitext(shard)[0]}_stats.json"))["successes"]
    except Exception:  # each storage has errors of its own
        return None
    return noted if type(noted) is int and noted >= 0 else None
