"""Records of image and caption in tar shards and TFRecord files; and writing TFRecord files.

Only headers and lengths are read until a record is loaded: it is a name and a place in a file, so
that ten thousand of them can be shuffled, and skipped to a place, in little memory.
``tf.data.TFRecordDataset`` and ``webdataset`` would read every image for that, and end a file at
its first broken record.
"""

import json
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tf_groupvit.errors import DatasetError, one_line
from tf_groupvit.files import GRAPH_IMAGE_SUFFIXES, replacing, split_key
from tf_groupvit.storage import bytes_of, members, name_of, place_of, reason_of
from tf_groupvit.training.captions_file import NO_ENTRY, captions_in

# Members of a tar shard by their suffix: the first that is there counts; of JSON, its "caption".
TAR_IMAGES = tuple(suffix[1:] for suffix in GRAPH_IMAGE_SUFFIXES)
TAR_CAPTIONS = ("txt", "caption", "json")
# Features of a tf.train.Example: the first is ours, "jpg" and "txt" are img2dataset's.
EXAMPLE_IMAGES = ("image", "jpg", "jpeg", "png", "webp", "image/encoded", "image_bytes")
EXAMPLE_CAPTIONS = ("caption", "txt", "text", "image/caption")
HEADER, FOOTER = 12, 4  # an example's length with a check sum; its own check sum after it
Part = tuple[str, int, int | None]  # a file, and where a part of it starts and how long it is


class StorageError(DatasetError):
    """A file is not given: the storage is at fault, not what is in the file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One pair. ``load`` reads image bytes and caption, or raises DatasetError with the reason."""

    name: str
    load: Callable[[], tuple[bytes, str]]


def broken(name: str, reason: str, kind: type[DatasetError] = DatasetError) -> Record:
    """A record in the place of what should have been one, or more: loading it gives the reason."""

    def load() -> tuple[bytes, str]:
        raise kind(reason)

    return Record(name, load)


def numbered_name(name: str, number: int) -> str:
    """The name of an image's first, second, ... record."""
    return name if number == 1 else f"{name}, caption {number}"


def read_part(location: str, start: int = 0, length: int | None = None) -> bytes:
    """Part of a file. Raises StorageError if it cannot be read, DatasetError if it is shorter."""
    try:
        data = bytes_of(location, start, length)
    except Exception as error:  # each storage has errors of its own
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise StorageError(f"{name_of(location)} cannot be read: {reason}") from error
    if length is not None and len(data) < length:
        raise DatasetError(f"{name_of(location)} ends within the record")
    return data


def load_parts(image: Part, caption: str | Part) -> tuple[bytes, str]:
    """An image and its caption, which is a text or, like the image, a file or part of one."""
    text = caption if isinstance(caption, str) else _read_text(caption)
    return read_part(*image), text


def _read_text(part: Part) -> str:
    return read_part(*part).decode("utf-8-sig", "replace")


def records_of_parts(name: str, parts: Mapping[str, Part]) -> Iterator[Record]:
    """The records of an image and what goes with it, by suffix: one, or one a caption in JSON."""
    image = next((part for part in TAR_IMAGES if part in parts), None)
    caption = next((part for part in TAR_CAPTIONS if part in parts), None)
    if image is None or caption is None:
        missing = "image" if image is None else "caption"
        yield broken(name, f"there is no {missing} among {', '.join(sorted(parts))}")
        return
    if caption != "json":
        yield Record(name, partial(load_parts, parts[image], parts[caption]))
        return
    try:
        texts = captions_in(json.loads(_read_text(parts[caption])))
    except DatasetError as error:
        yield broken(name, str(error), type(error))
    except NO_ENTRY:
        yield broken(name, "its JSON has no entry 'caption'")
    else:
        for number, text in enumerate(texts, start=1):
            yield Record(numbered_name(name, number), partial(load_parts, parts[image], text))


