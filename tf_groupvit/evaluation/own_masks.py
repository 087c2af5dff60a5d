"""Pictures and masks of one's own: a folder of each, or COCO annotations in place of the masks."""

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from tf_groupvit.errors import DatasetError
from tf_groupvit.evaluation.coco import CocoFile
from tf_groupvit.evaluation.layouts import Pair, files_in
from tf_groupvit.evaluation.masks import ColorMask, Mask, MaskFile
from tf_groupvit.evaluation.numbering import Numbering
from tf_groupvit.files import IMAGE_SUFFIXES

LABELS = ".labels"  # behind the name of a picture, in what segment and query write of it
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # they keep numbers as they are
NO_MASK, NO_PICTURE = "it has no mask", "its mask has no picture"
PICTURES = "pictures"
MOST_NAMES = 5  # that a message shows


def find_own_pairs(
    images: Path, masks: Path | CocoFile, numbering: Numbering
) -> tuple[list[Pair], dict[str, str]]:
    """The pictures that have a mask, in the order of their names, and {name: what is missing}.

    A picture and its mask have the same path below their folders, but for what follows the last
    dot; the mask may be called NAME.labels.png, as ``segment`` writes it, and what that writes
    beside it is passed over. Both may lie in one folder, where masks are PNG and pictures are not
    or the masks are called so, or one below the other. Of COCO annotations, the path is the
    ``file_name``.

    Raises ``DatasetError``: a folder is missing or empty, two files have one name, or there is no
    pair.
    """
    pictures = _by_name(images, _keyed(_found(images, IMAGE_SUFFIXES, PICTURES, masks)))
    found: dict[str, Mask] = {}
    if isinstance(masks, CocoFile):
        for file in masks.pictures:
            found[_key(file.replace("\\", "/"))] = masks.mask(file, numbering)
        place = masks.path
    else:
        place = masks
        table = np.zeros(0) if numbering.colors else numbering.label_map()
        void = ", ".join(map(str, numbering.ignored_numbers())) or "no number"
        advice = f"{void} where nothing counts: see --ignore and --table."
        files = _without_views(_found(masks, MASK_SUFFIXES, "masks", images), pictures)
        for name, path in _by_name(masks, files).items():
            if numbering.colors:
                unknown = "is not in the table of colors"
                found[name] = ColorMask(path, numbering.labels, numbering.ignored, unknown)
            else:
                found[name] = MaskFile(path, table, advice)
    pairs = [Pair(name, pictures[name], found[name]) for name in sorted(pictures) if name in found]
    if not pairs:
        raise DatasetError(
            f"{place}: expected masks that are called like the pictures in {images}: the pictures"
            f" are {shown(pictures)}, and the masks {shown(found)}."
        )
    alone = {name: NO_MASK for name in sorted(pictures) if name not in found}
    alone |= {name: NO_PICTURE for name in sorted(found) if name not in pictures}
    return pairs, alone


def shown(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    first = ", ".join(list(names)[:MOST_NAMES])
    return f"{first} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else first


def _found(folder: Path, suffixes: Iterable[str], what: str, other: Path | CocoFile) -> list[str]:
    """The files of a kind below a folder, without those of the other folder where it is inside."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder of {what}.")
    inside = None  # the other folder, from this one
    if isinstance(other, Path) and other.is_relative_to(folder) and other != folder:
        inside = other.relative_to(folder)
    files = [
        name
        for name in sorted(files_in(folder))
        if Path(name).suffix.lower() in suffixes
        and not (inside and Path(name).is_relative_to(inside))
    ]
    if other == folder:
        files = _of_one_folder(files, what)
    if not files:
        kinds = ", ".join(sorted(suffixes))
        lists = any(folder.rglob("*.json"))
        hint = ": COCO annotations are given as the file itself" if lists else ""
        hint = ": in one folder with the masks, these are no masks" if other == folder else hint
        raise DatasetError(f"{folder}: expected {what} ({kinds}), found none{hint}.")
    return files


def _of_one_folder(files: list[str], what: str) -> list[str]:
    """The pictures or the masks among the files of a folder that has both."""
    segmented = {file for file, key in _keyed(files).items() if key.endswith(LABELS)}
    if not segmented:
        return [
            file
            for file in files
            if what != PICTURES or Path(file).suffix.lower() not in MASK_SUFFIXES
        ]
    if what != PICTURES:
        return sorted(segmented)
    return [file for file in _without_views(files) if file not in segmented]


def _without_views(files: list[str], pictures: Collection[str] = ()) -> dict[str, str]:
    """{file: the name of its picture}, where NAME.labels.png goes by NAME.

    The others that ``segment`` writes beside it, such as NAME.overlay.png, are left out. What is
    called as one of the pictures is taken as it is.
    """
    keys = _keyed(files)
    plain = {file: key for file, key in keys.items() if key in pictures}
    rest = {file: key for file, key in keys.items() if key not in pictures}
    labels = {file: key.removesuffix(LABELS) for file, key in rest.items() if key.endswith(LABELS)}
    names = set(labels.values())
    others = {file: key for file, key in rest.items() if key.rpartition(".")[0] not in names}
    return plain | labels | others


def _keyed(files: Iterable[str]) -> dict[str, str]:
    return {file: _key(file) for file in files}


def _by_name(folder: Path, files: Mapping[str, str]) -> Mapping[str, Path]:
    found: dict[str, str] = {}
    for file, name in files.items():
        other = found.setdefault(name, file)
        if other != file:
            raise DatasetError(
                f"{folder}: {other} and {file} have one name: leave one of them out."
            )
    return {name: folder / file for name, file in found.items()}


def _key(file: str) -> str:
    """A path without its suffix, in composed letters: macOS writes accents apart."""
    return unicodedata.normalize("NFC", str(PurePosixPath(file).with_suffix("")))
