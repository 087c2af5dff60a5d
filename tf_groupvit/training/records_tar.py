"""WebDataset shards in, records out: KEY.jpg beside KEY.txt or KEY.json, as img2dataset writes
them.

Only the headers of a shard are walked, and JSON that holds the captions; an image is read when its
record is loaded.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from tf_groupvit.errors import DatasetError
from tf_groupvit.files import GRAPH_IMAGE_SUFFIXES, is_junk
from tf_groupvit.training.records import Record, broken, read_bytes
from tf_groupvit.training.records_folder import NO_ENTRY, captions_in

IMAGES = tuple(suffix[1:] for suffix in GRAPH_IMAGE_SUFFIXES)
CAPTIONS = (
    "txt",
    "caption",
    "json",
)  # the first that is there counts; of JSON, the entry "caption"
BLOCK = tarfile.BLOCKSIZE


class TarShards:
    """Tar files, uncompressed; members with the same name up to the first dot are one record.

    Where captions stand in JSON alone, a list of them makes several records, one a caption. Hidden
    files, and what macOS and Windows leave beside the others, are no members.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards

    def read(self, shard: Path) -> Iterator[Record]:
        """What of a shard that is cut short is whole is used; a record in the end says that it was."""
        problem: list[str] = []
        for key, members in groupby(
            _members(shard, problem), lambda member: _key_and_part(member.name)[0]
        ):
            parts = {_key_and_part(member.name)[1]: member for member in members}
            yield from _records(shard, key, parts)
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
                if member.isfile() and not is_junk(member.name):
                    yield member
            end = tar.offset
        # An empty block marks the end of an archive; tarfile takes whatever is no header for one.
        if end + BLOCK > size or any(read_bytes(shard, end, BLOCK)):
            problem.append(f"the shard is cut short or damaged from byte {min(end, size):,} on")
    except (OSError, tarfile.TarError) as error:
        problem.append(f"the shard is cut short or damaged: {error}")


def _records(shard: Path, key: str, parts: dict[str, tarfile.TarInfo]) -> Iterator[Record]:
    name = f"{shard}:{key}"
    image = next((parts[part] for part in IMAGES if part in parts), None)
    caption = next((part for part in CAPTIONS if part in parts), None)
    if image is None or caption is None:
        lacking = "image" if image is None else "caption"
        yield broken(name, f"there is no {lacking} among {', '.join(sorted(parts))}")
        return
    place, text_place = ((m.offset_data, m.size) for m in (image, parts[caption]))
    if caption != "json":
        yield Record(name, partial(_load, shard, place, text_place))
        return
    try:
        texts = captions_in(json.loads(_text(shard, text_place)))
    except DatasetError as error:
        yield broken(name, str(error))
    except NO_ENTRY:
        yield broken(name, "its JSON has no entry 'caption'")
    else:
        for number, text in enumerate(texts, start=1):
            told = name if number == 1 else f"{name}, caption {number}"
            yield Record(told, partial(_load_beside, shard, place, text))


def _load(shard: Path, image: tuple[int, int], caption: tuple[int, int]) -> tuple[bytes, str]:
    return read_bytes(shard, *image), _text(shard, caption)


def _load_beside(shard: Path, image: tuple[int, int], caption: str) -> tuple[bytes, str]:
    return read_bytes(shard, *image), caption


def _text(shard: Path, place: tuple[int, int]) -> str:
    return read_bytes(shard, *place).decode("utf-8-sig", "replace")
