"""Training pairs as single files: images that a captions file names, or with their texts beside."""

import os
import posixpath
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from tf_groupvit.errors import DatasetError
from tf_groupvit.files import is_junk
from tf_groupvit.storage import beside, is_url, kind_of, listed, name_of, place_of, reason_of
from tf_groupvit.training.caption_shards import (
    TAR_CAPTIONS,
    TAR_IMAGES,
    Part,
    Record,
    StorageError,
    broken,
    load_parts,
    numbered_name,
    read_part,
    records_of_parts,
)
from tf_groupvit.training.caption_tables import Row
from tf_groupvit.training.captions_file import read_rows

SHOWN = 5  # missing images that a message names
WEB = ("http://", "https://")
LOOKED_FOR, AFAR = 1000, 100  # downloads, of which one should be there; each is many requests
DOWNLOADS = ("training", "validation", "images", "")  # folders of them, beside their list
ENDINGS = ("", *(f".{suffix}" for suffix in TAR_IMAGES))
LONGEST_LINE = 2**20  # characters


def open_captions_file(file: str) -> "CaptionedFolder | Downloads":
    """The pairs of a captions file, whose images lie near it.

    Raises:
        DatasetError: as the two classes, and ``captions_file.read_rows``.
    """
    if any(_download(line) for line in islice(_text_lines(file), 1)):
        return Downloads(file, lambda: map(_download, _text_lines(file)))
    rows = read_rows(file)
    if rows and rows[0][0].startswith(WEB):
        return Downloads(file, lambda: rows)
    return CaptionedFolder(file, rows)


class CaptionedFolder:
    """Images next to a captions file, see ``captions_file``; all of them must be there.

    On other storage than a disk only the first is looked for; others that are missing show when
    they are loaded.

    Raises:
        DatasetError: there are no captions, or images are missing.
    """

    def __init__(self, file: str, rows: Sequence[Row]) -> None:
        self.shards: Sequence[str] = [file]
        if not rows:
            raise DatasetError(f"{file} holds no captions.")
        folders, images = _image_folders(file), list(dict.fromkeys(image for image, _ in rows))
        looked_for = images
        if is_url(file):  # a request for each would take too long
            looked_for = images[:1]
            places = {folder: _place(file, folder, images[0]) for folder in folders}
            folders = [next((one for one in folders if _is_there(places[one])), folders[0])]
        self._rows = rows
        self._places = {image: _find_image(file, folders, image) for image in images}
        paths = dict.fromkeys(self._places[image] for image in looked_for)
        if missing := [path for path in paths if not _is_there(path)]:
            shown = ", ".join(missing[:SHOWN])
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise DatasetError(
                f"{name_of(file)} names {len(missing)} images that are missing: {shown}{more}."
                f"{_said(folders)}"
            )

    def read(self, shard: str) -> Iterator[Record]:
        """The pairs in the order of the file; further captions of an image get their own names."""
        seen: dict[str, int] = {}
        for name, caption in self._rows:
            path = self._places[name]
            seen[path] = seen.get(path, 0) + 1
            image: Part = path, 0, None
            yield Record(numbered_name(path, seen[path]), partial(load_parts, image, caption))


def _image_folders(file: str) -> list[str]:
    """Where the images that a file names may lie, seen from its folder.

    COCO's lie in a folder with the name of their part, next to that of the annotations; Flickr8k's
    and Flickr30k's in folders of these names.
    """
    stem, suffix = posixpath.splitext(name_of(file))
    if suffix.lower() != ".json":
        return ["", "images", "Images", "flickr30k_images"]
    part = stem.removeprefix("captions_")
    return ["", "images", part, f"../{part}", "../images"]


def _said(folders: Sequence[str]) -> str:
    """Where images were looked for, in words."""
    others = ", ".join(folders[1:])
    return f" They were looked for there and in the folders {others}." if others else ""


def _place(file: str, folder: str, image: str) -> str:
    return beside(file, image if is_url(image) else posixpath.join(folder, image))


def _find_image(file: str, folders: Sequence[str], image: str) -> str:
    """Where an image is, or would be."""
    places = [_place(file, folder, image) for folder in folders]
    return next((place for place in places[1:] and places if _is_there(place)), places[0])


def _is_there(location: str) -> bool:
    if not is_url(location):
        return os.path.isfile(location)
    system, path = place_of(location)
    return bool(system.isfile(path))


