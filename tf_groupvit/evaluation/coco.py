"""Masks in a file of COCO annotations: regions as polygons or run lengths, with a category each, or
panoptic pictures.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tf_groupvit.errors import DatasetError, one_line
from tf_groupvit.evaluation.masks import UPRIGHT, ColorMask, Mask, Size
from tf_groupvit.evaluation.numbering import Numbering, Row
from tf_groupvit.files import refuse_pointer
from tf_groupvit.preprocessing.image_reading import MAX_PIXELS

MISSING = "Polygons of COCO need pycocotools: pip install 'tf-groupvit[annotate]'."


SEGMENTS = "segments_info"  # what only annotations of panoptic pictures have


@dataclass(frozen=True)
class CocoFile:
    """What a file of annotations says: categories, and the regions of each picture.

    Attributes:
        rows: the numbers and names of the categories, by number.
        pictures: {file name: (width, height), annotations}; of panoptic ones, those that have one.
        folder: of the panoptic pictures; None where the file has regions.
    """

    path: Path
    rows: list[Row]
    pictures: dict[str, tuple[Size, list[dict[str, Any]]]]
    folder: Path | None = None

    def mask(self, picture: str, numbering: Numbering) -> Mask:
        """The mask of a picture."""
        size, annotations = self.pictures[picture]
        if self.folder is None:
            return CocoMask(self.path, picture, size, annotations, numbering)
        (annotation,) = annotations
        segments = {0: numbering.ignored} | {
            one.get("id"): numbering.labels.get(one["category_id"], numbering.ignored)
            for one in annotation[SEGMENTS]
        }
        path, unknown = self.folder / annotation["file_name"], "is no segment of its annotations"
        return ColorMask(path, segments, numbering.ignored, unknown)


@dataclass(frozen=True)
class CocoMask:
    """The mask of one picture: larger regions first, smaller ones over them.

    Pixels of no region are background where there is one, else they do not count.
    """

    file: Path
    picture: str
    size: Size
    annotations: list[dict[str, Any]] = field(repr=False)
    numbering: Numbering = field(repr=False)

    def __str__(self) -> str:
        return f"{self.file}: {self.picture}"

    def size_and_orientation(self) -> tuple[Size, int]:
        """(width, height), and that it lies upright."""
        return self.size, UPRIGHT

    def labels(self) -> np.ndarray:
        """The labels (H, W), uint8 or, over 255 classes, int32.

        Raises ``DatasetError`` for a region that cannot be drawn.
        """
        width, height = self.size
        ignored, names = self.numbering.ignored, self.numbering.class_names
        filled = 0 if len(names) > len(self.numbering.prompts) else ignored
        labels = np.full((height, width), filled, np.uint8 if ignored <= 255 else np.int32)
        # Regions are drawn twice, since all of a large picture at once take much memory.
        for item in sorted(self.annotations, key=lambda item: -int(self._region(item).sum())):
            labels[self._region(item)] = self.numbering.labels.get(item["category_id"], ignored)
        return labels

    def _region(self, annotation: dict[str, Any]) -> np.ndarray:
        """The pixels (H, W) bool of an annotation."""
        try:
            return region_of(annotation.get("segmentation"), self.size)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            number = annotation.get("id")
            raise DatasetError(f"{self}: annotation {number}: {one_line(error)}.") from error


def read_coco(path: Path) -> CocoFile:
    """Read a file of annotations whole.

    The PNG of panoptic annotations are in the folder of the file's name beside it, as COCO's own
    are, or in that of the file. Their pixels of no segment, which are black, do not count: nobody
    has labeled them.

    Raises ``DatasetError`` for a file that cannot be read or is of another kind, and for pictures,
    categories or annotations that do not fit together.
    """
    refuse_pointer(path, DatasetError)
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON: {one_line(error)}.") from error
    try:
        images, categories = content["images"], content["categories"]
        rows = sorted((int(category["id"]), str(category["name"])) for category in categories)
        known = {number for number, _ in rows}
        by_id: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
        sizes = {image["id"]: (int(image["width"]), int(image["height"])) for image in images}
        names = {image["id"]: str(image["file_name"]) for image in images}
        panoptic = any(SEGMENTS in annotation for annotation in content["annotations"])
        for annotation in content["annotations"]:
            if panoptic:
                annotation["file_name"] = str(annotation["file_name"])
            for region in annotation[SEGMENTS] if panoptic else [annotation]:
                if annotation["image_id"] not in by_id or region["category_id"] not in known:
                    raise DatasetError(
                        f"{path}: annotation {region.get('id')} is of picture"
                        f" {annotation['image_id']} and category {region['category_id']}: one of"
                        " them is not in the file."
                    )
            by_id[annotation["image_id"]].append(annotation)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise DatasetError(
            f"{path}: expected COCO annotations, with images (id, file_name, width, height),"
            " categories (id, name) and annotations (id, image_id, category_id, segmentation; or"
            f" image_id, file_name, segments_info): {reason}."
        ) from error
    for image, (width, height) in sizes.items():
        if min(width, height) < 1 or width * height > MAX_PIXELS:
            raise DatasetError(f"{path}: {names[image]} is {width}x{height} pixels.")
    if len(set(names.values())) < len(images):
        raise DatasetError(f"{path}: two pictures have one file name, or one id.")
    if not rows or len(known) < len(rows):
        raise DatasetError(f"{path}: expected categories, each with a number of its own.")
    pictures = {names[k]: (sizes[k], found) for k, found in by_id.items() if found or not panoptic}
    if not panoptic:
        return CocoFile(path, rows, pictures)
    if twice := next((name for name, (_, found) in pictures.items() if len(found) > 1), None):
        raise DatasetError(f"{path}: {twice} has two panoptic annotations: expected one.")
    beside = path.with_suffix("")
    return CocoFile(path, rows, pictures, beside if beside.is_dir() else path.parent)


def region_of(segmentation: Any, size: Size) -> np.ndarray:
    """The pixels (H, W) bool of a segmentation: polygons, or run lengths, also compressed.

    Polygons are drawn as pycocotools does. Raises ``ValueError`` for anything else.
    """
    width, height = size
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [height, width]:
            raise ValueError(
                f"its size is {segmentation.get('size')}, and the picture's [{height}, {width}]"
            )
        counts = segmentation["counts"]
        runs = _runs_of(counts) if isinstance(counts, str) else [int(count) for count in counts]
        if min(runs, default=-1) < 0 or sum(runs) != height * width:
            raise ValueError(f"its run lengths do not add up to {height * width} pixels")
        colors = np.arange(len(runs)) % 2 == 1
        return np.repeat(colors, runs).reshape(width, height).T
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has no segmentation: boxes alone are no masks")
    return _drawn(segmentation, width, height)


def _drawn(polygons: list[Any], width: int, height: int) -> np.ndarray:
    outlines = [np.asarray(polygon, np.float64) for polygon in polygons]
    for corners in outlines:
        if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
            raise ValueError("expected polygons as [x1, y1, x2, y2, x3, y3, ...]")
        # Drawing takes memory by the length of the outline.
        if not (np.abs(corners) <= 2 * (width + height)).all():
            raise ValueError("a polygon lies far outside the picture")
    try:
        from pycocotools import mask
    except ImportError:
        raise DatasetError(MISSING) from None
    drawn = mask.merge(mask.frPyObjects([corners.tolist() for corners in outlines], height, width))
    return mask.decode(drawn).astype(bool)


def _runs_of(text: str) -> list[int]:
    """The run lengths in COCO's text: five bits a letter, low ones first, and from the third on the
    difference from the run before the last.
    """
    # pycocotools decodes a text that is too short to pixels that nobody wrote.
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode():
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its run lengths are no text of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut short")
    return runs
