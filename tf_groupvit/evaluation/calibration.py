"""Choosing the background threshold that has the highest mIoU on some pictures of a dataset."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.datasets import Dataset
from tf_groupvit.evaluation.evaluator import checked_count, with_trained_statistics
from tf_groupvit.evaluation.progress import count_pictures
from tf_groupvit.evaluation.scores import ConfusionMatrix
from tf_groupvit.segmentation.batches import in_batches
from tf_groupvit.segmentation.class_names import BACKGROUND
from tf_groupvit.segmentation.segmenter import Segmenter

# The published thresholds (0.35, 0.95) and their surroundings.
GRID = (0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)


class Thresholded(Protocol):
    """A segmenter that gives the labels of an image under several thresholds from one pass."""

    def labels_by_threshold(
        self, image: np.ndarray, thresholds: Sequence[float]
    ) -> Iterable[np.ndarray]:
        """uint8 (H, W, 3) -> labels (H, W) for each threshold, in their order."""


@dataclass(frozen=True)
class Calibration:
    """The chosen threshold, and the mIoU of each one that was tried on the images."""

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
    as_trained: bool = True,
    progress: bool = False,
) -> Calibration:
    """Try each threshold of ``grid`` on ``count`` pictures spread evenly over the dataset.

    The lowest threshold wins ties. Each picture goes through the model once. Since masks are used,
    a score over the same pictures is no longer zero-shot in this one number, and reports say that
    it was calibrated. ``as_trained`` as in ``evaluate``.

    Raises:
        InputError: the dataset has no background, or there is nothing to try.
        DatasetError, or the error of the first picture: as ``evaluate`` does.
    """
    if BACKGROUND not in dataset.class_names:
        raise InputError(f"{dataset.name} has no background: there is no threshold to calibrate.")
    if not grid:
        raise InputError("Expected thresholds to try, received none.")
    checked_count(count, "number of pictures to calibrate on")
    indices = np.unique(np.linspace(0, len(dataset.names) - 1, count).round().astype(int)).tolist()
    dataset.check(indices, progress=progress)
    trials = Trials(dataset.class_names, sorted(set(grid)))
    if isinstance(segmenter, Segmenter) and as_trained:
        segmenter = with_trained_statistics(segmenter, dataset)

    def answers(places: list[int]) -> Iterator[tuple[int, Any]]:
        return in_batches(
            places,
            lambda place: dataset.image(indices[place]),
            lambda images: [segmenter.labels_by_threshold(images[0], trials.thresholds)],
            most_images=1,
        )

    def measure(place: int, predicted: Iterable[np.ndarray]) -> None:
        trials.update(dataset.labels(indices[place]), predicted)

    names = [dataset.names[index] for index in indices]
    images, _ = count_pictures(
        names, answers, measure, trials, progress=progress, title="calibrating"
    )
    return Calibration(trials.best, trials.miou, images)


class Trials:
    """Pixels counted for every threshold alike: a picture counts for all of them, or for none."""

    def __init__(self, class_names: Sequence[str], thresholds: Sequence[float]) -> None:
        self.thresholds = list(thresholds)
        self._tallies = [ConfusionMatrix(class_names) for _ in self.thresholds]

    def update(self, labels: np.ndarray, predicted: Iterable[np.ndarray]) -> None:
        """Count one picture: labels (H, W), and what was predicted with each threshold."""
        names = self._tallies[0].class_names
        found = [ConfusionMatrix(names) for _ in self.thresholds]  # the picture may still fail
        for tally, answer in zip(found, predicted, strict=True):
            tally.update(labels, answer)
        for total, tally in zip(self._tallies, found, strict=True):
            total.counts = total.counts + tally.counts

    @property
    def miou(self) -> dict[float, float | None]:
        """{threshold: mean IoU}, from the lowest threshold to the highest."""
        pairs = zip(self.thresholds, self._tallies, strict=True)
        return {threshold: tally.miou for threshold, tally in pairs}

    @property
    def best(self) -> float:
        """The threshold with the highest mean IoU; the lowest of equals."""
        miou = self.miou
        return max(miou, key=lambda threshold: miou[threshold] or 0.0)

    def headline(self) -> str:
        """The best threshold so far, for a progress bar."""
        return f"best {self.best:g}"