class TarShards:
    """Uncompressed WebDataset shards, as img2dataset writes them: KEY.jpg with KEY.txt or KEY.json.

    Members with the same name up to the first dot are one record, wherever in the shard they are.
    Where captions stand in JSON alone, a list of them makes a record of each. Hidden files, and
    those that macOS and Windows add, are no members.
    """

    def __init__(self, shards: Sequence[str]) -> None:
        self.shards = shards

    def read(self, shard: str) -> Iterator[Record]:
        """Whole records, also of a shard that is cut short; a last one says that it was."""
        problem: list[str] = []
        for key, parts in _by_key(_members(shard, problem), problem):
            yield from records_of_parts(f"{shard}:{key}", parts)
        if problem:
            yield broken(shard, "; ".join(problem), StorageError)


def _members(shard: str, problem: list[str]) -> Iterator[tuple[str, str, Part]]:
    """Key, suffix and place of the files of a tar; what is wrong with it goes into ``problem``."""
    try:
        for member in members(*place_of(shard), problem):
            yield *split_key(member.name), (shard, member.offset_data, member.size)
    except Exception as error:  # each storage has errors of its own
        problem.append(f"the shard is cut short or damaged: {error}")


def _by_key(
    found: Iterable[tuple[str, str, Part]], problem: list[str]
) -> Iterator[tuple[str, dict[str, Part]]]:
    """What there is of each key. A tar that was packed in any order is read to its end first.

    Pairs of one key, one after the other, are all given. Of other files of one name the last one
    counts, as where tar unpacks them, which goes into ``problem``.
    """
    given, twice = Counter[str](), set[str]()
    runs, rest = _runs(found), dict[str, dict[str, Part]]()
    for key, parts in runs:
        if not _is_pair(parts):
            rest[key] = parts
            break
        given[key] += 1
        yield key if given[key] == 1 else f"{key}, pair {given[key]}", parts
    for key, parts in runs:
        there = rest.setdefault(key, {})
        twice.update(f"{key}.{kind}" for kind in there.keys() & parts.keys())
        there.update(parts)
    yield from ((key, rest[key]) for key in rest if key not in given or _is_pair(rest[key]))
    if twice:
        problem.append(
            f"{len(twice)} of its files come more than once, such as {min(twice)}: the last of"
            " each counts"
        )


def _runs(found: Iterable[tuple[str, str, Part]]) -> Iterator[tuple[str, dict[str, Part]]]:
    """Files that follow each other and have the same key, each kind of them once."""
    parts: dict[str, Part] = {}
    last = ""
    for key, kind, part in found:
        if parts and (key != last or kind in parts):
            yield last, parts
            parts = {}
        last, parts[kind] = key, part
    if parts:
        yield last, parts


def _is_pair(parts: Mapping[str, Part]) -> bool:
    return any(map(parts.__contains__, TAR_IMAGES)) and any(map(parts.__contains__, TAR_CAPTIONS))


class TFRecordShards:
    """Uncompressed files of ``tf.train.Example``, each with an encoded image and a caption.

    Where an example has several, the first counts. Check sums are not looked at: a damaged example
    or image shows when it is parsed or decoded.
    """

    def __init__(self, shards: Sequence[str]) -> None:
        self.shards = shards

    def read(self, shard: str) -> Iterator[Record]:
        """Whole records, also of a file that is cut short; a last one says that it was."""
        at = 0
        try:
            system, path = place_of(shard)
            size = system.size(path)
            with system.open(path, "rb") as file:
                while at < size:
                    file.seek(at)
                    header = file.read(HEADER)
                    length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER else size
                    end = at + HEADER + length + FOOTER
                    if end > size:
                        reason = f"the file is cut short or damaged from byte {at:,} on"
                        yield broken(shard, reason)
                        return
                    part = shard, at + HEADER, length
                    yield Record(f"{shard}:{at}", partial(_load_example, part))
                    at = end
        except Exception as error:  # each storage has errors of its own
            reason = getattr(error, "strerror", None) or reason_of(error)
            yield broken(shard, f"the file cannot be read: {reason}", StorageError)


def _load_example(part: Part) -> tuple[bytes, str]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(read_part(*part)).features.feature
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
