"""Records of image and caption in tar shards and TFRecord files; and writing TFRecord files.

Only headers and lengths are read until a record is loaded: it is a name and a place in a file, so
that ten thousand of them can be shuffled, and skipped to a place, in little memory.
``tf.data.TFRecordDataset`` and ``webdataset`` would read every image for that, and end a file at
its first broken record.
"""

import json
import os
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from tf_groupvit.errors import DatasetError, one_line
from tf_groupvit.files import GRAPH_IMAGE_SUFFIXES, replacing, split_key, tar_members
from tf_groupvit.training.captions_file import NO_ENTRY, captions_in

# Members of a tar shard by their suffix: the first that is there counts; of JSON, its "caption".
TAR_IMAGES = tuple(suffix[1:] for suffix in GRAPH_IMAGE_SUFFIXES)
TAR_CAPTIONS = ("txt", "caption", "json")
# Features of a tf.train.Example: the first is ours, "jpg" and "txt" are img2dataset's.
EXAMPLE_IMAGES = ("image", "jpg", "jpeg", "png", "webp", "image/encoded", "image_bytes")
EXAMPLE_CAPTIONS = ("caption", "txt", "text", "image/caption")
HEADER, FOOTER = 12, 4  # an example's length with a check sum; its own check sum after it
Span = tuple[int, int]  # start and length in a file


@dataclass(frozen=True, slots=True)
class Record:
    """One pair. ``load`` reads image bytes and caption, or raises DatasetError with the reason."""

    name: str
    load: Callable[[], tuple[bytes, str]]


def _broken(name: str, reason: str) -> Record:
    """A record in the place of what should have been one, or more: loading it gives the reason."""

    def load() -> tuple[bytes, str]:
        raise DatasetError(reason)

    return Record(name, load)


def numbered_name(name: str, number: int) -> str:
    """The name of an image's first, second, ... record."""
    return name if number == 1 else f"{name}, caption {number}"


def _read_bytes(path: Path, start: int = 0, length: int | None = None) -> bytes:
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


def load_spans(path: Path, image: Span | None, caption: str | Span) -> tuple[bytes, str]:
    """An image, a file or part of it, and its caption, a text or another part of the file."""
    text = caption if isinstance(caption, str) else _read_text(path, caption)
    return _read_bytes(path, *(image or ())), text


def _read_text(path: Path, span: Span) -> str:
    return _read_bytes(path, *span).decode("utf-8-sig", "replace")


class TarShards:
    """Uncompressed WebDataset shards, as img2dataset writes them: KEY.jpg with KEY.txt or KEY.json.

    Members with the same name up to the first dot are one record. Where captions stand in JSON
    alone, a list of them makes a record of each. Hidden files, and those that macOS and Windows
    add, are no members.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards

    def read(self, shard: Path) -> Iterator[Record]:
        """Whole records, also of a shard that is cut short; a last one says that it was."""
        problem: list[str] = []
        members = ((split_key(member.name), member) for member in _members(shard, problem))
        for key, parts in groupby(members, lambda pair: pair[0][0]):
            yield from _tar_records(shard, key, {part: member for (_, part), member in parts})
        if problem:
            yield _broken(str(shard), problem[0])


def _members(shard: Path, problem: list[str]) -> Iterator[tarfile.TarInfo]:
    """The files of a tar whose data is whole; what is wrong with the tar goes into ``problem``."""
    try:
        with open(shard, "rb") as file:
            yield from tar_members(file, os.path.getsize(shard), problem)
    except OSError as error:
        problem.append(f"the shard is cut short or damaged: {error}")


def _tar_records(shard: Path, key: str, parts: dict[str, tarfile.TarInfo]) -> Iterator[Record]:
    name = f"{shard}:{key}"
    image = next((part for part in TAR_IMAGES if part in parts), None)
    caption = next((part for part in TAR_CAPTIONS if part in parts), None)
    if image is None or caption is None:
        missing = "image" if image is None else "caption"
        yield _broken(name, f"there is no {missing} among {', '.join(sorted(parts))}")
        return
    spans = {part: (member.offset_data, member.size) for part, member in parts.items()}
    if caption != "json":
        yield Record(name, partial(load_spans, shard, spans[image], spans[caption]))
        return
    try:
        texts = captions_in(json.loads(_read_text(shard, spans[caption])))
    except DatasetError as error:
        yield _broken(name, str(error))
    except NO_ENTRY:
        yield _broken(name, "its JSON has no entry 'caption'")
    else:
        for number, text in enumerate(texts, start=1):
            yield Record(
                numbered_name(name, number), partial(load_spans, shard, spans[image], text)
            )


class TFRecordShards:
    """Uncompressed files of ``tf.train.Example``, each with an encoded image and a caption.

    Where an example has several, the first counts. Check sums are not looked at: a damaged example
    or image shows when it is parsed or decoded.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards

    def read(self, shard: Path) -> Iterator[Record]:
        """Whole records, also of a file that is cut short; a last one says that it was."""
        at = 0
        try:
            size = os.path.getsize(shard)
            with open(shard, "rb") as file:
                while at < size:
                    file.seek(at)
                    header = file.read(HEADER)
                    length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER else size
                    end = at + HEADER + length + FOOTER
                    if end > size:
                        reason = f"the file is cut short or damaged from byte {at:,} on"
                        yield _broken(str(shard), reason)
                        return
                    span = at + HEADER, length
                    yield Record(f"{shard}:{at}", partial(_load_example, shard, span))
                    at = end
        except OSError as error:
            yield _broken(str(shard), f"the file cannot be read: {error.strerror or error}")


def _load_example(shard: Path, span: Span) -> tuple[bytes, str]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(_read_bytes(shard, *span)).features.feature
    except DecodeError as error:
        raise DatasetError("it is no tf.train.Example") from error
    image, caption = (_first_value(features, n) for n in (EXAMPLE_IMAGES, EXAMPLE_CAPTIONS))
    return image, caption.decode("utf-8", "replace")


def _first_value(features: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    for name in names:
        if name in features and features[name].bytes_list.value:
            value: bytes = features[name].bytes_list.value[0]
            return value
    raise DatasetError(
        f"it has none of the features {', '.join(names)}, but {', '.join(sorted(features))}"
    )


def write_tfrecord(path: str | os.PathLike[str], pairs: Iterable[tuple[bytes, str]]) -> int:
    """Write pairs of an encoded image and its caption as a TFRecord file; returns how many.

    Raises:
        DatasetError: it cannot be written; no half-written file is left.
    """
    import tensorflow as tf

    path, count = Path(path), 0
    try:
        with replacing(path) as unfinished, tf.io.TFRecordWriter(os.fspath(unfinished)) as writer:
            for image, caption in pairs:
                example = tf.train.Example()
                for name, value in (("image", image), ("caption", caption.encode())):
                    example.features.feature[name].bytes_list.value.append(value)
                writer.write(example.SerializeToString())
                count += 1
    except (OSError, tf.errors.OpError) as error:
        raise DatasetError(f"{path} cannot be written: {one_line(error)}.") from error
    return count
