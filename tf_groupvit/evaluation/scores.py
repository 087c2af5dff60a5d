"""Scores: pixels and pictures counted by class, and the report of them as a table or for JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.benchmarks import ignored_of

TOP = 5


class ConfusionMatrix:
    """Pixels counted by true and predicted class, exactly, in 64-bit integers on TensorFlow.

    ``iou`` is intersection over union over all pictures together, and ``miou`` its mean over the
    classes that occur in the labels or the predictions: mmsegmentation's ``mIoU``, which leaves
    out classes whose union is empty. Pixels labeled 255, or 65535 beside over 255 classes, do not
    count, whatever is predicted there.
    Fractions are from 0 to 1.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        K = len(self.class_names)
        self.counts = tf.zeros((K, K), tf.int64)  # (K, K): true class by predicted class

    def update(self, labels: np.ndarray, predicted: np.ndarray) -> None:
        """Count one picture: integers (H, W), (H, W).

        Raises ``InputError`` where the shapes differ, or a number is outside 0..K-1 and, in the
        labels, not that of pixels that do not count.
        """
        labels, predicted = np.asarray(labels), np.asarray(predicted)
        K = len(self.class_names)
        if labels.shape != predicted.shape:
            raise InputError(
                f"Predictions are expected as {labels.shape}, like the labels: received"
                f" {predicted.shape}."
            )
        counted = labels != ignored_of(K)
        _check_range(labels[counted], K, "Labels")
        _check_range(predicted, K, "Predictions")
        cells = labels[counted].astype(np.int64) * K + predicted[counted]
        found = tf.math.bincount(
            tf.constant(cells), minlength=K * K, maxlength=K * K, dtype=tf.int64
        )
        self.counts = self.counts + tf.reshape(found, (K, K))

    @property
    def iou(self) -> dict[str, float | None]:
        """{name: intersection over union}; None for a class that does not occur."""
        pairs = zip(self.class_names, self._ious().tolist(), strict=True)
        return {name: None if isnan(value) else value for name, value in pairs}

    @property
    def miou(self) -> float | None:
        """The mean of ``iou`` over the classes that have one; None before the first pixel."""
        ious = self._ious()
        return None if np.isnan(ious).all() else float(np.nanmean(ious))

    @property
    def pixel_accuracy(self) -> float | None:
        """The fraction of counted pixels whose class was predicted; None before the first pixel."""
        total = int(tf.reduce_sum(self.counts))
        return int(tf.reduce_sum(tf.linalg.diag_part(self.counts))) / total if total else None

    def _ious(self) -> np.ndarray:
        """(K,) float64, NaN where the union is empty."""
        both = tf.linalg.diag_part(self.counts)
        union = tf.reduce_sum(self.counts, 0) + tf.reduce_sum(self.counts, 1) - both
        empty = tf.fill(tf.shape(both), tf.constant(np.nan, tf.float64))
        # 64-bit integers are divided in float64; an empty union would be a division by zero.
        return tf.where(union > 0, both / tf.maximum(union, 1), empty).numpy()

    # For a progress bar, a report and a state file

    def headline(self) -> str:
        """The running mean, for a progress bar."""
        return "mIoU -" if self.miou is None else f"mIoU {100 * self.miou:.1f}"

    def results(self) -> dict[str, Any]:
        """``miou``, ``pixel_accuracy`` and ``iou`` by class."""
        return {"miou": self.miou, "pixel_accuracy": self.pixel_accuracy, "iou": self.iou}

    def state(self) -> list[list[int]]:
        """The counts as plain numbers."""
        return self.counts.numpy().tolist()

    def restore(self, state: npt.ArrayLike) -> None:
        """Continue from counts of ``state()`` (K, K). Raises ``ValueError`` where they differ."""
        self.counts = tf.constant(_checked_counts(state, tuple(self.counts.shape)))


def _checked_counts(state: npt.ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    counts = np.asarray(state)
    if counts.shape != shape or counts.dtype != np.int64 or (counts < 0).any():
        raise ValueError(f"expected counts {shape}, received {counts.dtype} {counts.shape}")
    return counts


def _check_range(numbers: np.ndarray, K: int, what: str) -> None:
    if not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"{what} are expected as integers: received {numbers.dtype}.")
    if numbers.size and (numbers.min() < 0 or numbers.max() >= K):
        wrong = numbers.min() if numbers.min() < 0 else numbers.max()
        raise InputError(f"{what} are expected in 0..{K - 1}: received {wrong}.")


