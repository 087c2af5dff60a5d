"""Read a file of captions - csv, tsv, jsonl, json, or txt with a line for each image - as rows."""

import json
import posixpath
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tf_groupvit.errors import DatasetError
from tf_groupvit.files import GRAPH_IMAGE_SUFFIXES, first_in_doubt, is_junk
from tf_groupvit.storage import beside, kind_of, listed, name_of, place_of
from tf_groupvit.training.caption_tables import (
    ADDRESSES,
    CAPTIONS,
    IMAGES,
    SEPARATORS,
    Row,
    names_columns,
    read_table,
)

NAMES = tuple(
    f"{name}.{kind}" for name in ("captions", "metadata") for kind in ("csv", "tsv", "jsonl", "txt")
)
KINDS = (".csv", ".tsv", ".jsonl", ".json")  # one file of these, and of no usual name, will do
LONGEST_TEXT, LONGEST_JSON = 2**32, 2**30  # bytes; the captions of COCO have 92 million
# Errors of a JSON line that lacks the entry.
NO_ENTRY = (ValueError, TypeError, AttributeError, StopIteration, RecursionError)


def read_rows(file: str) -> list[Row]:
    """The images and captions that a file names, in its order.

    Raises:
        DatasetError: the file cannot be read, is too large, or does not match its suffix.
    """
    suffix = posixpath.splitext(file)[1].lower()
    if suffix not in (*KINDS, ".txt"):
        raise DatasetError(
            f"{file}: expected a captions file of kind csv, tsv, jsonl, json or txt, or shards."
        )
    text = _read_text(file, LONGEST_JSON if suffix == ".json" else LONGEST_TEXT)
    match suffix:
        case ".csv":
            return read_table(text, file, ",")
        case ".tsv":
            return read_table(text, file, "\t")
        case ".jsonl":
            return _json_lines(text, file)
        case ".json":
            return _json(text, file)
    return _lines(text, file)


def _read_text(file: str, longest: int) -> str:
    try:
        system, path = place_of(file)
        size = system.size(path) or 0
        if size > longest:
            raise DatasetError(
                f"{file} has {size:,} bytes, more than {longest:,}: split it, or pack its pairs"
                " into shards."
            )
        content: bytes = system.cat_file(path)
        return content.decode("utf-8-sig")  # line ends stay what they are
    except DatasetError:
        raise
    except Exception as error:  # each storage has errors of its own
        raise DatasetError(f"{file} cannot be read as UTF-8 text: {error}.") from error


def _json_lines(text: str, file: str) -> list[Row]:
    lines = enumerate(text.split("\n"), start=1)
    filled = ((f"line {number}", line) for number, line in lines if line.strip())
    return _rows_in(filled, json.loads, file)


def _rows_in(
    entries: Iterable[tuple[str, Any]], read: Callable[[Any], Any], file: str
) -> list[Row]:
    """The rows of entries, each with the place that errors name, and read by a function."""
    rows = []
    for place, entry in entries:
        try:
            rows += _entry(read(entry))
        except NO_ENTRY as error:
            raise DatasetError(
                f"{file}, {place}: expected a JSON object with an image and a caption."
            ) from error
        except DatasetError as error:
            raise DatasetError(f"{file}, {place}: {error}.") from error
    return rows


def _entry(entry: Any) -> list[Row]:
    """An image with each of its captions. DatasetError or one of ``NO_ENTRY`` where it has none."""
    image = entry[next(filter(entry.__contains__, IMAGES + ADDRESSES))]
    if not isinstance(image, str):
        raise DatasetError(f"its image is {image!r:.60}: expected the name of a file")
    return [(image, caption) for caption in captions_in(entry)]


def _json(text: str, file: str) -> list[Row]:
    """COCO's captions, or a list of entries as jsonl has them."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not valid JSON: {error}.") from error
    entries, kind = content, "entry"
    read: Callable[[Any], Any] = dict
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        entries, kind = content["annotations"], "annotation"
        try:
            known = {(image["id"], image["file_name"]) for image in content["images"]}
        except (TypeError, KeyError) as error:
            raise DatasetError(
                f"{file}: expected entries of 'images' with id and file_name."
            ) from error
        names = dict(known)
        if len(names) < len(known):
            raise DatasetError(f"{file}: two of its 'images' have the same id: number them anew.")
        read = partial(_named, names)
    if not isinstance(entries, list):
        raise DatasetError(
            f"{file}: expected COCO's captions, with 'images' and 'annotations', or a list of"
            " objects with an image and a caption."
        )
    numbered = ((f"{kind} {number}", entry) for number, entry in enumerate(entries, start=1))
    return _rows_in(numbered, read, file)


def _named(names: dict[Any, Any], annotation: Any) -> dict[str, Any]:
    """An annotation of COCO with the name of its image."""
    image = annotation.get("image_id")
    if image not in names:
        raise DatasetError(f"its image_id is {image!r:.60}, which 'images' does not have")
    if not any(map(annotation.__contains__, CAPTIONS)):
        raise DatasetError(
            "it has no caption: give the file of captions, captions_*.json, in place of instances"
        )
    return {**annotation, "image": names[image]}


def captions_in(entry: Any) -> list[str]:
    """The captions of a parsed JSON object: its text, each of a list of texts, or an empty one.

    Raises:
        DatasetError: a caption that is neither a text nor a list of texts.
        One of ``NO_ENTRY``: it is no object, or has no caption.
    """
    return texts_in(entry[next(filter(entry.__contains__, CAPTIONS))])


def texts_in(value: Any) -> list[str]:
    """A caption, or each of a list; an empty one for none. DatasetError for what is no text."""
    captions = value if isinstance(value, list) else [value]
    texts = ["" if caption is None else caption for caption in captions] or [""]
    for text in texts:
        if not isinstance(text, str):
            raise DatasetError(f"its caption is {text!r:.60}: expected a text, or a list of texts")
    return texts


def _lines(text: str, file: str) -> list[Row]:
    """A line for each image of the folder ``images``, in the order of their names.

    ``tf-groupvit scenes`` writes such a file. Where the first line names columns, the file is a
    table: Flickr's captions.txt is one.
    """
    captions = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for separator in SEPARATORS:
        if names_columns(captions[0], separator):
            return read_table(text, file, separator)
    below = "images" if kind_of(beside(file, "images")) == "directory" else ""
    folder = beside(file, below or ".")
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
    names = [posixpath.join(below, name) for name in images]
    return list(zip(names, captions, strict=True))


def _first_with_name(captions: Iterable[str], images: Iterable[str]) -> int | None:
    """The number of the first line that begins with an image's name: a table without a header."""
    known = set(images)
    for number, line in enumerate(captions, start=1):
        for separators in (r"[,;|#\t]", r"[,;|#:\s]"):
            start = re.split(separators, line, maxsplit=1)[0]
            if posixpath.basename(start.strip(' "')) in known:
                return number
    return None


def _images_in(folder: str) -> list[str]:
    """The names of the image files in a folder, sorted by letters."""
    names = [name_of(path) for path, is_folder in listed(folder) if not is_folder]
    images = (name for name in names if name.lower().endswith(GRAPH_IMAGE_SUFFIXES))
    return sorted(name for name in images if not is_junk(name))
