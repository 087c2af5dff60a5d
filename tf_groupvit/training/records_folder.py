"""A captions file beside images in, records out: csv, tsv, jsonl, or a captions.txt with a line for each image."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tf_groupvit.errors import DatasetError
from tf_groupvit.training.records import Record, read_bytes

# Columns, or entries of a JSON line, by the names that are in use.
IMAGES = ("image", "image_path", "file_name", "filename", "filepath", "file", "path")
CAPTIONS = ("caption", "text", "title")
NAMES = tuple(f"{name}.{kind}" for name in ("captions", "metadata") for kind in ("csv", "tsv", "jsonl", "txt"))
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
SHOWN = 5  # missing images that a message names

Row = tuple[str, str]  # image, by its path from the captions file's folder or from the folder images in it; caption


def captions_file(folder: Path) -> Path:
    """The captions file of a folder, by its usual names; DatasetError where there is none."""
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(f"{folder} has neither shards (*.tar, *.tfrecord) nor one of {', '.join(NAMES)}.")


class CaptionedFolder:
    """Images beside a captions file; all of them must be there. Images are read when their turn comes.

    Raises:
        DatasetError: the file cannot be read or has no such columns, or names images that are missing.
    """

    def __init__(self, file: Path) -> None:
        self.shards: Sequence[Path] = [file]
        rows = _rows_of(file)
        self._pairs = [(_place(file.parent, image), caption) for image, caption in rows]
        _check_images([path for path, _ in self._pairs], file)

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, shard: Path) -> Iterator[Record]:
        for path, caption in self._pairs:
            yield Record(str(path), partial(_load, path, caption))


def _load(path: Path, caption: str) -> tuple[bytes, str]:
    return read_bytes(path), caption


def _place(folder: Path, image: str) -> Path:
    beside, below = folder / image, folder / "images" / image
    return below if not beside.is_file() and below.is_file() else beside


def _check_images(paths: list[Path], file: Path) -> None:
    if not paths:
        raise DatasetError(f"{file} holds no captions.")
    missing = [path for path in dict.fromkeys(paths) if not path.is_file()]
    if missing:
        shown = ", ".join(str(path) for path in missing[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise DatasetError(f"{file.name} names {len(missing)} images that are missing: {shown}{more}.")


def _rows_of(file: Path) -> list[Row]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} cannot be read as UTF-8 text: {error}.") from error
    reader = {".csv": _commas, ".tsv": _tabs, ".jsonl": _json_lines, ".txt": _lines}.get(file.suffix.lower())
    if reader is None:
        raise DatasetError(f"{file}: expected a captions file of kind csv, tsv, jsonl or txt, or shards.")
    return reader(text, file)


def _commas(text: str, file: Path) -> list[Row]:
    return _table(csv.reader(text.splitlines(keepends=True)), file)


def _tabs(text: str, file: Path) -> list[Row]:
    return _table((line.split("\t") for line in text.splitlines()), file)


def _table(lines: Iterator[list[str]], file: Path) -> list[Row]:
    """Columns by the names in the first line."""
    header = [name.strip().lower() for name in next(lines, [])]
    image, caption = (_column(header, names, file) for names in (IMAGES, CAPTIONS))
    rows = []
    for number, cells in enumerate(lines, start=2):
        if not any(map(str.strip, cells)):
            continue
        if len(cells) <= max(image, caption):
            raise DatasetError(f"{file}, line {number}: expected {len(header)} columns, came {len(cells)}.")
        rows.append((cells[image].strip(), cells[caption]))
    return rows


def _column(header: list[str], names: tuple[str, ...], file: Path) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DatasetError(f"{file}: the first line names the columns {header}, none of them {', '.join(names)}.")


def _json_lines(text: str, file: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                entry = json.loads(line)
                image, caption = (entry[next(filter(entry.__contains__, names), "")] for names in (IMAGES, CAPTIONS))
            except (ValueError, TypeError, KeyError) as error:
                raise DatasetError(f"{file}, line {number}: expected JSON with an image and a caption.") from error
            rows.append((str(image), str(caption or "")))
    return rows


def _lines(text: str, file: Path) -> list[Row]:
    """A line for each image of the folder ``images``, in the order of their names, as ``tf-groupvit scenes`` writes.

    Where the first line names columns, the file is a table: Flickr's captions.txt is.
    """
    first = text.partition("\n")[0].lower()
    if {*first.strip().split(",")} & {*IMAGES}:
        return _commas(text, file)
    captions = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
    below = "images" if (file.parent / "images").is_dir() else ""
    folder = file.parent / below
    images = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES))
    if len(images) != len(captions):
        raise DatasetError(f"{file} has {len(captions)} captions for {len(images)} images in {folder}: one a line.")
    return [(os.path.join(below, name), caption) for name, caption in zip(images, captions, strict=True)]
