"""Which number in a mask of one's own is which class: by order, or by a table."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tf_groupvit.errors import InputError, did_you_mean, one_line
from tf_groupvit.evaluation.benchmarks import IGNORED, UNKNOWN, ignored_of
from tf_groupvit.files import read_json, read_lines
from tf_groupvit.segmentation.class_names import BACKGROUND, ClassNames, parse_classes

LARGEST = 65535  # number that an image file holds
PAIRS = "expected a number and a name a line"
VOID = "ignored"  # what annotate calls the color of pixels that do not count
LONGEST = 10_000  # letters of a line that are read
NUMBER_TITLES = ("number", "id", "idx", "index", "value", "pixel", "category_id", "class_id")
NAME_TITLES = ("name", "class", "label", "category", "class_name", "category_name")
Color = tuple[int, int, int]
Row = tuple[int, str]  # a number and its name, which may have synonyms: "sofa|couch"


@dataclass(frozen=True)
class Numbering:
    """Classes and the numbers that masks have for them.

    Attributes:
        prompts: the classes without the background, with their synonyms.
        class_names: K names in the order of the labels; "background" is first where there is one.
        labels: {number: label, or ``ignored_of(K)``}.
        left_out: names of the table that are not among the classes: background where there is one,
            else ignored.
        colors: whether the numbers are colors, as ``color_number`` counts them.
    """

    prompts: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: dict[int, int]
    left_out: tuple[str, ...] = ()
    colors: bool = False

    @property
    def ignored(self) -> int:
        """The label of pixels that do not count."""
        return ignored_of(len(self.class_names))

    def label_map(self) -> np.ndarray:
        """An array (N) int32 from the number in a mask file to the label, at least 256 long."""
        table = np.full(max(IGNORED, *self.labels) + 1, UNKNOWN, np.int32)
        for number, label in self.labels.items():
            table[number] = label
        return table

    def numbers(self) -> dict[str, list[int]]:
        """{class: its numbers}."""
        found: dict[str, list[int]] = {name: [] for name in self.class_names}
        for number, label in sorted(self.labels.items()):
            if label != self.ignored:
                found[self.class_names[label]].append(number)
        return found

    def ignored_numbers(self) -> list[int]:
        """The numbers of pixels that do not count."""
        return sorted(number for number, label in self.labels.items() if label == self.ignored)


def number_classes(
    classes: ClassNames | None = None,
    rows: Sequence[Row] | None = None,
    *,
    ignore: Sequence[int] | None = None,
    background: bool = False,
    source: str = "the table",
    free: bool = False,
) -> Numbering:
    """Give each class its numbers.

    Args:
        classes: in the order of the labels. Without ``rows``, their numbers are 0, 1, ...; with a
            background, which is 0 then, 1, 2, ....
        rows: (number, name), where several numbers may have one name. A name that is not among the
            classes is background where there is one, else ignored. Without ``classes``, all names
            are classes, in the order of the rows.
        ignore: numbers of pixels that do not count; they go before the rows. Unless given, it is
            255 and, above 255 classes, 65535 where no row has it.
        background: there is a class of that name besides, label 0. Its numbers are those of the
            rows of that name, without any 0.
        source: what errors call the rows.
        free: pixels of no row have no number (COCO), so that 0 is not taken for the background.

    Raises ``InputError`` for a class without a number, and for a number of two classes.
    """
    for number in ignore or ():
        if not 0 <= number <= LARGEST:
            raise InputError(f"Numbers to ignore are from 0 to {LARGEST}: received {number}.")
    if rows is None:
        if classes is None:
            raise InputError(
                "Class names are missing: give them in the order of the numbers in the masks, e.g."
                " --classes dog,grass, or a table of numbers and names, --table FILE."
            )
        listed = ["|".join(names) for names in parse_classes(classes)]
        rows, source = list(enumerate(listed, int(background))), "--classes"
    kept = [(number, name) for number, name in rows if number not in (ignore or ())]
    parsed = parse_classes(_unique(kept) if classes is None else classes)
    _refuse_background(parsed)
    names = (*((BACKGROUND,) if background else ()), *(names[0] for names in parsed))
    ignored = ignored_of(len(names))
    rest = 0 if background else ignored
    label_of = {
        name: label
        for label, words in reversed([*enumerate(parsed, int(background))])
        for name in words
    }
    labels: dict[int, int] = {}
    named: dict[int, str] = {}
    left_out = []
    for number, name in kept:
        words = parse_classes([name])[0]
        label = next((label_of[word] for word in words if word in label_of), rest)
        if labels.setdefault(number, label) != label:
            raise InputError(
                f"{source}: {number} is the number of both {named[number]!r} and {words[0]!r}:"
                " expected one name a number."
            )
        named[number] = words[0]
        if label == rest and words[0] != BACKGROUND:
            left_out.append(words[0])
    for label, words in enumerate(parsed, int(background)):
        if label not in labels.values():
            _refuse_unnumbered(words[0], rows, kept, source)
    if background and not free and BACKGROUND not in named.values():
        if 0 in labels:
            raise InputError(
                f"{source}: 0 is the number of {named[0]!r}, and no number is that of the"
                f" background: add a line 'NUMBER {BACKGROUND}', or leave the background out."
            )
        labels[0] = 0
    for number in (IGNORED, ignored) if ignore is None else ignore:
        labels.setdefault(number, ignored)
    prompts = tuple("|".join(words) for words in parsed)
    return Numbering(prompts, names, labels, tuple(dict.fromkeys(left_out)))


def color_number(red: Any, green: Any, blue: Any) -> Any:
    """A color as one number, from parts from 0 to 255, as COCO's panoptic pictures have it."""
    return red + 256 * green + 65536 * blue


