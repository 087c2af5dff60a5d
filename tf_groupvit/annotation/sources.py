"""Where pictures come from: files, folders, patterns, lists, tar shards, Parquet, on any storage.

Nothing is read before it is needed: of a picture only its name, of a shard only its headers.
"""

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from tf_groupvit.annotation.manifest import MANIFEST, START, is_manifest
from tf_groupvit.errors import InputError
from tf_groupvit.files import IMAGE_SUFFIXES, is_junk, split_key
from tf_groupvit.storage import (
    holds_pictures,
    members,
    name_of,
    picture_of,
    place_of,
    reason_of,
    span,
)

LIST, TAR, PARQUET = ".txt", ".tar", ".parquet"
COLUMNS = ("image", "bytes", "jpg", "png", "path", "url", "file_name")  # unless one is named
ID_COLUMN = "id"
ENDINGS = f"none ends in {', '.join((*IMAGE_SUFFIXES, TAR, PARQUET))}"
MOST_NAMED = 3  # folders that a message about them names
MOST_LOOKED_AT = 100  # folders that are looked into for such a message

Say = Callable[[str], object]


@dataclass(frozen=True)
class Item:
    """A picture that there is: its id, and what reads its bytes. It can be pickled."""

    id: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Problem:
    """A source, or a part of one, whose pictures cannot be found."""

    source: str
    reason: str


Found = Item | Problem


def find_items(
    locations: Sequence[str],
    recursive: bool = False,
    column: str | None = None,
    say: Say = lambda _: None,
) -> Iterator[Found]:
    """The pictures of all locations, in an order that stays the same, found as they are asked for.

    A location is a path, or a URL that fsspec opens (``s3://bucket/photos``):

    * a picture, whatever its name;
    * a folder: its pictures, tar shards and Parquet files by their suffixes; with ``recursive``
      those of the folders below it, too. Hidden files, links to folders, and folders that
      ``annotate`` has written are left out;
    * a pattern with ``*``, ``?``, ``[...]`` or ``**``, unless something has just that name;
    * a list: a text file with a location of one picture or shard a line, ``.txt`` or any file
      behind ``@``. Relative ones count from the folder of the list;
    * an uncompressed tar of pictures (WebDataset);
    * a Parquet file with a column of encoded pictures, of ``{"bytes", "path"}``, or of addresses.

    The id of a picture is its path within the only location, its suffix included. Of several
    locations, the location as it is written goes before it. In a shard or a Parquet file that is
    not the only location, its path does so, too. A row of Parquet is called by its column ``id``,
    or, where that is empty or missing, by its number.

    Args:
        column: of Parquet files; unless given, the first of ``COLUMNS`` that there is.
        say: is told what is left out.
    """
    search = _Search(recursive, column, say)
    for location in locations:
        yield from _or_problem(location, search.location(location, several=len(locations) > 1))


def _or_problem(source: str, found: Iterator[Found]) -> Iterator[Found]:
    """What is found; where that ends in an error, the last is a problem of the source."""
    try:
        yield from found
    except Exception as error:  # each storage has errors of its own
        yield Problem(source, reason_of(error))


def count_items(find: Callable[[], Iterator[Found]]) -> int | None:
    """How many pictures there are; None where one would have to read whole shards for that."""
    count = 0
    for one in find():
        if isinstance(one, Item):
            read = one.read
            if isinstance(read, partial) and read.func is span and not _is_disk(read.args[0]):
                return None
            count += 1
    return count


def check_found(find: Callable[[], Iterator[Found]], column: str | None = None) -> None:
    """Raise ``InputError`` where there is no picture at all, with the reason if there is one.

    Or where a column is named and none is in Parquet.
    """
    problems, found = [], False
    for one in find():
        if isinstance(one, Problem):
            problems.append(f"{one.source}: {one.reason}")
        elif column is None or getattr(one.read, "func", None) is _cell:
            return
        else:
            found = True
    if found and problems:
        return
    if found:
        raise InputError(
            f"The column '{column}' is of Parquet files, and there is none: leave it out."
        )
    raise InputError(f"There is no picture to annotate: {problems[0] if problems else ENDINGS}.")


class PictureFinder:
    """The bytes of pictures by their ids, each once, in about the order in which they are found.

    What was passed on the way to a picture is remembered, without its bytes. Calling it raises
    ``InputError`` where the picture is gone.
    """

    def __init__(self, found: Iterator[Found]) -> None:
        self._found, self._passed = found, dict[str, Item]()

    def __call__(self, item_id: str) -> bytes:
        while item_id not in self._passed:
            one = next(self._found, None)
            if one is None:
                raise InputError("the picture is not there any more")
            if isinstance(one, Item):
                self._passed.setdefault(one.id, one)
        return self._passed.pop(item_id).read()


def picture_id(*parts: str) -> str:
    """An id from parts of a path: with forward slashes, relative, and never outside of a folder.

    What cannot be written as UTF-8 is escaped.
    """
    text = "/".join(parts).rpartition("://")[2]
    names = [name for name in text.split("/") if name not in ("", ".", "..")]
    return "/".join(names).encode("utf-8", "backslashreplace").decode() or "image"


