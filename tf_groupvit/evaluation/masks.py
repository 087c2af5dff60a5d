"""Mask files: their labels, and how they have to be turned to lie over their photo.

A camera stores a photo as its sensor lies, and EXIF says how to turn it upright. A mask is drawn
over the stored pixels or over the upright photo; to find out which, only headers are read.
"""

import os
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from tf_groupvit.errors import DatasetError, ImageError, InputError, one_line
from tf_groupvit.evaluation.benchmarks import IGNORED, UNKNOWN, ignored_of
from tf_groupvit.evaluation.numbering import color_number
from tf_groupvit.files import EXIF_ORIENTATION, refuse_pointer
from tf_groupvit.preprocessing.image_reading import ORIENTATIONS, read_class_numbers

AS_PHOTO = "as-photo"  # the mask lies as the upright photo
AS_STORED = "as-stored"  # the mask lies as the stored pixels, and has to be turned with them
MASK_ORIENTATIONS = (AS_PHOTO, AS_STORED)
UPRIGHT = 1
NOTES = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # chunks of a PNG that may hold an orientation
Size = tuple[int, int]  # width, height


def read_numbers(path: Path) -> np.ndarray:
    """The class numbers (H, W) int32 of a mask, as they are in the file.

    Raises ``DatasetError`` for a file that is missing, damaged, or holds colors, not numbers.
    """
    with open_picture(path) as picture:
        try:
            return read_class_numbers(picture, str(path)).astype(np.int32)
        except ImageError as error:
            raise DatasetError(str(error)) from error


def read_labels(path: Path, table: np.ndarray, advice: str = "") -> np.ndarray:
    """The labels (H, W) of a mask, by its dataset's label map (256 or more), in uint8 if they fit.

    Raises ``DatasetError`` as ``read_numbers`` does, and for a number that is not in the map, where
    ``advice`` ends the message.
    """
    numbers = read_numbers(path)
    inside = (numbers >= 0) & (numbers < len(table))
    labels = np.where(inside, table[np.where(inside, numbers, 0)], UNKNOWN)
    if (labels == UNKNOWN).any():
        unknown = int(numbers[labels == UNKNOWN].flat[0])
        advice = advice or f"{IGNORED} where nothing counts: is it a mask of this dataset?"
        raise DatasetError(
            f"{path}: label {unknown} is beyond the class list: expected {_known(table)}, {advice}"
        )
    return labels.astype(np.uint8 if labels.max(initial=0) <= IGNORED else np.int32)


class Mask(Protocol):
    """The labels of one picture, wherever they come from; as a text, what errors call it."""

    def size_and_orientation(self) -> tuple[Size, int]:
        """(width, height) as stored, and its own EXIF orientation, without reading pixels."""

    def labels(self) -> np.ndarray:
        """The labels (H, W) as stored. Raises ``DatasetError`` where they cannot be used."""


@dataclass(frozen=True)
class MaskFile:
    """A mask in an image file, with the map (256 or more) of its numbers to labels.

    ``advice`` ends the message about a number that is not in the map.
    """

    path: Path
    table: np.ndarray = field(repr=False)
    advice: str = ""

    def __str__(self) -> str:
        return str(self.path)

    def size_and_orientation(self) -> tuple[Size, int]:
        """As ``Mask`` says."""
        return size_and_orientation(self.path)

    def labels(self) -> np.ndarray:
        """As ``read_labels``."""
        return read_labels(self.path, self.table, self.advice)


@dataclass(frozen=True)
class ColorMask:
    """A mask in an image file whose colors are classes.

    Attributes:
        colors: {color, as ``read_colors`` counts: label}.
        ignored: the label of pixels that do not count.
        unknown: what an error says about a color that is not among them.
    """

    path: Path
    colors: dict[int, int] = field(repr=False)
    ignored: int
    unknown: str

    def __str__(self) -> str:
        return str(self.path)

    def size_and_orientation(self) -> tuple[Size, int]:
        """As ``Mask`` says."""
        return size_and_orientation(self.path)

    def labels(self) -> np.ndarray:
        """The labels (H, W), uint8 or, over 255 classes, int32.

        Raises ``DatasetError`` as ``read_colors`` does, and for a color that is none of them.
        """
        colors = read_colors(self.path)
        found, places = np.unique(colors, return_inverse=True)
        if strange := [int(one) for one in found if int(one) not in self.colors]:
            red, green, blue = strange[0] & 255, strange[0] >> 8 & 255, strange[0] >> 16
            raise DatasetError(
                f"{self}: {strange[0]}, the color {red},{green},{blue}, {self.unknown}."
            )
        kind = np.uint8 if self.ignored <= IGNORED else np.int32
        return np.array([self.colors[int(one)] for one in found], kind)[
            places.reshape(colors.shape)
        ]


