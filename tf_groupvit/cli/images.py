"""Which images the IMAGE arguments of a command mean: files, folders, patterns, standard input."""

import glob
import re
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePath

import click
import numpy as np

from tf_groupvit.cli.reports import KINDS
from tf_groupvit.errors import InputError
from tf_groupvit.files import IMAGE_SUFFIXES
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.segmentation.overlay import VIEWS

OUTPUT = re.compile(rf"(?P<name>.+)\.((?P<kind>{'|'.join((*KINDS, *VIEWS))})\.png|json)")
MOST_SEARCHED = 10_000  # files below a folder, to say that it has images


def find_images(arguments: Sequence[str], recursive: bool = False) -> list[str]:
    """The images of files, folders and patterns, in order; "-" is standard input.

    A path that exists is taken as it is written, whatever its name. With ``recursive``, the folders
    below a folder count, too. What an earlier run has written is left out, and so are other
    folders, with a word on standard error. A file that does not exist stays in the list, to be
    reported in its turn.

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
    _say_left_out(folder, below)
    return kept


def _say_left_out(where: str, folders: Sequence[str | Path]) -> None:
    if folders:
        names = _listed([PurePath(path).name for path in folders])
        click.echo(
            f"Left out of '{where}': images in folders below it ({names}); --recursive takes them",
            err=True,
        )


def _matching(pattern: str, recursive: bool) -> list[str]:
    """What a pattern matches, in order; a part of it that exists as written is meant as written.

    Files are taken, and folders where there are no files (a shell, too, gives a command both) or
    with ``recursive``.
    """
    bases = [""]
    *folders, last = PurePath(pattern).parts
    for part in folders:
        bases = [
            path for base in bases for path in _step(base, part) if path and Path(path).is_dir()
        ]
    matches = sorted({path for base in bases for path in _step(base, last)})
    found = [path for path in matches if Path(path).is_file()]
    if not all(map(_is_output, found)):  # else the outputs are what is meant
        found = _without_outputs(found, pattern)
    below = [
        path
        for path in matches
        if "**" not in pattern and Path(path).is_dir() and _holds_images(Path(path))
    ]
    if recursive or not found:
        return found + [image for folder in below for image in _in_folder(folder, recursive)]
    _say_left_out(pattern, below)
    return found


def _step(base: str, part: str) -> list[str]:
    """The paths that a part of a pattern means below ``base``; "**" also means ``base`` itself."""
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
    """Whether a file is hidden: systems leave such files next to images."""
    return any(part.startswith(".") for part in path.parts)


def _holds_images(folder: Path) -> bool:
    """Whether --recursive would soon find an image in a folder; not if it may not be read."""
    if folder.name.startswith("."):
        return False
    try:
        images = filter(_is_image, islice(folder.rglob("*"), MOST_SEARCHED))
        return any(
            not _is_output(str(path)) and not _is_hidden(path.relative_to(folder))
            for path in images
        )
    except OSError:
        return False


def _is_output(path: str) -> bool:
    """Whether an earlier run has written a file: by its name, and by what is next to it."""
    found = OUTPUT.fullmatch(path)
    if found is None:
        return False
    name, kind = found["name"], found["kind"]
    others = [f".{other}.png" for other in KINDS if other != kind]
    if kind:
        others.append(".json")
    if kind in KINDS:
        others += ["", *IMAGE_SUFFIXES]  # the image itself
    return any(Path(name + ending).is_file() for ending in others)


def _without_outputs(images: list[str], where: str) -> list[str]:
    """The images that no earlier run has written; the others are named on standard error."""
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


def read_source(argument: str) -> np.ndarray:
    """The image that an argument names, uint8 (H, W, 3). Raises ``ImageError`` as it does."""
    return read_image(source_of(argument))