@dataclass(frozen=True)
class _Search:
    recursive: bool
    column: str | None
    say: Say
    known: dict[tuple[AbstractFileSystem, str], str] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def location(self, location: str, several: bool) -> Iterator[Found]:
        """What one location means."""
        if not location:
            raise InputError("a location is empty: name a file, a folder, a pattern or a URL")
        marked = location.startswith("@")
        system, path = place_of(location.removeprefix("@"))
        prefix = location.removeprefix("@").rstrip("/") if several else ""
        kind = _kind_of(system, path)
        if marked or (kind == "file" and path.lower().endswith(LIST)):
            yield from self._list(system, path, prefix.rpartition("/")[0])
        elif kind == "directory":
            if self._written(system, path):
                raise InputError("annotate has written this folder: name that of the pictures")
            yield from self._folder(system, path, prefix)
        elif kind == "file" and (ours := self._written(system, path.rpartition("/")[0])):
            self._say_written(ours)
        elif kind == "file":
            yield from self._file(system, path, picture_id(prefix or name_of(path)), prefix)
        elif any(sign in path for sign in "*?["):
            yield from self._pattern(system, path, prefix)
        elif location == "-":
            raise InputError("standard input is not read: name paths or URLs")
        else:
            raise FileNotFoundError(path)

    def _file(
        self, system: AbstractFileSystem, path: str, item_id: str, prefix: str
    ) -> Iterator[Found]:
        """A picture, or those of a shard, whose ids begin with ``prefix``."""
        suffix = _suffix(path)
        if suffix == TAR:
            yield from _in_tar(system, path, prefix)
        elif suffix == PARQUET:
            yield from _in_parquet(system, path, prefix, self.column)
        else:
            yield Item(item_id, partial(system.cat_file, path))

    def _folder(
        self, system: AbstractFileSystem, folder: str, prefix: str, inner: str = ""
    ) -> Iterator[Found]:
        """What a folder holds; ``inner`` is its path below the one that was named."""
        entries = sorted(system.ls(folder, detail=True), key=lambda entry: entry["name"])
        entries = [entry for entry in entries if not is_junk(name_of(entry["name"]))]
        if MANIFEST in (name_of(entry["name"]) for entry in entries) and _is_ours(system, folder):
            self._say_written(inner or folder)
            return
        below = []
        for entry in entries:
            path = entry["name"].rstrip("/")
            inside = f"{inner}/{name_of(path)}".lstrip("/")
            if entry["type"] == "directory":
                below.append((path, inside))
            elif _is_wanted(path) and _is_file(system, entry):
                item_id = picture_id(prefix, inside)
                yield from _or_problem(item_id, self._file(system, path, item_id, item_id))
        if not self.recursive:
            self._say_left_out(system, folder, [path for path, _ in below])
            return
        for path, inside in below:
            name = picture_id(prefix, inside)
            yield from _or_problem(name, self._folder(system, path, prefix, inside))

    def _written(self, system: AbstractFileSystem, folder: str) -> str:
        """The folder of ``annotate`` that this one is or is in, else an empty text."""
        if not folder or "://" in folder:  # of HTTP; nothing is written there
            return ""
        key = system, folder
        if key not in self.known:
            ours = _is_ours(system, folder)
            self.known[key] = folder if ours else self._written(system, folder.rpartition("/")[0])
        return self.known[key]

    def _say_written(self, folder: str) -> None:
        if folder not in self.said:
            self.said.add(folder)
            self.say(f"Left out: '{folder}', which annotate has written")

    def _say_left_out(self, system: AbstractFileSystem, folder: str, below: list[str]) -> None:
        if len(below) <= MOST_LOOKED_AT:
            below = [path for path in below if not _is_ours(system, path)]
        if below:
            more = ", ..." if len(below) > MOST_NAMED else ""
            names = ", ".join(map(name_of, below[:MOST_NAMED])) + more
            self.say(f"Left out of '{folder}': folders below it ({names}); --recursive takes them")

    def _pattern(self, system: AbstractFileSystem, pattern: str, prefix: str) -> Iterator[Found]:
        found = system.glob(pattern, detail=True)
        if not found:
            raise InputError("no file matches: check the pattern and its folder")
        before = _fixed_part(pattern)
        prefix = _fixed_part(prefix).rstrip("/")
        for path, entry in sorted(found.items()):
            inside = path[len(before) :]
            item_id = picture_id(prefix, inside)
            ours = self._written(system, path.rpartition("/")[0])
            if ours:
                self._say_written(ours)
            if ours or is_junk(inside):
                continue
            if _is_file(system, entry):
                yield from _or_problem(item_id, self._file(system, path, item_id, item_id))
            elif self.recursive and entry["type"] == "directory":
                yield from _or_problem(item_id, self._folder(system, path, item_id))

    def _list(self, system: AbstractFileSystem, path: str, prefix: str) -> Iterator[Found]:
        folder = path.rpartition("/")[0]
        with system.open(path, "r", encoding="utf-8-sig") as lines:
            for line in lines:
                line = line.strip()
                if not line:
                    continue
                yield from _or_problem(line, self._listed(system, folder, line, prefix))

    def _listed(
        self, system: AbstractFileSystem, folder: str, line: str, prefix: str
    ) -> Iterator[Found]:
        """What a line of a list means."""
        place = (system, f"{folder}/{line}")
        if line.startswith("/") or "://" in line:
            place = place_of(line)
        item_id = picture_id(prefix, line)
        yield from self._file(*place, item_id, item_id)


