"""Bytes and a path in, a whole file out or none: written beside and renamed."""

import os
from pathlib import Path

from tf_groupvit.errors import InputError


def check_place(path: Path) -> None:
    """Refuse a path that ``write_whole`` could not write to, as far as can be told before there is something to write.

    Raises ``InputError`` where the folder is missing or write-protected, or the path is a folder.
    """
    if not path.parent.is_dir():
        raise InputError(f"There is no folder '{path.parent}' to write '{path.name}' into: make it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"The folder '{path.parent}' is write-protected: write '{path.name}' elsewhere.")
    if path.is_dir():
        raise InputError(f"'{path}' is a folder: give the name of a file in it.")


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; whoever looks there finds the old file or the whole new one.

    Raises ``InputError`` as ``check_place`` does, and where it cannot be written for another reason.
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