def read_colors(path: Path) -> np.ndarray:
    """The colors (H, W) int32 of a picture, as ``color_number``; those of a palette, too.

    Raises ``DatasetError`` for a file that is missing, damaged, or has no exact colors.
    """
    with open_picture(path) as picture:
        if picture.mode not in ("RGB", "RGBA", "P") or picture.format in ("JPEG", "MPO"):
            raise DatasetError(
                f"{path}: expected a PNG with the colors of classes (RGB or palette), received"
                f" {picture.format} with pixels of {picture.mode}."
            )
        try:
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB"), np.int32), -1, 0)
        except Exception as error:  # Pillow's readers raise whatever a broken file makes them
            raise DatasetError(f"{path}: cannot be read: {one_line(error)}.") from error
    numbers: np.ndarray = color_number(red, green, blue)
    return numbers


def open_picture(path: Path) -> Image.Image:
    """A picture of which only the header is read. Raises ``DatasetError`` where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such file: the dataset is incomplete.") from None
    except Exception as error:  # Pillow's readers raise whatever a broken header makes them raise
        refuse_pointer(path, DatasetError)
        raise DatasetError(
            f"{path}: expected an image file: {' '.join(str(error).split()).rstrip('.')}."
        ) from error


def _known(table: np.ndarray) -> str:
    ignored = ignored_of(int(table.max()))  # as a label, which is above the classes
    numbers = np.flatnonzero((table != UNKNOWN) & (np.arange(len(table)) != ignored))
    whole = len(numbers) > 0 and len(numbers) == numbers[-1] + 1
    return f"0..{int(numbers[-1])}" if whole else f"one of {len(numbers)} numbers"


def checked_choice(choice: str | None) -> str | None:
    """One of ``MASK_ORIENTATIONS``, or None. Raises ``InputError`` for anything else."""
    if choice is not None and choice not in MASK_ORIENTATIONS:
        raise InputError(
            f"mask_orientation is {choice!r}: expected one of {', '.join(MASK_ORIENTATIONS)}."
        )
    return choice


def turn_of(image: Path, mask: Mask, choice: str | None = None) -> int:
    """The EXIF orientation by which a mask has to be turned to lie over the upright photo.

    It is 1 where the mask lies so already. A mask with an orientation of its own is turned by that;
    else the sizes decide, and where they fit both ways, ``choice``.

    Raises:
        DatasetError: the mask has another size than the photo, or only ``choice`` could decide and
            there is none.
    """
    try:
        stored, photo = size_and_orientation(image)
    except DatasetError:
        return UPRIGHT  # the evaluation will meet, count and name the broken image
    drawn, own = mask.size_and_orientation()
    seen, shown = _turned(stored, photo), _turned(drawn, own)
    fits = {AS_PHOTO: shown == seen, AS_STORED: drawn == stored and own in (UPRIGHT, photo)}
    if not any(fits.values()):
        raise DatasetError(
            f"{mask}: expected the {_by(seen)} of its image {image.name}, received {_by(shown)}: "
            "is it the mask of another picture?"
        )
    if own != UPRIGHT or photo == UPRIGHT:
        return own
    if all(fits.values()) and choice is None:
        raise DatasetError(
            f"{mask}: its photo {image.name} is turned by EXIF (orientation {photo}), and sizes do"
            f" not tell whether the mask is: give --mask-orientation {AS_PHOTO} where masks lie as"
            f" the upright photo, {AS_STORED} where they lie as its stored pixels."
        )
    as_photo = choice == AS_PHOTO if all(fits.values()) else fits[AS_PHOTO]
    return UPRIGHT if as_photo else photo


def size_and_orientation(path: Path) -> tuple[Size, int]:
    """(width, height) as stored, and the EXIF orientation, 1 to 8.

    Raises ``DatasetError`` where there is no picture.
    """
    with open_picture(path) as picture:
        try:
            # Pillow's own getexif decodes the pixels of a PNG, to look for EXIF behind them.
            quick = picture.format == "PNG" and not _notes_behind(path)
            found = (Image.Image.getexif(picture) if quick else picture.getexif()).get(
                EXIF_ORIENTATION, UPRIGHT
            )
            return picture.size, int(found) if int(found) in ORIENTATIONS else UPRIGHT
        except Exception:  # as in reading images: broken EXIF says nothing about the orientation
            return picture.size, UPRIGHT


def _notes_behind(path: Path) -> bool:
    """Whether a PNG has text or EXIF behind its pixels, where some programs write it."""
    pixels = False
    with open(path, "rb") as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if pixels and kind in NOTES:
                return True
            pixels = pixels or kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)
    return False


def _turned(size: Size, orientation: int) -> Size:
    swapped, _, _ = ORIENTATIONS[orientation]
    return size[::-1] if swapped else size


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]} pixels"