class TopK:
    """Pictures counted by class: all, those with their class first, and those with it in the top 5.

    Ties go to the class with the lower number. ``top1`` and ``top5`` are fractions of all pictures,
    from 0 to 1; with five classes or fewer, ``top5`` is always 1.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        # (K, 3): pictures of each class, how many had it first, and how many in the top five
        self.counts = np.zeros((len(self.class_names), 3), np.int64)

    def update(self, label: int, probabilities: npt.ArrayLike) -> None:
        """Count one picture of class ``label`` with its probabilities (K).

        Raises ``InputError`` for another number of probabilities, and for NaN.
        """
        probabilities = np.asarray(probabilities)
        K = len(self.class_names)
        if probabilities.shape != (K,):
            raise InputError(
                f"{K} probabilities are expected, one a class: received {probabilities.shape}."
            )
        if np.isnan(probabilities).any():
            raise InputError("Probabilities are expected to be numbers: received NaN.")
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        self.counts[label] += (1, int(best[0] == label), int(label in best))

    @property
    def top1(self) -> float | None:
        """The fraction of pictures whose class was first; None before the first picture."""
        return self._share(1)

    @property
    def top5(self) -> float | None:
        """The fraction of pictures with their class in the top five; None before the first one."""
        return self._share(2)

    def _share(self, column: int) -> float | None:
        pictures = int(self.counts[:, 0].sum())
        return int(self.counts[:, column].sum()) / pictures if pictures else None

    @property
    def accuracy(self) -> dict[str, float | None]:
        """{name: top-1 accuracy over its pictures}; None for a class without pictures."""
        rows = zip(self.class_names, self.counts.tolist(), strict=True)
        return {name: first / pictures if pictures else None for name, (pictures, first, _) in rows}

    # For a progress bar, a report and a state file

    def headline(self) -> str:
        """The running top-1 accuracy, for a progress bar."""
        return "top-1 -" if self.top1 is None else f"top-1 {100 * self.top1:.1f}"

    def results(self) -> dict[str, Any]:
        """``top1``, ``top5`` and ``accuracy`` by class."""
        return {"top1": self.top1, "top5": self.top5, "accuracy": self.accuracy}

    def state(self) -> list[list[int]]:
        """The counts as plain numbers."""
        return self.counts.tolist()

    def restore(self, state: npt.ArrayLike) -> None:
        """Continue from counts of ``state()`` (K, 3). Raises ``ValueError`` where they differ."""
        self.counts = _checked_counts(state, self.counts.shape)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        dataset: its name.
        images: number of pictures in the scores.
        failures: {picture: error} of those that are not.
        settings: what the scores depend on.
        results: the scores by name; see ``SegmentationScores`` and ``ClassificationScores``.
    """

    dataset: str
    images: int
    failures: dict[str, str]
    settings: dict[str, Any]
    results: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values for JSON: the scores first, then what they depend on."""
        return {
            "dataset": self.dataset,
            **self.results,
            "images": self.images,
            "failures": [{"image": name, "error": error} for name, error in self.failures.items()],
            "settings": dict(self.settings),
        }

    def table(self) -> str:
        """A plain text: each class, then the scores of all, in percent."""
        classes = self.results[self._by_class]
        width = max(map(len, [*classes, *self._sums]))
        rows = [f"{name:<{width}}  {_percent(value)}" for name, value in classes.items()]
        overall = {title: self.results[key] for title, key in self._sums.items()}
        sums = [f"{title:<{width}}  {_percent(value)}" for title, value in overall.items()]
        failed = f", {len(self.failures)} failed" if self.failures else ""
        head = f"{self.dataset}: {self.images} images{failed}"
        rule = "-" * (width + 8)
        return "\n".join([head, rule, *rows, rule, *sums])

    # Which of the results has a value for each class, and which are the scores of all.
    _by_class = "iou"
    _sums = {"mIoU": "miou", "pixel accuracy": "pixel_accuracy"}


@dataclass(frozen=True)
class SegmentationScores(Evaluation):
    """Scores of masks, as fractions from 0 to 1.

    Attributes:
        counts: the pixels (K, K) of each true class, by predicted class.
    """

    counts: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def miou(self) -> float | None:
        """The mean IoU over the classes that occur; None if no pixel was counted."""
        return self.results["miou"]

    @property
    def iou(self) -> dict[str, float | None]:
        """IoU by class; None for a class that is neither in the labels nor predicted."""
        return self.results["iou"]

    @property
    def pixel_accuracy(self) -> float | None:
        """The fraction of counted pixels whose class was predicted; None if there was none."""
        return self.results["pixel_accuracy"]


@dataclass(frozen=True)
class ClassificationScores(Evaluation):
    """Scores of zero-shot classification, as fractions from 0 to 1; ``accuracy`` is top-1."""

    _by_class = "accuracy"
    _sums = {"top-1": "top1", "top-5": "top5"}

    @property
    def top1(self) -> float | None:
        """The fraction of pictures whose class was first; None if no picture was counted."""
        return self.results["top1"]

    @property
    def top5(self) -> float | None:
        """The fraction of pictures with their class in the top five; None if there was none."""
        return self.results["top5"]


def _percent(value: float | None) -> str:
    return "     -" if value is None else f"{100 * value:6.2f}"
