"""A segmenter and part of a dataset in, the background threshold with the highest mIoU there out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.class_names import BACKGROUND
from tf_groupvit.evaluation.confusion import ConfusionMatrix
from tf_groupvit.evaluation.datasets import Dataset
from tf_groupvit.evaluation.evaluator import checked_count, labels_of
from tf_groupvit.evaluation.rounds import go_through

# The published thresholds (0.35, 0.95) and their surroundings.
GRID = (0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)


class Thresholded(Protocol):
    """A segmenter that takes another background threshold and keeps its model and text embeddings."""

    def with_background(self, threshold: float) -> Any:
        """The same segmenter with another threshold."""


@dataclass(frozen=True)
class Calibration:
    """The threshold that was chosen, and the mIoU that each one of the grid had on the pictures it was chosen on."""

    background: float
    miou: dict[float, float | None]
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        tried = {str(threshold): miou for threshold, miou in self.miou.items()}
        return {"background": self.background, "images": self.images, "miou": tried}


def calibrate(
    segmenter: Thresholded,
    dataset: Dataset,
    count: int,
    *,
    grid: Sequence[float] = GRID,
    progress: bool = False,
) -> Calibration:
    """Try each threshold of ``grid`` on ``count`` pictures spread evenly over the dataset; the lowest wins ties.

    The threshold acts in every window, before windows are averaged, so each one is a run of its own. Masks are used:
    a score over the same pictures is no longer zero-shot in this one number, and reports say that it was calibrated.

    Raises:
        InputError: the dataset has no background, or there is nothing to try.
        DatasetError, or the error of the first picture: as ``evaluate`` does.
    """
    if BACKGROUND not in dataset.class_names:
        raise InputError(f"{dataset.name} has no background: there is no threshold to calibrate.")
    if not grid:
        raise InputError("Thresholds to try are expected, none came.")
    checked_count(count, "number of pictures to calibrate on")
    indices = np.unique(np.linspace(0, len(dataset.names) - 1, count).round().astype(int)).tolist()
    dataset.check(indices, progress=progress)
    miou = {threshold: _miou(segmenter, threshold, dataset, indices, progress) for threshold in sorted(grid)}
    best = max(miou, key=lambda threshold: miou[threshold] or 0.0)  # the first of equals: the lowest
    return Calibration(best, miou, len(indices))


def _miou(
    segmenter: Thresholded, threshold: float, dataset: Dataset, indices: Sequence[int], progress: bool
) -> float | None:
    segment = segmenter.with_background(threshold)
    tally = ConfusionMatrix(dataset.class_names)

    def measure(position: int) -> None:
        index = indices[position]
        tally.update(dataset.labels(index), labels_of(segment(dataset.image(index))))

    names = [dataset.names[index] for index in indices]
    go_through(names, measure, tally, progress=progress, title=f"background {threshold:g}")
    return tally.miou