class Downloads:
    """Captions with addresses on the web, and the images that were downloaded from there.

    Conceptual Captions comes as such a file: on each line a caption and an address, or the other
    way around, with a tab between them. An image lies in one of ``DOWNLOADS`` near the file, and is
    called by the CRC-32 of its address, as the usual script does; or by the number of its line,
    from 0, with ``_`` before that. Those that were not downloaded are left out in training.

    Args:
        rows: gives addresses and captions anew; None for a line that has no such parts.

    Raises:
        DatasetError: none of the first images is there.
    """

    def __init__(self, file: str, rows: Callable[[], Iterable[Row | None]]) -> None:
        self.shards: Sequence[str] = [file]
        self._file, self._rows = file, rows
        self._folders = self._there(DOWNLOADS)
        lines = enumerate(islice(rows(), AFAR if is_url(file) else LOOKED_FOR))
        first = [(number, row[0]) for number, row in lines if row]
        if not any(self._find(*one) for one in first):
            raise DatasetError(
                f"{file}: none of its first {len(first)} images is there: expected them in a folder"
                f" training next to it, such as training/{zlib.crc32(first[0][1].encode())} (the"
                " CRC-32 of its address); or name them, in a column image."
            )

    def read(self, shard: str) -> Iterator[Record]:
        """The pairs in the order of the file, with those that lack an image."""
        for number, row in enumerate(self._rows()):
            name = f"{shard}, line {number + 1}"
            if row:
                yield Record(name, partial(self._load, number, *row))
            else:
                yield broken(name, "it is no caption and address with a tab between them")

    def _load(self, number: int, address: str, caption: str) -> tuple[bytes, str]:
        image = self._find(number, address)
        if not image:
            try:
                gone = {*self._folders} - {*self._there(self._folders)}
            except Exception as error:  # each storage has errors of its own
                raise StorageError(f"the folders cannot be read: {reason_of(error)}") from error
            if gone:
                raise StorageError(f"the folder {beside(self._file, min(gone) or '.')} is gone")
            raise DatasetError("its image was not downloaded")
        return read_part(image), caption

    def _there(self, folders: Iterable[str]) -> list[str]:
        places = {name: beside(self._file, name or ".") for name in folders}
        return [name for name, place in places.items() if kind_of(place) == "directory"]

    def _find(self, number: int, address: str) -> str:
        """Where a download is; empty where it is not."""
        crc = zlib.crc32(address.encode())
        for stem in (f"{crc}", f"{number}_{crc}"):
            for folder in self._folders:
                for ending in ENDINGS:
                    place = _place(self._file, folder, stem + ending)
                    if _is_there(place):
                        return place
        return ""


def _text_lines(file: str) -> Iterator[str]:
    system, path = place_of(file)
    try:
        with system.open(path, "r", encoding="utf-8-sig", errors="replace", newline="\n") as lines:
            while line := lines.readline(LONGEST_LINE):
                yield line.rstrip("\r\n")
    except Exception as error:  # each storage has errors of its own
        raise DatasetError(f"{file} cannot be read: {reason_of(error)}.") from error


def _download(line: str) -> Row | None:
    """Address and caption of a line with both and a tab between them."""
    first, *others = line.split("\t")
    if others and others[0].startswith(WEB):
        return others[0].strip(), first
    return (first.strip(), others[0]) if others and first.startswith(WEB) else None


class ImagesWithTexts:
    """Folders of images, each with a txt or json of the same name, as img2dataset's "files".

    Args:
        folders: each is read like a shard.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.shards = folders

    def read(self, shard: str) -> Iterator[Record]:
        """The pairs in the order of their names, and what lacks an image or a caption."""
        try:
            groups = _with_texts(shard)
        except Exception as error:  # each storage has errors of its own
            reason = f"the folder cannot be read: {reason_of(error)}"
            yield broken(shard, reason, StorageError)
            return
        for stem, parts in groups.items():
            yield from records_of_parts(f"{shard.rstrip('/')}/{stem}", parts)


def folders_with_texts(folder: str) -> list[str]:
    """The folder if it has images with their texts, with those in it that do; or all in it."""
    below = [path for path, is_folder in listed(folder) if is_folder and not is_junk(name_of(path))]
    if _has_texts(folder):
        return [folder, *filter(_has_texts, below)]
    return below if any(map(_has_texts, below)) else []


def _has_texts(folder: str) -> bool:
    images, texts = set(TAR_IMAGES), set(TAR_CAPTIONS)
    return any(
        images & parts.keys() and texts & parts.keys() for parts in _with_texts(folder).values()
    )


def _with_texts(folder: str) -> dict[str, dict[str, Part]]:
    """Images and texts of a folder by name, then by suffix; without JSON that goes with none."""
    found: dict[str, dict[str, Part]] = {}
    for path, is_folder in listed(folder):
        stem, ending = posixpath.splitext(name_of(path))
        kind = ending[1:].lower()
        if not is_folder and kind in TAR_IMAGES + TAR_CAPTIONS and not is_junk(stem):
            found.setdefault(stem, {})[kind] = path, 0, None
    return {stem: parts for stem, parts in found.items() if parts.keys() != {"json"}}
