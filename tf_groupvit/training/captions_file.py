"""Read a file of captions - csv, tsv, jsonl, or a txt with a line for each image - as rows."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tf_groupvit.errors import DatasetError
from tf_groupvit.files import GRAPH_IMAGE_SUFFIXES, first_in_doubt, is_junk

# Columns, or entries of a JSON line, by the names that are in use.
IMAGES = ("image", "image_path", "file_name", "filename", "filepath", "file", "path")
CAPTIONS = ("caption", "captions", "text", "title")
NAMES = tuple(
    f"{name}.{kind}" for name in ("captions", "metadata") for kind in ("csv", "tsv", "jsonl", "txt")
)
# Errors of a JSON line that lacks the entry.
NO_ENTRY = (ValueError, TypeError, AttributeError, StopIteration, RecursionError)
END = "\0"  # parsed as one more row, unless a quotation mark was left open

# The image's path, relative to the captions file's folder or to its subfolder images, and its
# caption.
Row = tuple[str, str]


def find_captions_file(folder: Path) -> Path:
    """The captions file of a folder, by its usual names; DatasetError where there is none."""
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(
        f"{folder} has neither shards (*.tar, *.tfrecord) nor one of {', '.join(NAMES)}."
    )


def read_rows(file: Path) -> list[Row]:
    """The images and captions that a file names, in its order.

    Raises:
        DatasetError: the file cannot be read, or does not match its suffix.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")  # line ends stay what they are
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} cannot be read as UTF-8 text: {error}.") from error
    match file.suffix.lower():
        case ".csv":
            return _table(text, file, ",")
        case ".tsv":
            return _table(text, file, "\t")
        case ".jsonl":
            return _json_lines(text, file)
        case ".txt":
            return _lines(text, file)
    raise DatasetError(
        f"{file}: expected a captions file of kind csv, tsv, jsonl or txt, or shards."
    )


def _table(text: str, file: Path, delimiter: str) -> list[Row]:
    """Columns by the names in the first row, as Python's csv module reads them."""
    rows = _cells(text, file, delimiter)
    _, names = next(rows, (1, []))
    header = [name.strip().lower() for name in names]
    image, caption = (_column(header, known, file) for known in (IMAGES, CAPTIONS))
    found = []
    for line, cells in rows:
        if len(cells) <= max(image, caption) or any(map(str.strip, cells[len(header) :])):
            raise DatasetError(
                f"{file}, line {line}: expected {len(header)} columns, got {len(cells)}: "
                "a caption that holds the separator stands in quotation marks."
            )
        found.append((cells[image].strip(), cells[caption]))
    return found


def _cells(text: str, file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    lines = csv.reader(chain(io.StringIO(text, newline=""), [END]), delimiter=delimiter)
    first = 1
    try:
        for cells in lines:
            if cells == [END]:
                return
            if cells and cells[-1].endswith(END):
                raise DatasetError(
                    f"{file}, line {first}: a quotation mark is opened there and never closed."
                )
            if any(map(str.strip, cells)):
                yield first, cells
            first = lines.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{file}, line {first}: cannot be read as a table: {error}.") from error


def _column(header: list[str], names: tuple[str, ...], file: Path) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DatasetError(
        f"{file}: the first line names the columns {header}, none of them {', '.join(names)}."
    )


def _json_lines(text: str, file: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            image = entry[next(filter(entry.__contains__, IMAGES))]
            captions = captions_in(entry)
            if not isinstance(image, str):
                raise DatasetError(f"its image is {image!r:.60}: expected the name of a file")
        except NO_ENTRY as error:
            raise DatasetError(
                f"{file}, line {number}: expected JSON with an image and a caption."
            ) from error
        except DatasetError as error:
            raise DatasetError(f"{file}, line {number}: {error}.") from error
        rows += [(image, caption) for caption in captions]
    return rows


def captions_in(entry: Any) -> list[str]:
    """The captions of a parsed JSON object: its text, each of a list of texts, or an empty one.

    Raises:
        DatasetError: a caption that is neither a text nor a list of texts.
        One of ``NO_ENTRY``: it is no object, or has no caption.
    """
    value = entry[next(filter(entry.__contains__, CAPTIONS))]
    captions = value if isinstance(value, list) else [value]
    texts = ["" if caption is None else caption for caption in captions] or [""]
    for text in texts:
        if not isinstance(text, str):
            raise DatasetError(f"its caption is {text!r:.60}: expected a text, or a list of texts")
    return texts


def _lines(text: str, file: Path) -> list[Row]:
    """A line for each image of the folder ``images``, in the order of their names.

    ``tf-groupvit scenes`` writes such a file. Where the first line names columns, the file is a
    table: Flickr's captions.txt is one.
    """
    captions = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for delimiter in ",\t":
        header = {name.strip(' "').lower() for name in captions[0].split(delimiter)}
        if header & {*IMAGES} and header & {*CAPTIONS}:
            return _table(text, file, delimiter)
    below = "images" if (file.parent / "images").is_dir() else ""
    folder = file.parent / below
    images = _images_in(folder)
    if number := _first_with_name(captions, images):
        raise DatasetError(
            f"{file}, line {number} begins with the name of an image, and no first line names"
            " columns: write one, e.g. image,caption, or with a tab where the lines have tabs."
        )
    if len(images) != len(captions):
        raise DatasetError(
            f"{file} has {len(captions)} captions for {len(images)} images in {folder}: one a line."
        )
    if doubt := first_in_doubt(images):
        place, by_letter, by_number = doubt
        raise DatasetError(
            f"{file} names no images, and line {place + 1} may be the caption of '{by_letter}'"
            f" (sorted by letters) or of '{by_number}' (by numbers): name them, in a captions.csv"
            " with the columns image and caption."
        )
    names = [os.path.join(below, name) for name in images]
    return list(zip(names, captions, strict=True))


def _first_with_name(captions: Iterable[str], images: Iterable[str]) -> int | None:
    """The number of the first line that begins with an image's name: a table without a header."""
    known = set(images)
    for number, line in enumerate(captions, start=1):
        for separators in (r"[,;|#\t]", r"[,;|#:\s]"):
            start = re.split(separators, line, maxsplit=1)[0]
            if os.path.basename(start.strip(' "')) in known:
                return number
    return None


def _images_in(folder: Path) -> list[str]:
    """The names of the image files in a folder, sorted by letters."""
    with os.scandir(folder) as files:
        names = [file.name for file in files if file.is_file()]
    images = (name for name in names if name.lower().endswith(GRAPH_IMAGE_SUFFIXES))
    return sorted(name for name in images if not is_junk(name))