def number_colors(
    rows: Sequence[tuple[Color, str]],
    classes: ClassNames | None = None,
    *,
    background: bool = False,
    source: str = "the table",
) -> Numbering:
    """As ``number_classes``, of colors in place of numbers; "ignored" does not count."""
    numbers = [(color_number(*color), name) for color, name in rows]
    kept = [row for row in numbers if row[1] != VOID]
    found = number_classes(classes, kept, ignore=(), background=background, source=source)
    void = {number: found.ignored for number, name in numbers if name == VOID}
    return replace(found, labels={**found.labels, **void}, colors=True)


def _unique(rows: Iterable[Row]) -> list[str]:
    """The names of rows in their order, each once, without the background."""
    found: dict[str, str] = {}
    for _, name in rows:
        found.setdefault(parse_classes([name])[0][0], name)
    found.pop(BACKGROUND, None)
    return list(found.values())


def _refuse_background(parsed: list[tuple[str, ...]]) -> None:
    if any(names[0] == BACKGROUND for names in parsed):
        raise InputError(
            f"{BACKGROUND!r} is among the classes, and is no word to look for: leave it out there,"
            " and give --background THRESHOLD, from 0 to 1, or --calibrate N. It is number 0 then,"
            " unless a table says otherwise."
        )


def _refuse_unnumbered(name: str, rows: Sequence[Row], kept: Sequence[Row], source: str) -> None:
    ignored = [number for number, other in rows if parse_classes([other])[0][0] == name]
    if ignored:
        raise InputError(
            f"{ignored[0]} is the number of {name!r} in {source}, and it is to be ignored: leave"
            " the class out, or give a table of numbers and names, --table FILE."
        )
    near = did_you_mean(name, _unique(kept)) if kept else "it is empty."
    raise InputError(f"{source}: it has no number of the class {name!r}: {near}")


# Tables


def read_table(path: Path) -> list[Row]:
    """The numbers and names in a text file, a pair a line: ``7 sofa``, or CSV or TSV.

    A line has a number and a name in either order, with a blank, a tab, a comma or a semicolon
    between them. A first line without a number holds titles; by those, a number and a name are
    found among more columns (``id,color,name``). Lines that begin with "#" are left out. Or the
    file is JSON with ``{"classes": [{"number": 7, "name": "sofa"}, ...]}``, as the ``classes.json``
    and ``manifest.json`` of ``annotate``.

    Raises ``InputError``, naming the line, for anything else.
    """
    if path.suffix.lower() == ".json":
        return _json_rows(path)
    lines = [line for line in read_lines(path, InputError, PAIRS) if not line.startswith("#")]
    first = next(iter(lines), "")
    between = next((sign for sign in "\t,;" if sign in first), None)
    number_first = any(map(_is_number, first.split()[:1]))
    places: tuple[int, int] | None = None  # of the number and the name, by the titles
    rows = []
    for line in lines:
        if between is not None:
            cells = next(csv.reader([line[:LONGEST]], delimiter=between))
        else:
            cells = line.split(maxsplit=1) if number_first else line.rsplit(maxsplit=1)
        cells = [cell.strip() for cell in cells]
        if line is first and not any(map(_is_number, cells)):
            places = _places([cell.casefold() for cell in cells])
            if places is not None:
                continue
        if places is not None and len(cells) > max(places):
            cells = [cells[place] for place in places]
        if len(cells) == 2 and not _is_number(cells[0]):
            cells = cells[::-1]
        if len(cells) != 2 or not _is_number(cells[0]) or not cells[1] or int(cells[0]) > LARGEST:
            raise InputError(
                f"{path}: expected a number from 0 to {LARGEST} and a name a line, found"
                f" {one_line(line)!r}."
            )
        rows.append((int(cells[0]), cells[1]))
    if not rows:
        raise InputError(f"{path}: {PAIRS}, found none.")
    return rows


# What CVAT and datumaro call labelmap.txt: name:red,green,blue:parts:actions.
COLORED = re.compile(r"([^:]+):\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*:[^:]*:[^:]*")


def read_colored(path: Path) -> list[tuple[Color, str]]:
    """The colors and names in a ``labelmap.txt``, as CVAT's exports of masks have it.

    Empty where the file is another table. Raises ``InputError`` where it cannot be read.
    """
    if path.suffix.lower() == ".json":
        return []
    lines = [line for line in read_lines(path, InputError, PAIRS) if not line.startswith("#")]
    found = [COLORED.fullmatch(line) for line in lines]
    rows = [((int(one[2]), int(one[3]), int(one[4])), one[1].strip()) for one in found if one]
    if len(rows) < len(lines) or any(max(color) > 255 for color, _ in rows):
        return []
    return rows


def _json_rows(path: Path) -> list[Row]:
    content = read_json(path, InputError)
    try:
        rows = [(int(one["number"]), str(one["name"])) for one in content["classes"]]
    except (KeyError, TypeError, ValueError):
        rows = []
    if not rows or not all(0 <= number <= LARGEST and name.strip() for number, name in rows):
        raise InputError(
            f'{path}: expected {{"classes": [{{"number": 7, "name": "sofa"}}, ...]}} with numbers'
            f" from 0 to {LARGEST}, as annotate writes."
        )
    return rows


def _is_number(cell: str) -> bool:
    return cell.isascii() and cell.isdecimal() and len(cell) < 10


def _places(titles: list[str]) -> tuple[int, int] | None:
    """Where the number and the name are in each line, by its titles in small letters."""
    number, name = (
        next((titles.index(title) for title in known if title in titles), None)
        for known in (NUMBER_TITLES, NAME_TITLES)
    )
    return None if number is None or name is None else (number, name)
