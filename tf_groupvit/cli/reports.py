"""What commands write and print of several images: files, lines or JSON, and how many are done."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any, Self, TypeVar

import click
from tqdm import tqdm

from tf_groupvit.annotation.progress import EVERY, bar_options
from tf_groupvit.errors import ImageError, RequestError
from tf_groupvit.files import atomic_write, make_folder
from tf_groupvit.segmentation.image_encoding import png
from tf_groupvit.segmentation.result import Segmentation

KINDS = ("overlay", "labels", "colors")  # written of every image, as NAME.KIND.png
BAR = "{n} of {total} images |{bar}| {elapsed}<{remaining}"
# Answers of a server that concern every image: there is no use in going on.
HOPELESS = (
    "UNAVAILABLE",
    "NOT_FOUND",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "UNIMPLEMENTED",
    "FAILED_PRECONDITION",
)
Answer = TypeVar("Answer")

# Files


def names_for(sources: Sequence[str], folders: Sequence[str] = ()) -> list[str]:
    """A name for the outputs of each source: its stem, "stdin" for "-", numbered if it is taken.

    Files of one folder that differ in their suffix alone keep it: x.bmp and x.gif. What lies below
    one of ``folders`` lies so among the outputs, too: ``deep/x``. Names differ not only in case, so
    that outputs never overwrite one another on any file system.
    """
    suffixes: dict[tuple[PurePath, str], set[str]] = {}
    for path in map(PurePath, sources):
        suffixes.setdefault((path.parent, path.stem.casefold()), set()).add(path.suffix)
    names: list[str] = []
    taken: set[str] = set()
    for source in sources:
        path = PurePath(source)
        alike = len(suffixes[path.parent, path.stem.casefold()]) > 1
        own = "stdin" if source == "-" else (path.name if alike else path.stem) or "image"
        above = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
        stem = str(path.parent.relative_to(above) / own)
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def write_outputs(
    result: Segmentation,
    name: str,
    folder: str | Path,
    views: Sequence[str] = (),
    source: str | None = None,
) -> list[Path]:
    """Write overlay, labels (gray class numbers), colors, JSON and views; returns their paths.

    Pictures are NAME.KIND.png; the JSON names ``source``, the image. All are drawn before anything
    is written, and each file is written whole. Raises ``InputError`` for an unknown view, and where
    the folder is missing or cannot be written.
    """
    named = {} if source is None else {"image": source}
    text = json.dumps({**named, **result.to_dict()}, ensure_ascii=False, allow_nan=False)
    files = {
        "overlay.png": png(result.overlay()),
        "labels.png": png(result.label_image()),
        "colors.png": png(result.color_image()),
        "json": (text + "\n").encode(errors="backslashreplace"),
        **{f"{view}.png": png(result.view(view)) for view in views},
    }
    if PurePath(name).parent != PurePath():
        make_folder(Path(folder) / PurePath(name).parent)
    paths = []
    for kind, content in files.items():
        paths.append(Path(folder) / f"{name}.{kind}")
        atomic_write(paths[-1], content)
    return paths


def teller(
    sources: Sequence[str],
    arguments: Sequence[str],
    folder: str | Path | None,
    views: Sequence[str] = (),
) -> Callable[[int, Segmentation], tuple[dict[str, Any], str]]:
    """What ``report`` needs of segmentations: it writes their files, if there is a folder for them.

    arguments: those that ``sources`` were found by.
    """
    names = names_for(sources, list(filter(os.path.isdir, arguments)))

    def tell(index: int, result: Segmentation) -> tuple[dict[str, Any], str]:
        source = sources[index]
        paths = write_outputs(result, names[index], folder, views, source) if folder else []
        return record_of(result, source, paths), line_of(result, source, paths)

    return tell


def line_of(result: Segmentation, source: str, paths: Sequence[Path] = ()) -> str:
    """What a person reads: the areas, largest first, and where the files are."""
    shares = sorted(result.areas.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {100 * area:.1f}%" for name, area in shares if area)
    return f"{source}: {text}" + (f" -> {', '.join(map(str, paths))}" if paths else "")


def record_of(result: Segmentation, source: str, paths: Sequence[Path] = ()) -> dict[str, Any]:
    """What ``--json`` prints of an image: its source, size, classes, areas, scores and files; no
    labels.
    """
    return {"image": source, **result.summary(), "files": [str(path) for path in paths]}


# Reports


def report(
    sources: Sequence[str],
    answers: Iterable[tuple[int, Answer | Exception]],
    tell: Callable[[int, Answer], tuple[dict[str, Any], str]],
    as_json: bool,
    kept: str = "",
) -> None:
    """Print a line for the answer to each source as it arrives, or all records as one JSON list.

    A bad image is one line on standard error, ``{"image", "error"}`` in the list, and exit code 2;
    the others are done. An error that concerns all images is raised. Over several images standard
    error shows how many are done: a bar in a terminal, else a line now and then. Ctrl-C says how
    many were done, and that their files are in ``kept``.

    Args:
        answers: the index of each source with the answer to it, or its error.
        tell: from an index and its answer to the record and the line.
    """
    records: list[dict[str, Any]] = [{"image": source, "error": None} for source in sources]
    failed = False
    with _Progress(len(sources), kept) as progress:
        for index, answer in answers:
            try:
                if isinstance(answer, Exception):
                    raise answer
                records[index], line = tell(index, answer)
                if not as_json:
                    tqdm.write(line, file=sys.stdout)
            except (ImageError, RequestError) as error:
                if isinstance(error, RequestError) and error.code in HOPELESS:
                    raise
                failed, source = True, sources[index]
                prefix = "image: " if source == "-" else f"{source}: "
                records[index]["error"] = str(error).removeprefix(prefix)
                tqdm.write(f"{source}: {records[index]['error']}", file=sys.stderr)
            progress.step()
    if as_json:
        click.echo(json.dumps(records, ensure_ascii=False, indent=2))
    if failed:
        raise click.exceptions.Exit(2)


class _Progress:
    """How many of several images are done, on standard error."""

    def __init__(self, count: int, kept: str) -> None:
        self.count, self.kept, self.done, self.last_line = count, kept, 0, time.monotonic()

    def __enter__(self) -> Self:
        self.in_terminal = sys.stderr.isatty()
        self.bar = tqdm(total=self.count, bar_format=BAR, **bar_options(self.count > 1))
        return self

    def step(self) -> None:
        """One more image is done."""
        self.done += 1
        self.bar.update()
        due = time.monotonic() - self.last_line >= EVERY and self.done < self.count
        if due and not self.in_terminal:
            self.last_line = time.monotonic()
            click.echo(f"{self.done} of {self.count} images", err=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bar.close()
        if kind is KeyboardInterrupt:
            files = f"; their files are in {self.kept}" if self.kept and self.done else ""
            words = f"Stopped: {self.done} of {self.count} images were done{files}"
            click.echo("\n" * self.in_terminal + words, err=True)
