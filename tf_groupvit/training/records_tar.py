"""WebDataset shards in, records out: KEY.jpg beside KEY.txt or KEY.json, as img2dataset writes them.

Only the headers of a shard are walked; an image is read when its record is loaded.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from tf_groupvit.errors import DatasetError
from tf_groupvit.training.records import Record, broken, read_bytes

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
CAPTIONS = ("txt", "caption", "json")  # the first that is there counts; of JSON, the entry "caption"
BLOCK = tarfile.BLOCKSIZE


class TarShards:
    """Tar files, uncompressed; members with the same name up to the first dot are one record."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards

    def read(self, shard: Path) -> Iterator[Record]:
        """What of a shard that is cut short is whole is used; a record in the end says that it was."""
        problem: list[str] = []
        for key, members in groupby(_members(shard, problem), lambda member: _key_and_part(member.name)[0]):
            parts = {_key_and_part(member.name)[1]: member for member in members}
            yield _record(shard, key, parts)
        if problem:
            yield broken(str(shard), problem[0])


def _key_and_part(name: str) -> tuple[str, str]:
    """``a.b/000.seg.png`` -> (``a.b/000``, ``seg.png``)."""
    folder, _, base = name.rpartition("/")
    key, _, part = base.partition(".")
    return f"{folder}/{key}" if folder else key, part.lower()


def _members(shard: Path, problem: list[str]) -> Iterator[tarfile.TarInfo]:
    """The files of a tar whose data is whole; what is wrong with the tar is added to ``problem``."""
    try:
        size = os.path.getsize(shard)
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # else all headers of a shard stay in memory
                if member.offset_data + member.size > size:
                    break  # tarfile itself says so when it looks for the next header
                if member.isfile():
                    yield member
            end = tar.offset
        # An empty block marks the end of an archive; tarfile takes whatever is no header for one.
        if end + BLOCK > size or any(read_bytes(shard, end, BLOCK)):
            problem.append(f"the shard is cut short or damaged from byte {min(end, size):,} on")
    except (OSError, tarfile.TarError) as error:
        problem.append(f"the shard is cut short or damaged: {error}")


def _record(shard: Path, key: str, parts: dict[str, tarfile.TarInfo]) -> Record:
    name = f"{shard}:{key}"
    image = next((parts[part] for part in IMAGES if part in parts), None)
    caption = next((part for part in CAPTIONS if part in parts), None)
    if image is None or caption is None:
        lacking = "image" if image is None else "caption"
        return broken(name, f"there is no {lacking} among {', '.join(sorted(parts))}")
    place, text_place = ((m.offset_data, m.size) for m in (image, parts[caption]))
    return Record(name, partial(_load, shard, place, text_place, caption))


def _load(shard: Path, image: tuple[int, int], caption: tuple[int, int], part: str) -> tuple[bytes, str]:
    text = read_bytes(shard, *caption).decode("utf-8", "replace")
    return read_bytes(shard, *image), _caption_in(text) if part == "json" else text


def _caption_in(text: str) -> str:
    try:
        caption = json.loads(text)["caption"]
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError("its JSON has no entry 'caption'") from error
    return caption if isinstance(caption, str) else ""
