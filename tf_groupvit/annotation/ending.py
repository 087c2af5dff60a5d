"""What is written of all records in the end: errors, what to look at first, sums, and a sheet.

All of it follows from the records alone, whoever made them.
"""

import csv
import hashlib
import heapq
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from tf_groupvit.annotation.records import Record, labels_of
from tf_groupvit.annotation.sources import Found, Item, Problem
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.segmentation.contact_sheet import contact_sheet
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.storage import Output

ERRORS, REVIEW, SUMMARY, SHEET = "errors.jsonl", "review.csv", "summary.json", "contact_sheet.jpg"
MOST_REVIEWED = 100_000  # pictures that the list of the least certain names
ON_SHEET = 12  # pictures
MOST_NAMED = 5  # failures that the sums name
IGNORED = "(ignored)"  # what a picture calls pixels of no class


class Ending:
    """Sums up records one by one; what it keeps of them does not grow with their number.

    class_names: in the order of their numbers. seed: decides which pictures are on the sheet.
    """

    def __init__(self, class_names: Sequence[str], seed: int = 0) -> None:
        self.class_names, self.seed = list(class_names), seed
        self.done = self.failed = self.pixels = 0
        self.of_class = np.zeros(len(self.class_names), np.int64)  # pixels
        self.pictures_with = np.zeros(len(self.class_names), np.int64)
        self.confidence = 0.0
        self.first_errors: list[dict[str, str]] = []
        self._reviewed: list[tuple[float, str, str]] = []  # a heap, the most certain first
        self._sampled: list[tuple[int, str, Record]] = []  # a heap, the highest number first

    def add(self, record: Record) -> None:
        """Count a record."""
        if record.error is not None:
            self.failed += 1
            if self.failed <= MOST_NAMED:
                self.first_errors.append({"id": record.id, "error": record.error})
            return
        self.done += 1
        pixels = record.height * record.width
        self.pixels += pixels
        for number, area in zip(record.classes, record.areas, strict=True):
            self.of_class[number] += round(area * pixels)
            self.pictures_with[number] += 1
        confidence = record.confidence or 0.0
        self.confidence += confidence
        row = -confidence, record.id, self._shares(record)
        _keep(self._reviewed, row, MOST_REVIEWED)
        _keep(self._sampled, (-self._lot(record.id), record.id, record), ON_SHEET)

    def _shares(self, record: Record) -> str:
        shares = sorted(zip(record.areas, record.classes, strict=True), reverse=True)
        return "; ".join(f"{self.class_names[number]} {100 * area:.1f}%" for area, number in shares)

    def _lot(self, item_id: str) -> int:
        """A number that depends on the id and the seed alone: the lowest are on the sheet."""
        digest = hashlib.sha256(f"{self.seed} {item_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big")

    def review(self) -> str:
        """CSV of the pictures, the least certain first: id, confidence, classes."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("id", "confidence", "classes"))
        for negative, item_id, shares in sorted(self._reviewed, reverse=True):
            rows.writerow((item_id, f"{-negative:.6f}", shares))
        return text.getvalue()

    def sampled(self) -> list[Record]:
        """The records of the pictures on the sheet, by id."""
        return sorted((record for *_, record in self._sampled), key=lambda record: record.id)

    def summary(self) -> dict[str, Any]:
        """The sums, in plain values."""
        classes = [
            {
                "number": number,
                "name": name,
                "pictures": int(self.pictures_with[number]),
                "pixels": int(self.of_class[number]),
                "share": float(self.of_class[number] / max(1, self.pixels)),
            }
            for number, name in enumerate(self.class_names)
        ]
        return {
            "done": self.done,
            "failed": self.failed,
            "first_errors": self.first_errors,
            "pixels": self.pixels,
            "ignored_pixels": int(self.pixels - self.of_class.sum()),
            "mean_confidence": self.confidence / self.done if self.done else None,
            "classes": classes,
        }


def _keep(heap: list[Any], row: Any, most: int) -> None:
    """Keep the ``most`` highest rows in a heap, whose lowest is first."""
    if len(heap) < most:
        heapq.heappush(heap, row)
    else:
        heapq.heappushpop(heap, row)


def end(
    records: Iterable[Record],
    class_names: Sequence[str],
    output: Output,
    found: Iterable[Found],
    problems: Sequence[Problem] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Write ``errors.jsonl``, ``review.csv`` and the contact sheet; returns the sums.

    Args:
        records: all of them, once.
        found: the pictures, to find those of the sheet among.
        problems: sources whose pictures could not be found, in errors.jsonl as {"source", "error"}.
    """
    ending = Ending(class_names, seed)
    with output.stream(ERRORS) as file:
        for problem in problems:
            file.write(_line(source=problem.source, error=problem.reason))
        for record in records:
            ending.add(record)
            if record.error is not None:
                file.write(_line(id=record.id, error=record.error))
    output.write(REVIEW, ending.review())
    pictures = dict(_pictures(ending.sampled(), class_names, found))
    if pictures:
        output.write(SHEET, contact_sheet(pictures))
    return ending.summary()


def _line(**values: str) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _pictures(
    records: Sequence[Record], class_names: Sequence[str], found: Iterable[Found]
) -> Iterator[tuple[str, Segmentation]]:
    """The segmentations of some records, with their pictures; none of those that are gone."""
    wanted = {record.id: record for record in records}
    for item in found:
        if not wanted:
            return
        if isinstance(item, Item) and item.id in wanted:
            record = wanted.pop(item.id)
            with suppress(
                Exception
            ):  # it was there when it was annotated: the sheet can do without
                yield item.id, _segmentation(record, class_names, read_image(item.read()))


def _segmentation(record: Record, class_names: Sequence[str], image: np.ndarray) -> Segmentation:
    count = len(class_names)
    labels = labels_of(record, count).astype(np.int32)
    names = list(class_names)
    if (labels >= count).any():
        labels[labels >= count] = count
        names.append(IGNORED)
    return Segmentation(labels, names, image)
