"""The record of a picture: its regions as run lengths, in memory and as rows of Parquet.

Masks are COCO's compressed run lengths, which ``pycocotools`` and most tools of annotation read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from tf_groupvit.errors import InputError

if TYPE_CHECKING:
    from tf_groupvit.segmentation.result import Segmentation

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "classes": pa.list_(pa.int32()),
        "rles": pa.list_(pa.binary()),
        "areas": pa.list_(pa.float64()),
        "scores": pa.list_(pa.float64()),
        "confidence": pa.float64(),
        "error": pa.string(),
    }
)
IGNORE, WIDE_IGNORE = 255, 65535  # the number of pixels of no class, in labels of one and two bytes


@dataclass(frozen=True)
class Record:
    """What was found in one picture, or why nothing could be.

    Attributes:
        id: of the picture, the same in every run.
        height, width: of the upright picture, in pixels; 0 where there is an error.
        classes: the numbers of the classes that are present, ascending.
        rles: the region of each of them, as COCO's compressed run lengths.
        areas: the fraction of the picture's pixels that each of them has.
        scores: the highest score of any pixel of the picture for each of them; of refined masks it
            can be above 1.
        confidence: the mean of the pixels' margins, from 0 to 1: by how much the best class is
            ahead of the second, and 0 along borders of classes. It is not calibrated: it orders the
            pictures of one run, and is no probability of being right. Source of the measure:
            Scheffer et al. 2001, "Active hidden Markov models for information extraction", sec. 3.
        error: why the picture could not be done; None where it was.
    """

    id: str
    height: int = 0
    width: int = 0
    classes: list[int] = field(default_factory=list)
    rles: list[bytes] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    confidence: float | None = None
    error: str | None = None


def record_of(item_id: str, result: "Segmentation", ignore_below: float | None = None) -> Record:
    """The record of a segmentation.

    ignore_below: pixels whose margin is smaller belong to no class; None keeps all.
    """
    labels, margins = result.labels, result.margins
    kept = None if ignore_below is None else margins >= ignore_below
    pixels = np.bincount((labels if kept is None else labels[kept]).ravel())
    present = np.flatnonzero(pixels)
    highest = list(result.class_scores.values())
    return Record(
        id=item_id,
        height=labels.shape[0],
        width=labels.shape[1],
        classes=present.tolist(),
        rles=[_run_lengths(labels, kept, int(number)) for number in present],
        areas=(pixels[present] / labels.size).tolist(),
        scores=[highest[number] for number in present],
        confidence=float(margins.mean(dtype=np.float64)),
    )


def _run_lengths(labels: np.ndarray, kept: np.ndarray | None, number: int) -> bytes:
    mask = labels == number
    if kept is not None:
        mask &= kept
    counts: bytes = coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"]
    return counts


def ignore_value(count: int) -> int:
    """The number of pixels that belong to none of ``count`` classes: 255, as most tools have it.

    Where 255 is a class it is 65535, and where that is one, too, there is none: InputError.
    """
    if count > WIDE_IGNORE:
        raise InputError(
            f"{count:,} classes do not fit into two bytes: name at most {WIDE_IGNORE:,}."
        )
    return IGNORE if count <= IGNORE else WIDE_IGNORE


def labels_of(record: Record, count: int) -> np.ndarray:
    """The class number of each pixel, (H, W): uint8 up to 255 classes, else uint16.

    Pixels of no class have ``ignore_value(count)``. Raises ``InputError`` where the record is that
    of a picture that failed.
    """
    if record.error is not None:
        raise InputError(f"{record.id} has no labels: {record.error}")
    size = record.height, record.width
    ignore = ignore_value(count)
    labels = np.full(size, ignore, np.uint8 if ignore == IGNORE else np.uint16)
    for number, mask in masks_of(record):
        labels[mask] = number
    return labels


def masks_of(record: Record) -> Iterator[tuple[int, np.ndarray]]:
    """The number of each class that is present, with its mask, bool (H, W)."""
    size = [record.height, record.width]
    for number, counts in zip(record.classes, record.rles, strict=True):
        yield number, coco.decode({"size": size, "counts": counts}).view(bool)


def table_of(records: Iterable[Record]) -> pa.Table:
    """Records as a table of ``SCHEMA``, a row each."""
    return pa.Table.from_pylist([asdict(record) for record in records], SCHEMA)


def records_in(table: pa.Table | pa.RecordBatch) -> Iterator[Record]:
    """The records of a table of ``SCHEMA``; columns that are not a record's are passed over."""
    names = [one.name for one in fields(Record)]
    for row in table.select(names).to_pylist():
        yield Record(**row)