# Parts of paths, and what is there


def _is_disk(system: AbstractFileSystem) -> bool:
    return isinstance(system, LocalFileSystem)


def _suffix(path: str) -> str:
    _, dot, suffix = name_of(path).rpartition(".")
    return (dot + suffix).lower()


def _is_wanted(path: str) -> bool:
    return _suffix(path) in (*IMAGE_SUFFIXES, TAR, PARQUET)


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before the first part with a sign in it, with a slash at the end."""
    first = min((pattern.find(sign) for sign in "*?[" if sign in pattern), default=len(pattern))
    return pattern[: pattern.rfind("/", 0, first) + 1]


def _kind_of(system: AbstractFileSystem, path: str) -> str:
    """ "file", "directory" or another; empty where there is nothing, or only links in a circle."""
    try:
        return str(system.info(path)["type"])
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno == errno.ELOOP:
            return ""
        raise


def _is_file(system: AbstractFileSystem, entry: dict[str, Any]) -> bool:
    """Whether an entry of a folder is a file or a link to one; a link to nothing counts, too."""
    if entry.get("islink"):
        return _kind_of(system, entry["name"]) in ("file", "")
    return bool(entry["type"] == "file")


def _is_ours(system: AbstractFileSystem, folder: str) -> bool:
    """Whether ``annotate`` has written a folder."""
    try:
        return is_manifest(system.cat_file(f"{folder}/{MANIFEST}", start=0, end=START))
    except Exception:  # there is none, or none that may be read
        return False


# Shards


def _in_tar(system: AbstractFileSystem, path: str, prefix: str) -> Iterator[Found]:
    """The pictures of an uncompressed tar, also of one that is cut short.

    Of members of one key, those that have only the suffix of a picture behind it are taken:
    ``000.jpg`` and not ``000.mask.png``.
    """
    problem: list[str] = []
    inside = members(system, path, problem)
    for _, group in groupby(inside, lambda member: split_key(member.name)[0]):
        pictures = [member for member in group if _suffix(member.name) in IMAGE_SUFFIXES]
        pure = [one for one in pictures if f".{split_key(one.name)[1]}" in IMAGE_SUFFIXES]
        for member in pure or pictures:
            read = partial(span, system, path, member.offset_data, member.size)
            yield Item(picture_id(prefix, member.name), read)
    if problem:
        yield Problem(prefix or name_of(path), problem[0])


def _in_parquet(
    system: AbstractFileSystem, path: str, prefix: str, column: str | None
) -> Iterator[Found]:
    """A picture for each row."""
    with system.open(path, "rb") as file:
        table = pyarrow.parquet.ParquetFile(file)
        column = _picture_column(table.schema_arrow, column)
        named = ID_COLUMN in table.schema_arrow.names
        row, state = 0, system.ukey(path)
        for group in range(table.metadata.num_row_groups):
            rows = range(table.metadata.row_group(group).num_rows)
            ids = [str(row + at) for at in rows]
            if named:
                given = table.read_row_group(group, [ID_COLUMN])[0].to_pylist()
                ids = [
                    str(own) if own not in (None, "") else number
                    for own, number in zip(given, ids, strict=True)
                ]
            for at, item_id in enumerate(ids):
                read = partial(_cell, system, path, state, column, group, at)
                yield Item(picture_id(prefix, item_id), read)
            row += len(rows)


def _picture_column(schema: pa.Schema, wanted: str | None) -> str:
    column = wanted or next((name for name in COLUMNS if name in schema.names), None)
    if column not in schema.names:
        asked = f"has no column '{wanted}'" if wanted else "has no column that is known to be one"
        raise InputError(
            f"it {asked} of pictures, but {', '.join(schema.names)}: name one (column)"
        )
    kind = schema.field(column).type
    if not holds_pictures(kind):
        raise InputError(
            f"its column '{column}' is {kind}: expected bytes or addresses of pictures"
        )
    return str(column)


def _cell(
    system: AbstractFileSystem, path: str, state: str, column: str, group: int, row: int
) -> bytes:
    with _ONE_READS:  # several would read one group several times
        cells = _row_group(system, path, state, column, group)
    return picture_of(cells[row].as_py(), system, path)


_ONE_READS = threading.Lock()


@lru_cache(maxsize=2)
def _row_group(
    system: AbstractFileSystem, path: str, state: str, column: str, group: int
) -> pa.ChunkedArray:
    """A column of some rows; ``state`` differs where another file has taken the place of one."""
    with system.open(path, "rb") as file:
        return pyarrow.parquet.ParquetFile(file).read_row_group(group, [column])[0]
