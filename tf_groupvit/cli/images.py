"""The IMAGE arguments of a command in; every image worked on, the bad ones reported, lines or JSON
printed.
"""

import glob
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import click
from tqdm import tqdm

from tf_groupvit.cli.outputs import KINDS
from tf_groupvit.errors import ImageError, InputError, RequestError
from tf_groupvit.files import IMAGE_SUFFIXES
from tf_groupvit.segmentation.overlay import VIEWS

OUTPUT = re.compile(rf"(?P<name>.+)\.((?P<kind>{'|'.join((*KINDS, *VIEWS))})\.png|json)")
BAR = "{n} of {total} images |{bar}| {elapsed}<{remaining}"
FASTEST = 0.1  # seconds between two looks of the bar
MOST_LOOKED_AT = 10_000  # files below a folder, for a word on those that are left out
EVERY = 10.0  # seconds between two lines of progress, where there is no terminal
# A server's answers that concern every image alike: there is no use in going on.
HOPELESS = (
    "UNAVAILABLE",
    "NOT_FOUND",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "UNIMPLEMENTED",
    "FAILED_PRECONDITION",
)


def find_images(arguments: Sequence[str], recursive: bool = False) -> list[str]:
    """Files as they are, "-" for standard input, the images of a folder, what a pattern matches, in
    order.

    A path that exists is taken as it is written, whatever its name. With ``recursive``, the folders
    below a folder count, too. What an earlier run has written, and folders that are left out, are
    told on standard error. A file that is not there stays in the list, to be reported in its turn.
    Raises ``InputError`` for a folder without images and a pattern that matches nothing.
    """
    found: list[str] = []
    for argument in arguments:
        if not argument:
            raise InputError(
                "An IMAGE is empty: name a file, a folder, a pattern, or - for standard input."
            )
        if argument == "-" or Path(argument).is_file():
            found.append(argument)
        elif Path(argument).is_dir():
            found += _in_folder(argument, recursive)
        elif any(sign in argument for sign in "*?["):
            matches = _matching(argument, recursive)
            if not matches:
                raise InputError(f"No file matches '{argument}': check the pattern and its folder.")
            found += matches
        else:
            found.append(argument)
    return found


def _in_folder(folder: str, recursive: bool) -> list[str]:
    paths = sorted(Path(folder).rglob("*") if recursive else Path(folder).iterdir())
    images = [
        path for path in paths if _is_image(path) and not _is_hidden(path.relative_to(folder))
    ]
    kept = _without_outputs(list(map(str, images)), folder)
    below = [] if recursive else [path for path in paths if path.is_dir() and _holds_images(path)]
    if not kept:
        if images:
            what = (
                "holds nothing but what an earlier run has written: name another, or one of its"
                " files"
            )
        elif below:
            what = (
                f"holds no images itself, but '{below[0].name}' in it does: name that folder, or"
                " give --recursive"
            )
        else:
            what = f"holds no images ({', '.join(IMAGE_SUFFIXES)}): name another"
        raise InputError(f"The folder '{folder}' {what}.")
    _tell_of_folders(folder, below)
    return kept


def _tell_of_folders(where: str, folders: Sequence[str | Path]) -> None:
    if folders:
        names = _listed([PurePath(path).name for path in folders])
        click.echo(
            f"Left out of '{where}': images in folders below it ({names}); --recursive takes them",
            err=True,
        )


def _matching(pattern: str, recursive: bool) -> list[str]:
    """What a pattern matches, in order; a part of it that is there as it is written is meant as it
    is written.

    Files are taken; folders where there are no files, as a shell gives them to a command, or with
    ``recursive``.
    """
    bases = [""]
    *folders, last = PurePath(pattern).parts
    for part in folders:
        bases = [
            path for base in bases for path in _step(base, part) if path and Path(path).is_dir()
        ]
    matches = sorted({path for base in bases for path in _step(base, last)})
    found = [path for path in matches if Path(path).is_file()]
    if not all(map(_is_output, found)):  # else they are meant
        found = _without_outputs(found, pattern)
    below = [
        path
        for path in matches
        if "**" not in pattern and Path(path).is_dir() and _holds_images(Path(path))
    ]
    if recursive or not found:
        return found + [image for folder in below for image in _in_folder(folder, recursive)]
    _tell_of_folders(pattern, below)
    return found


def _step(base: str, part: str) -> list[str]:
    """The paths one step below ``base`` that a part of a pattern means; "**" is ``base`` and every
    folder below it.
    """
    if part != "**" and (literal := Path(base, part)).exists():
        return [str(literal)]
    matches = glob.glob(part, root_dir=base or None, recursive=True)
    if part == "**":
        matches = [base or ".", *(match for match in matches if match)]
        return [matches[0], *(str(Path(base, match)) for match in matches[1:])]
    return [str(Path(base, match)) for match in matches]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _is_hidden(path: PurePath) -> bool:
    """Hidden files are what systems leave beside images, not images."""
    return any(part.startswith(".") for part in path.parts)


