"""What the formats of annotations share: the classes, the regions, file names, JSON as a stream."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np

from tf_groupvit.annotation.polygons import TOLERANCE, Region, regions_of
from tf_groupvit.annotation.records import Record, ignore_value, labels_of
from tf_groupvit.segmentation.class_names import BACKGROUND
from tf_groupvit.segmentation.palette import class_colors
from tf_groupvit.storage import Output

REGIONS = (
    "Labels by zero-shot segmentation. A region is a connected component of a class: it is not an"
    " object, and touching objects of one class are one region."
)
CLASSES = (
    "Labels by zero-shot segmentation. Each class of a picture is one region: objects are not told"
    " apart."
)
PICTURE_URL = "/data/local-files/?d="  # Label Studio's, for files of its own disk
MINIMUM_AREA = 10  # pixels; smaller polygons are seldom worth a person's time

Pictures = Callable[[str], bytes | None]  # the encoded picture of an id; None where it is gone


@dataclass(frozen=True)
class Description:
    """What formats need besides the records.

    Attributes:
        class_names: all classes, in the order of their numbers.
        tolerance: of polygons, in pixels, as ``regions_of`` explains it.
        minimum_area: pixels; smaller regions get no polygon, and smaller holes are filled.
        model: what made the labels, for formats that have a place for it.
        picture_url: what a picture's id is put behind to be opened by Label Studio.
    """

    class_names: Sequence[str]
    tolerance: float = TOLERANCE
    minimum_area: int = MINIMUM_AREA
    model: str = "tf-groupvit"
    picture_url: str = PICTURE_URL

    @cached_property
    def colors(self) -> list[tuple[int, int, int]]:
        """The color of each class; they repeat after 256."""
        return [tuple(color) for color in class_colors(self.class_names).tolist()]

    @cached_property
    def ignore(self) -> int:
        """The number of pixels of no class."""
        return ignore_value(len(self.class_names))

    @cached_property
    def drawn(self) -> list[int]:
        """The numbers of the classes that have regions: all but "background"."""
        return list(range(self.class_names[0] == BACKGROUND, len(self.class_names)))

    def labels(self, record: Record) -> np.ndarray:
        """(H, W) class numbers of a record."""
        return labels_of(record, len(self.class_names))

    def regions(self, record: Record) -> list[Region]:
        """The regions of a record as polygons, those without a class among them."""
        return regions_of(self.labels(record), self.tolerance, self.minimum_area)


def named(
    records: Iterable[Record], ending: str = ".png", with_pictures: bool = False
) -> Iterator[tuple[Record, str]]:
    """The records that have no error, each with the name of its files, without a suffix.

    It is the id without its suffix, where no other has it, in folders as the id is. Names are legal
    on every system, stay inside of their folder, and differ by more than capitals. No file is
    called as a folder of others is.

    Args:
        ending: what is put behind a name for its file.
        with_pictures: whether the picture's own suffix is, too.
    """
    # A database without a name is a temporary file: memory is bounded, however many names.
    with closing(sqlite3.connect("", isolation_level=None)) as taken:
        taken.execute("CREATE TABLE paths (path TEXT PRIMARY KEY, folder INT) WITHOUT ROWID")
        taken.execute("BEGIN")  # one transaction is quicker than one for each picture
        for record in records:
            if record.error is None:
                ends = {ending, suffix_of(record.id)} if with_pictures else {ending}
                yield record, next(name for name in _names(record.id) if _take(name, ends, taken))


def _take(name: str, endings: Iterable[str], taken: sqlite3.Connection) -> bool:
    """Whether the files of a name, and the folders around them, are free; they are not, then."""
    name = name.casefold()
    files = [f"{name}{ending.casefold()}" for ending in endings]
    folders = [name[:place] for place, sign in enumerate(name) if sign == "/"]
    rows = [(path, False) for path in files] + [(path, True) for path in folders]
    for path, is_folder in rows:
        row = taken.execute("SELECT folder FROM paths WHERE path = ?", [path]).fetchone()
        if row is not None and not (row[0] and is_folder):
            return False
    taken.executemany("INSERT OR IGNORE INTO paths VALUES (?, ?)", rows)
    return True


def _names(item_id: str) -> Iterator[str]:
    path = PurePosixPath("/".join(_legal(part) for part in item_id.split("/")))
    stem = str(path.with_suffix(""))
    digest = hashlib.sha256(item_id.encode()).hexdigest()
    yield stem
    if path.suffix:
        yield f"{stem}-{path.suffix[1:]}"
    for length in range(8, 65, 8):
        yield f"{stem}-{digest[:length]}"
    yield f"{path.stem}-{digest}"  # where one of its folders is called as a file is


RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # by Windows


def _legal(part: str) -> str:
    """A part of a path that every system takes as the name of a file."""
    part = re.sub(r'[\x00-\x1f\x7f<>:"|?*\\]', "_", part)
    part = re.sub("^[. ]+", "_", part).rstrip(". ") or "_"
    if RESERVED.fullmatch(part):
        part = f"_{part}"
    if len(part.encode()) > 120:
        suffix = PurePosixPath(part).suffix[:10]
        digest = hashlib.sha256(part.encode()).hexdigest()[:16]
        part = f"{part.encode()[:80].decode(errors='ignore')}-{digest}{suffix}"
    return part


def suffix_of(item_id: str) -> str:
    """The suffix of a picture's file, as .jpg."""
    return PurePosixPath(_legal(item_id.rpartition("/")[2])).suffix


def put_picture(
    output: Output, folder: str, record: Record, name: str, pictures: Pictures | None
) -> str:
    """The path of a picture below a folder: that of its copy, which is written, or its id."""
    if pictures is None:
        return record.id
    file = f"{name}{suffix_of(record.id)}"
    content = pictures(record.id)
    if content is not None:
        output.write(f"{folder}/{file}".lstrip("/"), content)
    return file


def scores_of(record: Record) -> dict[int, float | None]:
    """{class number: its score}; None, as JSON has nothing else, for one that is no number."""
    scores = zip(record.classes, record.scores, strict=True)
    return {number: score if isfinite(score) else None for number, score in scores}


def to_json(value: Any) -> bytes:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


class JsonItems:
    """The items of a JSON array, written one by one; the brackets are the caller's."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._before = b"\n"

    def add(self, item: Any) -> None:
        self._file.write(self._before + to_json(item))
        self._before = b",\n"
