"""A mask file and a map of its numbers in; labels (H, W), 255 where a pixel does not count, out."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from tf_groupvit.errors import DatasetError, ImageError
from tf_groupvit.evaluation.benchmarks import IGNORED, UNKNOWN
from tf_groupvit.hub import refuse_pointer
from tf_groupvit.preprocessing.image_reading import read_class_numbers


def read_numbers(path: Path) -> np.ndarray:
    """The class numbers (H, W) as they are in the file.

    Raises ``DatasetError`` for a file that is missing, damaged, or holds colours in place of numbers.
    """
    with open_picture(path) as picture:
        try:
            return read_class_numbers(picture, str(path)).astype(np.int32)
        except ImageError as error:
            raise DatasetError(str(error)) from error


def read_labels(path: Path, table: np.ndarray) -> np.ndarray:
    """The labels (H, W) uint8 of a mask, by its dataset's map (256).

    Raises ``DatasetError`` as ``read_numbers`` does, and for a number that the map does not know.
    """
    numbers = read_numbers(path)
    inside = (numbers >= 0) & (numbers < len(table))
    labels = np.where(inside, table[np.where(inside, numbers, 0)], UNKNOWN)
    if (labels == UNKNOWN).any():
        stranger = int(numbers[labels == UNKNOWN].flat[0])
        raise DatasetError(
            f"{path}: label {stranger} is beyond the class list: expected {_known(table)}, "
            f"{IGNORED} where nothing counts: is it a mask of this dataset?"
        )
    return labels.astype(np.uint8)


def open_picture(path: Path) -> Image.Image:
    """A picture whose header is read. Raises ``DatasetError`` where it is missing or no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such file: the dataset is incomplete.") from None
    except Exception as error:  # Pillow's readers raise whatever a broken header makes them raise
        refuse_pointer(path, DatasetError)
        raise DatasetError(f"{path}: expected an image file: {' '.join(str(error).split()).rstrip('.')}.") from error


def _known(table: np.ndarray) -> str:
    numbers = np.flatnonzero((table != UNKNOWN) & (np.arange(len(table)) != IGNORED))
    return f"0..{int(numbers[-1])}" if len(numbers) == numbers[-1] + 1 else f"one of {len(numbers)} numbers"