def _holds_images(folder: Path) -> bool:
    """Whether --recursive would find an image soon in a folder; one that may not be read holds
    none.
    """
    if folder.name.startswith("."):
        return False
    try:
        looked_at = islice(folder.rglob("*"), MOST_LOOKED_AT)
        return any(
            _is_image(path)
            and not _is_output(str(path))
            and not _is_hidden(path.relative_to(folder))
            for path in looked_at
        )
    except OSError:
        return False


def _is_output(path: str) -> bool:
    """Whether an earlier run has written a file: by its name, and by what else of that name is
    beside it.
    """
    found = OUTPUT.fullmatch(path)
    if found is None:
        return False
    name, kind = found["name"], found["kind"]
    beside = [f".{other}.png" for other in KINDS if other != kind]
    if kind:
        beside.append(".json")
    if kind in KINDS:
        beside += ["", *IMAGE_SUFFIXES]  # the image itself
    return any(Path(name + ending).is_file() for ending in beside)


def _without_outputs(images: list[str], where: str) -> list[str]:
    """The images that no earlier run has written; the others are told."""
    outputs = dict.fromkeys(path for path in images if _is_output(path))
    if outputs:
        names = _listed([PurePath(path).name for path in outputs])
        click.echo(
            f"Left out of '{where}': {len(outputs)} files of an earlier run ({names})", err=True
        )
    return [path for path in images if path not in outputs]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def source_of(argument: str) -> str | bytes:
    """A path, or the bytes of standard input for "-"."""
    return sys.stdin.buffer.read() if argument == "-" else argument


def work_through(
    sources: Sequence[str], work: Callable[[int, str], None], kept: str = ""
) -> dict[str, str]:
    """Call ``work(index, source)`` for every source; returns {source: error} of those that failed.

    A bad image is reported in one line on standard error and the rest are done; an error that
    concerns all of them is raised. Over several images standard error shows how many are done: a
    bar in a terminal, else a line now and then. Ctrl-C says how many were done, and where they are
    ``kept``.
    """
    failed: dict[str, str] = {}
    with _Progress(len(sources), kept) as progress:
        for index, source in enumerate(sources):
            try:
                work(index, source)
            except (ImageError, RequestError) as error:
                if isinstance(error, RequestError) and error.code in HOPELESS:
                    raise
                failed[source] = str(error).removeprefix(
                    "image: " if source == "-" else f"{source}: "
                )
                tqdm.write(f"{source}: {failed[source]}", file=sys.stderr)
            progress.step()
    return failed


class _Progress:
    """How many of several images are done, on standard error."""

    def __init__(self, count: int, kept: str) -> None:
        self.count, self.kept, self.done, self.told = count, kept, 0, time.monotonic()

    def __enter__(self) -> "_Progress":
        self.in_terminal = sys.stderr.isatty()
        quiet = self.count < 2 or not self.in_terminal
        columns, rows = (
            shutil.get_terminal_size()
        )  # tqdm shows nothing in a terminal that tells no size
        look: dict[str, Any] = {
            "bar_format": BAR,
            "mininterval": FASTEST,
            "ncols": columns,
            "nrows": rows,
        }
        self.bar = tqdm(total=self.count, disable=quiet, leave=False, **look)
        return self

    def step(self) -> None:
        self.done += 1
        self.bar.update()
        if (
            not self.in_terminal
            and time.monotonic() - self.told >= EVERY
            and self.done < self.count
        ):
            self.told = time.monotonic()
            click.echo(f"{self.done} of {self.count} images", err=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bar.close()
        if kind is KeyboardInterrupt:
            kept = f"; their files are in {self.kept}" if self.kept and self.done else ""
            click.echo(
                "\n" * self.in_terminal
                + f"Stopped: {self.done} of {self.count} images were done{kept}",
                err=True,
            )


def report(
    sources: Sequence[str],
    work: Callable[[int, str], tuple[dict[str, Any], str]],
    as_json: bool,
    kept: str = "",
) -> None:
    """Print what ``work(index, source)`` gives for each source: its line as it comes, or all
    records as one JSON list.

    A bad image becomes ``{"image", "error"}`` in the list; the exit code is 2 then.
    """
    records: list[dict[str, Any] | None] = [None] * len(sources)  # a source may be named twice

    def one(index: int, source: str) -> None:
        record, line = work(index, source)
        records[index] = record
        if not as_json:
            tqdm.write(line, file=sys.stdout)

    failed = work_through(sources, one, kept)
    if as_json:
        pairs = zip(sources, records, strict=True)
        listed = [
            record or {"image": source, "error": failed.get(source)} for source, record in pairs
        ]
        click.echo(json.dumps(listed, ensure_ascii=False, indent=2))
    if failed:
        raise click.exceptions.Exit(2)
