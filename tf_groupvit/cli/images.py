"""The IMAGE arguments of a command in; every image worked on, the bad ones reported, lines or JSON printed."""

import glob
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from tf_groupvit.errors import ImageError, InputError, RequestError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # what is taken from a folder
# A server's answers that concern every image alike: there is no use in going on.
HOPELESS = ("UNAVAILABLE", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "FAILED_PRECONDITION")


def find_images(arguments: Sequence[str]) -> list[str]:
    """Files as they are, "-" for standard input, the images of a folder, what a pattern matches, in order.

    A file that is not there stays in the list, to be reported in its turn. Raises ``InputError`` for a folder
    without images and a pattern that matches nothing.
    """
    found: list[str] = []
    for argument in arguments:
        if argument != "-" and Path(argument).is_dir():
            inside = sorted(path for path in Path(argument).iterdir() if _is_image(path))
            if not inside:
                raise InputError(f"The folder '{argument}' holds no images ({', '.join(ENDINGS)}): name another.")
            found += map(str, inside)
        elif any(sign in argument for sign in "*?[") and not Path(argument).exists():
            matches = sorted(glob.glob(argument, recursive=True))
            if not matches:
                raise InputError(f"No file matches '{argument}': check the pattern and its folder.")
            found += matches
        else:
            found.append(argument)
    return found


def _is_image(path: Path) -> bool:
    """By its name: hidden files are what systems leave beside images, not images."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def source_of(argument: str) -> str | bytes:
    """A path, or the bytes of standard input for "-"."""
    return sys.stdin.buffer.read() if argument == "-" else argument


def work_through(sources: Sequence[str], work: Callable[[int, str], None]) -> dict[str, str]:
    """Call ``work(index, source)`` for every source; returns {source: error} of those that failed.

    A bad image is reported in one line on standard error and the rest are done; an error that concerns all of them
    is raised. Over several images a progress bar runs on standard error, if that is a terminal.
    """
    failed: dict[str, str] = {}
    quiet = len(sources) < 2 or not sys.stderr.isatty()
    for index, source in enumerate(tqdm(sources, unit="image", disable=quiet, leave=False)):
        try:
            work(index, source)
        except (ImageError, RequestError) as error:
            if isinstance(error, RequestError) and error.code in HOPELESS:
                raise
            failed[source] = str(error).removeprefix("image: " if source == "-" else f"{source}: ")
            tqdm.write(f"{source}: {failed[source]}", file=sys.stderr)
    return failed


def report(sources: Sequence[str], work: Callable[[int, str], tuple[dict[str, Any], str]], as_json: bool) -> None:
    """Print what ``work(index, source)`` gives for each source: its line as it comes, or all records as one JSON list.

    A bad image becomes ``{"image", "error"}`` in the list; the exit code is 2 then.
    """
    records: list[dict[str, Any] | None] = [None] * len(sources)  # a source may be named twice

    def one(index: int, source: str) -> None:
        record, line = work(index, source)
        records[index] = record
        if not as_json:
            tqdm.write(line, file=sys.stdout)

    failed = work_through(sources, one)
    if as_json:
        pairs = zip(sources, records, strict=True)
        listed = [record or {"image": source, "error": failed.get(source)} for source, record in pairs]
        click.echo(json.dumps(listed, ensure_ascii=False, indent=2))
    if failed:
        raise click.exceptions.Exit(2)
