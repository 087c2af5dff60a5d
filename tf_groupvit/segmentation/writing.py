"""Bytes and a path in, a whole file out or none: written beside and renamed; and folders for files
to come.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_groupvit.errors import InputError


def check_place(path: Path) -> None:
    """Refuse a path that ``write_whole`` could not write to, as far as can be told before there is
    something to write.

    Raises ``InputError`` where the folder is missing or write-protected, or the path is a folder or
    a device.
    """
    with _refused(f"'{path}' cannot be written"):
        if not path.parent.is_dir():
            raise InputError(
                f"There is no folder '{path.parent}' to write '{path.name}' into: make it first."
            )
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise InputError(
                f"The folder '{path.parent}' is write-protected: write '{path.name}' elsewhere."
            )
        if path.is_dir():
            raise InputError(f"'{path}' is a folder: give the name of a file in it.")
        if path.exists() and not path.is_file():
            raise InputError(f"'{path}' is a device or a pipe: give the name of a file.")


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that ``make_folder`` could not make, as far as can be told without making it."""
    whole = Path(folder).absolute()
    with _refused(f"The folder '{folder}' cannot be made"):
        there = next(place for place in (whole, *whole.parents) if place.exists())
        if not there.is_dir():
            raise InputError(
                f"The folder '{folder}' cannot be made: '{there}' is no folder: choose another."
            )
    _check_access(folder, there)


def make_folder(folder: str | Path) -> Path:
    """The folder, made if it is missing. Raises ``InputError`` if it cannot be, or takes no files."""
    check_folder(folder)
    with _refused(f"The folder '{folder}' cannot be made"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    _check_access(folder, Path(folder))
    return Path(folder)


def _check_access(folder: str | Path, there: Path) -> None:
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"The folder '{folder}' is write-protected: choose another.")


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """What the system refuses becomes one line of ours."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}: choose another.") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; whoever looks there finds the old file or the whole new one.

    Raises ``InputError`` as ``check_place`` does, and where it cannot be written for another
    reason.
    """
    check_place(path)
    beside = path.with_name(f".{path.name[:100]}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except BaseException as error:  # Ctrl-C, too, leaves nothing half-written
        beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise InputError(f"'{path}' cannot be written: {error.strerror or error}.") from error
