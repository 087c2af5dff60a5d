"""Files and folders: written whole or not at all, JSON read within bounds, names that are data.

Each function takes the class of the error that it raises.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tf_groupvit.errors import GroupViTError, InputError, one_line

GRAPH_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")  # TensorFlow decodes them
IMAGE_SUFFIXES = (*GRAPH_IMAGE_SUFFIXES, ".tif", ".tiff")  # and Pillow these too
EXIF_ORIENTATION = 0x0112  # EXIF 2.32, table 4: the tag; its values from 5 on swap the sides
LONGEST_JSON = 2**24  # bytes; the tokenizer.json of CLIP has 2 million
LONGEST_LIST = 2**24  # bytes; the names of COCO's 118,287 training images have 2 million

Error = type[GroupViTError]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when the block ends well.

    It is deleted when the block does not; an older file stays until then.
    """
    unfinished = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def atomic_write(path: Path, content: str | bytes, error: Error = InputError) -> None:
    """Write ``content`` to ``path``: readers find the old file or the whole new one.

    Text is written as UTF-8. Raises ``error`` as ``check_place`` does, and where the file cannot be
    written for another reason.
    """
    check_place(path, error)
    with _refused(f"'{path}' cannot be written", error), replacing(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def check_place(path: Path, error: Error = InputError) -> None:
    """Raise ``error`` where ``atomic_write`` could not write to ``path``.

    That is what can be known before there is something to write: the folder is missing or
    write-protected, or the path is a folder or a device.
    """
    with _refused(f"'{path}' cannot be written", error, "choose another"):
        if not path.parent.is_dir():
            raise error(
                f"There is no folder '{path.parent}' to write '{path.name}' into: make it first."
            )
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise error(
                f"The folder '{path.parent}' is write-protected: write '{path.name}' elsewhere."
            )
        if path.is_dir():
            raise error(f"'{path}' is a folder: give the name of a file in it.")
        if path.exists() and not path.is_file():
            raise error(f"'{path}' is a device or a pipe: give the name of a file.")


def check_folder(folder: str | os.PathLike[str], error: Error = InputError) -> None:
    """Raise ``error`` where ``make_folder`` could not make the folder, without making it."""
    whole = Path(folder).absolute()
    with _refused(f"The folder '{folder}' cannot be made", error, "choose another"):
        there = next(place for place in (whole, *whole.parents) if place.exists())
        if not there.is_dir():
            raise error(
                f"The folder '{folder}' cannot be made: '{there}' is no folder: choose another."
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise error(f"The folder '{folder}' is write-protected: choose another.")


def make_folder(folder: str | os.PathLike[str], error: Error = InputError) -> Path:
    """The folder, made if it is missing. Raises ``error`` if it cannot be, or takes no files."""
    check_folder(folder, error)
    with _refused(f"The folder '{folder}' cannot be made", error, "choose another"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    check_folder(folder, error)
    return Path(folder)


def read_json(file: Path, error: Error) -> dict[str, Any]:
    """The JSON object in ``file``, with or without a byte order mark.

    Raises ``error``: no such file, a device or a pipe, a pointer of git-lfs, over 16 MiB, not JSON,
    or not an object.
    """
    if file.exists() and not file.is_file() and not file.is_dir():  # it might never end
        raise error(f"{file} is a device or a pipe: expected a JSON file.")
    refuse_pointer(file, error)
    with _refused(f"{file} cannot be read", error, "expected a JSON file"):
        size = file.stat().st_size
        if size > LONGEST_JSON:
            raise error(
                f"{file} has {size:,} bytes: expected JSON, at most {LONGEST_JSON:,} bytes."
            )
        content = file.read_bytes()
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as failure:
        raise error(f"{file} is not valid JSON ({one_line(failure)}): fetch it again.") from failure
    if not isinstance(values, dict):
        raise error(f"{file} holds a {type(values).__name__}: expected a JSON object.")
    return values


def read_lines(path: Path, error: Error, advice: str = "") -> list[str]:
    """The lines of a text in UTF-8, with or without a byte order mark.

    Blanks around a line are dropped, and so are empty lines. ``path`` may also be a pipe.

    Raises ``error``, which ends with ``advice``: no such file, a pointer of git-lfs, over 16 MiB,
    or not a text in UTF-8.
    """
    end = advice and f": {advice}"
    if not os.path.exists(path):
        raise error(f"{path}: there is no such file{end}.")
    refuse_pointer(path, error)
    with _refused(f"{path} cannot be read", error, advice), open(path, "rb") as file:
        content = file.read(LONGEST_LIST + 1)
    if len(content) > LONGEST_LIST:
        raise error(f"{path} has over {LONGEST_LIST:,} bytes{end}.")
    try:
        text = content.decode("utf-8-sig")
    except ValueError as failure:
        raise error(f"{path} is not a text in UTF-8{end}.") from failure
    if "\0" in text:
        raise error(f"{path} is not a text, it has zero bytes{end}.")
    return lines_of(text)


def lines_of(text: str) -> list[str]:
    """The lines of a text without the blanks around them, and without empty ones."""
    lines = text.replace("\r", "\n").split("\n")
    return [line.strip() for line in lines if line.strip()]


def is_pointer(start: bytes) -> bool:
    """Whether a file with this start is a pointer of git-lfs, which takes a large file's place."""
    return start.startswith(b"version ") and b"git-lfs" in start[:64]


def refuse_pointer(path: Path, error: Error) -> None:
    """Raise ``error`` where ``path`` is a pointer of git-lfs; an unreadable file is passed over."""
    try:
        if not path.is_file():  # what is read from a pipe would be gone
            return
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError:
        return
    if is_pointer(start):
        raise error(
            f"{path} is a pointer of git-lfs, not the file itself: run 'git lfs pull' in its"
            " folder."
        )


@contextmanager
def _refused(what: str, error: Error, advice: str = "") -> Iterator[None]:
    """An error of the system becomes one line of ours."""
    try:
        yield
    except OSError as failure:
        reason = failure.strerror or one_line(failure)
        raise error(f"{what}: {reason}{advice and f': {advice}'}.") from failure


# What systems and programs leave among files, besides names that begin with a dot (``._x``).
JUNK = ("__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini")


def is_junk(path: str) -> bool:
    """Whether a path below the root of some data is hidden or in ``JUNK``, or in such a folder."""
    parts = path.replace("\\", "/").split("/")
    return any(
        (part.startswith(".") and part.strip(".") != "") or part.lower() in JUNK for part in parts
    )


def tar_members(file: IO[bytes], size: int, problem: list[str]) -> Iterator[tarfile.TarInfo]:
    """The files of an uncompressed tar of ``size`` bytes whose data is whole, without junk.

    Only headers are read. What is wrong with the tar goes into ``problem``; what comes before that
    is given.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # else all headers stay in memory
                if member.offset_data + member.size > size:
                    break  # tarfile itself says so when it looks for the next header
                if member.isfile() and not is_junk(member.name):
                    yield member
            end = tar.offset
        # An empty block marks the end of an archive; tarfile takes whatever is no header for one.
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE).ljust(tarfile.BLOCKSIZE, b"?")):
            problem.append(f"the shard is cut short or damaged from byte {min(end, size):,} on")
    except (OSError, tarfile.TarError) as error:
        problem.append(f"the shard is cut short or damaged: {error}")


def split_key(name: str) -> tuple[str, str]:
    """The key of a member of a WebDataset shard, and what is behind its first dot.

    ``a.b/000.seg.png`` -> (``a.b/000``, ``seg.png``).
    """
    folder, _, base = name.rpartition("/")
    key, _, part = base.partition(".")
    return f"{folder}/{key}" if folder else key, part.lower()


def first_in_doubt(names: Iterable[str]) -> tuple[int, str, str] | None:
    """Where sorting names as strings and as file managers do differs for the first time.

    Strings have ``10.jpg`` before ``2.jpg``; file managers sort numbers by value, and capitals as
    small letters. Returns the place, counted from 0, and the names there in both orders; None where
    both agree.
    """

    def natural(name: str) -> list[tuple[int, int]]:
        parts = re.findall(r"\d+|\D", name.casefold())
        return [(ord("0"), int(part)) if part.isdecimal() else (ord(part), 0) for part in parts]

    by_letter = sorted(names)
    pairs = enumerate(zip(by_letter, sorted(by_letter, key=natural), strict=True))
    return next(((place, one, other) for place, (one, other) in pairs if one != other), None)
