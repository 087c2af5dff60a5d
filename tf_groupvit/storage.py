"""Files of this disk, and of any storage that fsspec reaches: what is there, and where results go.

A location is a path, or a URL such as ``s3://bucket/photos``. Each storage has errors of its own.
A file that is written appears whole or not at all: on a disk it is written beside and renamed,
elsewhere it is there when its upload ends.
"""

import glob
import os
import posixpath
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from tf_groupvit.errors import GroupViTError, InputError, one_line
from tf_groupvit.files import atomic_write, make_folder, replacing, tar_members

if TYPE_CHECKING:
    import pyarrow


def place_of(location: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or URL, and the path in it, without a slash at its end.

    Raises InputError for a kind of URL that is unknown, or whose package is not installed.
    """
    if not is_url(location):
        return LocalFileSystem(), os.path.abspath(location)
    try:
        system, path = fsspec.core.url_to_fs(location)
    except ImportError as error:
        raise InputError(f"'{location}' needs another package: {one_line(error)}.") from error
    except Exception as error:  # each file system has its own words for what it cannot take
        raise InputError(f"'{location}' cannot be opened: {one_line(error)}.") from error
    return system, path.rstrip("/")


def is_url(location: str) -> bool:
    """Whether a location is a URL, not a path of this disk."""
    return "://" in location


def name_of(location: str) -> str:
    """The last part of a path."""
    return location.rstrip("/").rpartition("/")[2]


def beside(location: str, name: str) -> str:
    """Where the file ``name`` is that a file at ``location`` speaks of: relative to its folder."""
    if is_url(name):
        return name
    if not is_url(location):
        return str(Path(location).parent / name)
    if name.startswith("/"):
        return name
    scheme, separator, path = location.rpartition("://")
    return scheme + separator + posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


def kind_of(location: str) -> str:
    """``file``, ``directory``, or nothing where nothing is there."""
    system, path = place_of(location)
    try:
        return str(system.info(path)["type"])
    except FileNotFoundError:
        return ""


def matching(pattern: str) -> list[str]:
    """The locations that one with wildcards stands for, in order; itself where it has none.

    Empty where nothing is there.
    """
    if not is_url(pattern):
        names = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        return [name for name in names if os.path.exists(name)]
    system, path = place_of(pattern)
    if not glob.has_magic(path):
        return [pattern] if system.exists(path) else []
    return [_like(pattern, system, found) for found in sorted(system.glob(path))]


def listed(folder: str) -> list[tuple[str, bool]]:
    """What is in a folder, in order: each location, and whether it is a folder itself."""
    if not is_url(folder):
        with os.scandir(folder) as entries:
            return sorted((os.path.join(folder, one.name), one.is_dir()) for one in entries)
    system, path = place_of(folder)
    entries = system.ls(path, detail=True)
    found = ((_like(folder, system, one["name"]), one["type"] == "directory") for one in entries)
    return sorted(one for one in found if one[0].rstrip("/") != folder.rstrip("/"))


def _like(location: str, system: AbstractFileSystem, path: str) -> str:
    """A path in the storage of a URL, as a URL of the same kind."""
    if is_url(path) or isinstance(system, LocalFileSystem):
        return path
    return location[: location.rindex("://") + 3] + path.lstrip("/").rstrip("/")


def reason_of(error: Exception) -> str:
    """Why something cannot be read, in a line without a full stop at its end."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or folder"
    if isinstance(error, GroupViTError):
        return str(error).rstrip(".")
    reason = getattr(error, "strerror", None)
    return (reason or one_line(error)).rstrip(".") or type(error).__name__


# Whole files, parts, members of a tar, and cells of a table


def bytes_of(location: str, start: int = 0, length: int | None = None) -> bytes:
    """A file, or a part of it, which may be shorter than ``length`` where the file ends."""
    if not is_url(location):  # half the time that fsspec takes for a small part
        with open(location, "rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)
    system, path = place_of(location)
    content: bytes = system.cat_file(
        path, start=start, end=None if length is None else start + length
    )
    return content


def span(system: AbstractFileSystem, path: str, start: int, length: int) -> bytes:
    """A part of a shard. Raises InputError where the shard ends before the part does."""
    content: bytes = system.cat_file(path, start=start, end=start + length)
    if len(content) < length:
        raise InputError(f"the shard ends {length - len(content):,} bytes before the picture does")
    return content


def members(system: AbstractFileSystem, path: str, problem: list[str]) -> Iterator[tarfile.TarInfo]:
    """The files of an uncompressed tar, as ``files.tar_members`` gives them."""
    with system.open(path, "rb") as file:
        yield from tar_members(file, system.size(path), problem)


def holds_pictures(kind: "pyarrow.DataType") -> bool:
    """Whether a column of this type can hold pictures: bytes, addresses, or both in a struct."""
    import pyarrow as pa

    readable = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    readable |= pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(readable or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0))


def picture_of(value: Any, system: AbstractFileSystem, path: str) -> bytes:
    """The bytes of a picture from a cell of the Parquet file at ``path``.

    Raises InputError where the cell is empty.
    """
    if isinstance(value, dict):
        value = value["bytes"] or value.get("path")
    if isinstance(value, str):
        elsewhere = value.startswith("/") or is_url(value)
        system, path = place_of(value) if elsewhere else (system, beside(path, value))
        value = system.cat_file(path)
    if value is None:
        raise InputError("its row holds no picture")
    content: bytes = value
    return content


class Output:
    """A folder that files are written to, by names with forward slashes."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location)
        if not self.location.strip():
            raise InputError("The output has no name: name a folder or a URL.")
        self.system, self.root = place_of(self.location)
        self.folder = Path(self.root) if isinstance(self.system, LocalFileSystem) else None

    def path(self, name: str) -> str:
        """The path of a file in ``system``."""
        return f"{self.root}/{name}"

    def write(self, name: str, content: str | bytes) -> None:
        """Write a small file. Raises InputError where it cannot be written."""
        data = content.encode() if isinstance(content, str) else content
        if self.folder is not None:
            file = self.folder / name
            atomic_write(make_folder(file.parent) / file.name, data)
            return
        with self._said(name, "written"):
            self.system.pipe_file(self.path(name), data)

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """A file to write to piece by piece, which is there once the block has ended well.

        For other storages the pieces are gathered in a temporary file of this disk.
        """
        with self._said(name, "written"):
            if self.folder is not None:
                file = self.folder / name
                make_folder(file.parent)
                with replacing(file) as unfinished, open(unfinished, "wb") as pieces:
                    yield pieces
                return
            with tempfile.NamedTemporaryFile() as gathered:
                yield gathered
                gathered.flush()
                self.system.put_file(gathered.name, self.path(name))

    def read(self, name: str) -> bytes:
        """The content of a file. Raises InputError where it cannot be read."""
        with self._said(name, "read"):
            content: bytes = self.system.cat_file(self.path(name))
            return content

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file to read parts of. Raises InputError where it cannot be opened."""
        with self._said(name, "read"):
            file = self.system.open(self.path(name), "rb")
        with file:
            yield file

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        with self._said(name, "read"):
            return bool(self.system.isfile(self.path(name)))

    def names(self, folder: str = "") -> list[str]:
        """The names of what a folder holds, in order: none where there is no such folder.

        Hidden files are left out, as unfinished ones are.
        """
        with self._said(folder, "read"):
            path = self.path(folder).rstrip("/")
            try:
                found = self.system.ls(path, detail=False)
            except FileNotFoundError:
                return []
            if [one.rstrip("/") for one in found] == [path]:
                raise InputError(f"'{self.location}' is a file: name a folder.")
        names = {path.rstrip("/").rpartition("/")[2] for path in found}
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Delete a file."""
        with self._said(name, "deleted"):
            self.system.rm_file(self.path(name))

    @contextmanager
    def _said(self, name: str, what: str) -> Iterator[None]:
        """What a storage refuses becomes one line of ours."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # each storage has errors of its own
            reason = getattr(error, "strerror", None) or one_line(error)
            shown = f"{self.location.rstrip('/')}/{name}".rstrip("/")
            raise InputError(f"'{shown}' cannot be {what}: {reason}.") from error
