"""Read csv and tsv files of captions, whatever their separator and quotation marks, as rows."""

import csv
import io
from collections.abc import Iterator
from itertools import chain
from typing import Any

from tf_groupvit.errors import DatasetError

# Columns, or entries of a JSON line, by the names that are in use. The address of an image on the
# web names what was downloaded from it.
IMAGES = ("image", "image_path", "file_name", "filename", "filepath", "file", "path", "image_name")
ADDRESSES = ("url", "image_url")
CAPTIONS = ("caption", "captions", "text", "title", "txt", "comment")
SEPARATORS = ",\t;|"  # and any other sign, where the first line shows it
END = "\0"  # parsed as one more row, unless a quotation mark was left open

# The image's path, relative to the captions file's folder or to its subfolder images, and its
# caption.
Row = tuple[str, str]
Form = dict[str, Any]  # how csv.reader reads


def read_table(text: str, file: str, separator: str) -> list[Row]:
    """Columns by the names in the first row, as Python's csv module reads them.

    Where the first line has no such names with this separator, it may have them with another.
    Quotation marks are ``"``, and stand twice within a caption; unless the whole file is only right
    with ``'``, or with a backslash before them or before the separator.
    """
    first = next(iter(io.StringIO(text, newline="")), "")
    others = dict.fromkeys(sign for sign in first.strip() if not (sign.isalnum() or sign in "\"'_"))
    for sign in (separator, *SEPARATORS, *others):
        for quote in "\"'":
            if names_columns(first, sign, quote):
                forms = list(_forms(text, sign, quote))
                break
        else:
            continue
        break
    else:
        forms = [{"delimiter": separator}]
    if len(forms) > 1:
        for form in forms:
            try:
                return _rows(text, file, {**form, "strict": True})
            except DatasetError:
                continue
    return _rows(text, file, forms[0])


def names_columns(line: str, separator: str, quote: str = '"') -> bool:
    """Whether a first line names columns of images and captions."""
    names = {name.strip(f" \r\n{quote}").lower() for name in line.split(separator)}
    return bool(names & {*IMAGES, *ADDRESSES} and names & {*CAPTIONS})


def _forms(text: str, separator: str, quote: str) -> Iterator[Form]:
    """The ways to read a text that it shows signs of, the usual one first."""
    for mark in dict.fromkeys((quote, '"', "'")):
        if mark == quote or f"{separator}{mark}" in text or f"\n{mark}" in text:
            yield {"delimiter": separator, "quotechar": mark}
            if f"\\{mark}" in text:
                yield {
                    "delimiter": separator,
                    "quotechar": mark,
                    "doublequote": False,
                    "escapechar": "\\",
                }
    if f"\\{separator}" in text:
        yield {"delimiter": separator, "quoting": csv.QUOTE_NONE, "escapechar": "\\"}


def _rows(text: str, file: str, form: Form) -> list[Row]:
    rows = _cells(text, file, form)
    _, names = next(rows, (1, []))
    header = [name.strip().lower() for name in names]
    image, caption = (_column(header, known, file) for known in (IMAGES + ADDRESSES, CAPTIONS))
    found = []
    for line, cells in rows:
        if len(cells) <= max(image, caption) or any(map(str.strip, cells[len(header) :])):
            advice = "put the separator between the columns, or delete the line"
            if len(cells) > len(header):
                advice = "a caption that holds the separator stands in quotation marks"
            raise DatasetError(
                f"{file}, line {line}: expected {len(header)} columns, got {len(cells)}: {advice}."
            )
        found.append((cells[image].strip(), cells[caption]))
    return found


def _cells(text: str, file: str, form: Form) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    lines = csv.reader(chain(io.StringIO(text, newline=""), [END]), **form)
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


def _column(header: list[str], names: tuple[str, ...], file: str) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DatasetError(
        f"{file}: the first line names the columns {header}, none of them {', '.join(names)}."
    )
