"""Small datasets on disk, in the layouts that users have: written by hand, so that answers can be
worked out.
"""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, height: int = 2, width: int = 2, gray: int = 128) -> None:
    """A plain picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), gray, np.uint8)).save(path)


def write_mask(path: Path, numbers: list[list[int]], kind: str = "gray") -> None:
    """Class numbers as a PNG: one byte a pixel (gray, palette) or two (sixteen)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.array(numbers)
    if kind == "sixteen":
        Image.fromarray(array.astype(np.uint16)).save(path)
        return
    picture = Image.fromarray(array.astype(np.uint8))
    if kind == "palette":
        picture.putpalette(
            [channel for k in range(256) for channel in (255 - k, k, 7)]
        )  # no color is its number
        assert picture.mode == "P"
    picture.save(path)


def write_split(path: Path, names: list[str]) -> None:
    """A split file, one name a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


# For each layout: the home below the root, then how images, masks and the split are called in it.
def voc_tree(
    root: Path, masks: dict[str, list[list[int]]], kind: str = "palette", year: str = "VOC2012"
) -> Path:
    """VOCdevkit; ``masks`` are {name: numbers}; returns the home."""
    home = root / "VOCdevkit" / year
    suffix = "" if year == "VOC2012" else "Context"
    for name, numbers in masks.items():
        write_image(home / "JPEGImages" / f"{name}.jpg", len(numbers), len(numbers[0]))
        write_mask(home / f"SegmentationClass{suffix}" / f"{name}.png", numbers, kind)
    write_split(home / "ImageSets" / f"Segmentation{suffix}" / "val.txt", list(masks))
    return home


def plain_tree(
    home: Path, images: str, masks: str, numbers: dict[str, list[list[int]]], suffixes=("", ".png")
) -> Path:
    """Images and masks in two folders; ``suffixes`` follow a name in the image (before .jpg) and
    the mask.
    """
    for name, rows in numbers.items():
        write_image(home / images / f"{name}{suffixes[0]}.jpg", len(rows), len(rows[0]))
        write_mask(home / masks / f"{name}{suffixes[1]}", rows)
    return home


def coco_tree(root: Path, numbers: dict[str, list[list[int]]], mask_suffix: str = ".png") -> Path:
    """coco_stuff164k."""
    return plain_tree(
        root / "coco_stuff164k",
        "images/val2017",
        "annotations/val2017",
        numbers,
        suffixes=("", mask_suffix),
    )


def ade_tree(root: Path, numbers: dict[str, list[list[int]]]) -> Path:
    """ADEChallengeData2016."""
    return plain_tree(
        root / "ADEChallengeData2016", "images/validation", "annotations/validation", numbers
    )


def cityscapes_tree(
    root: Path, numbers: dict[str, list[list[int]]], kind: str = "labelIds"
) -> Path:
    """cityscapes; names are like frankfurt/frankfurt_000000_000294."""
    home = root / "cityscapes"
    for name, rows in numbers.items():
        write_image(home / "leftImg8bit/val" / f"{name}_leftImg8bit.png", len(rows), len(rows[0]))
        write_mask(home / "gtFine/val" / f"{name}_gtFine_{kind}.png", rows)
        write_mask(home / "gtFine/val" / f"{name}_gtFine_instanceIds.png", rows, "sixteen")
    return home


class Answers:
    """A segmenter that gives prepared labels, one picture after the other, and remembers what it
    was shown.
    """

    def __init__(self, *labels: list[list[int]]) -> None:
        self.labels = list(labels)
        self.shown: list[np.ndarray] = []

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.shown.append(image)
        return np.array(self.labels[len(self.shown) - 1])
