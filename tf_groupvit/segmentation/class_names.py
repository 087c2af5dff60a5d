"""Class names as a person gives them in, for each class its names out: (first, synonyms...). No
TensorFlow.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from tf_groupvit.errors import InputError
from tf_groupvit.files import read_lines

BACKGROUND = "background"  # label 0 where it is a class; never a prompt
LISTS = (".txt", ".names", ".lst")  # endings of files with one class a line
ONE_A_LINE = "expected a text file with one class a line"
ClassNames = str | os.PathLike[str] | Iterable[str] | Mapping[str, str | Iterable[str]]


def parse_classes(classes: ClassNames) -> list[tuple[str, ...]]:
    """Class names -> for each class its names, synonyms behind the first, by which it is called.

    They are a list; or one text with commas between them; in both, "sofa|couch" are synonyms. Or
    they are a dict from the name of each class to its other names, a list or a text: ``{"sofa":
    ["couch"], "cat": []}``. Or they are a ``Path``: see ``read_classes``. Blanks around a name
    are dropped, and so are those inside beyond one.

    Raises:
        InputError: no class, an empty one, one that is there twice, names without an order, such as
            a set, a file that cannot be used, or its name in a text.
    """
    if isinstance(classes, os.PathLike):
        classes = read_classes(Path(classes))
    listed = classes.split(",") if isinstance(classes, str) else _listed(classes)
    if not listed or (isinstance(classes, str) and not classes.strip()):
        raise InputError("Class names are empty: give at least one, e.g. --classes 'cat,dog'.")
    for number, entry in enumerate(listed, 1):
        if not isinstance(entry, str):
            raise InputError(f"Class {number} is {entry!r}: expected a name, a string.")
    parsed = [tuple(" ".join(name.split()) for name in entry.split("|")) for entry in listed]
    for number, (entry, names) in enumerate(zip(listed, parsed, strict=True), 1):
        if not all(names):
            raise InputError(
                f"Class {number} of {len(parsed)} is {entry!r}, an empty name: give it one, or"
                " leave it out."
            )
        if isinstance(classes, str) and (file := next(filter(_is_list, names), None)):
            raise InputError(
                f"Class {number} of {len(parsed)} is {file!r}, the name of a file: a file with one"
                f" class a line is given alone, as --classes {file} or, in Python,"
                f" Path({file!r})."
            )
    refuse_twice([names[0] for names in parsed])
    return parsed


def read_classes(path: Path) -> str | list[str]:
    """The classes in a text file, one a line, where ``sofa|couch`` are synonyms.

    A file of one line may also have commas between them. The text is UTF-8, with or without a byte
    order mark; empty lines and blanks around a name are dropped.

    Raises ``InputError`` for a file that cannot be read, is no text, or has no line.
    """
    return classes_of(read_lines(path, InputError, ONE_A_LINE), str(path))


def classes_of(lines: list[str], source: str) -> str | list[str]:
    """As ``read_classes``, of lines that are read. ``source`` is what an error calls them."""
    if not lines:
        raise InputError(f"{source} has no class: {ONE_A_LINE}.")
    return lines if len(lines) > 1 else lines[0]


def _is_list(name: str) -> bool:
    return PurePath(name).suffix.lower() in LISTS


def refuse_twice(names: Sequence[str]) -> None:
    """Raise ``InputError`` for names that are there more than once."""
    seen: set[str] = set()
    twice = sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if twice:
        raise InputError(
            f"Classes are there twice: {', '.join(map(repr, twice))}: name each of them once."
        )


def _listed(classes: Iterable[str] | Mapping[str, str | Iterable[str]]) -> list[str]:
    if isinstance(classes, Mapping):
        return [_with_synonyms(name, synonyms) for name, synonyms in classes.items()]
    if isinstance(classes, set | frozenset):
        raise InputError(
            "Class names are a set, which has no order, and labels are numbers: give a list."
        )
    if isinstance(classes, bytes) or not isinstance(classes, Iterable):
        raise InputError(
            f"Class names are {classes!r}: expected a list of names, or one text with commas."
        )
    return list(classes)


def _with_synonyms(name: str, synonyms: str | Iterable[str] | None) -> str:
    """A class of a dict as "sofa|couch", each name once."""
    if synonyms is None or synonyms == "":
        synonyms = []
    listed = re.split("[,|]", synonyms) if isinstance(synonyms, str) else synonyms
    if isinstance(listed, bytes | Mapping) or not isinstance(listed, Iterable):
        raise InputError(
            f"The synonyms of {name!r} are {synonyms!r}: expected a list of names, or one text with"
            " commas."
        )
    names = [name, *listed]
    for other in names:
        if not isinstance(other, str):
            raise InputError(f"{other!r} is among the names of class {name!r}: expected strings.")
    return "|".join(dict.fromkeys(" ".join(other.split()) for other in names))
