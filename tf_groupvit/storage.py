"""Where results go: a folder of this disk, or of any storage that fsspec reaches.

A file appears whole or not at all: on a disk it is written beside and renamed, elsewhere it is
there when its upload ends.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tf_groupvit.errors import InputError, one_line
from tf_groupvit.files import atomic_write, make_folder, replacing


def place_of(location: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path in it, without a slash at its end.

    Raises InputError for a kind of URL that is unknown, or whose package is not installed.
    """
    if "://" not in location:
        return LocalFileSystem(), os.path.abspath(location)
    try:
        system, path = fsspec.core.url_to_fs(location)
    except ImportError as error:
        raise InputError(f"'{location}' needs another package: {one_line(error)}.") from error
    except Exception as error:  # each file system has its own words for what it cannot take
        raise InputError(f"'{location}' cannot be opened: {one_line(error)}.") from error
    return system, path.rstrip("/")


class Output:
    """A folder that files are written to, by names with forward slashes."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location)
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
