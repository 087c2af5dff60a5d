"""Labels and predictions (H, W) in, one picture after the other; IoU per class, their mean and pixel accuracy out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.benchmarks import IGNORED


class ConfusionMatrix:
    """Pixels counted by true and predicted class, exactly, in 64-bit integers on TensorFlow.

    ``iou`` is intersection over union over all pictures together, and ``miou`` its mean over the classes that occur,
    in the labels or the predictions: mmsegmentation's ``mIoU``, which leaves out classes whose union is empty.
    Pixels labelled 255 take no part, whatever is predicted there. Fractions are from 0 to 1.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        K = len(self.class_names)
        self.counts = tf.zeros((K, K), tf.int64)  # (K, K): true class by predicted class

    def update(self, labels: np.ndarray, predicted: np.ndarray) -> None:
        """Count one picture: integers (H, W), (H, W).

        Raises ``InputError`` where the shapes differ, or a number is outside 0..K-1 (labels: and not 255).
        """
        labels, predicted = np.asarray(labels), np.asarray(predicted)
        K = len(self.class_names)
        if labels.shape != predicted.shape:
            raise InputError(f"Predictions are expected as {labels.shape}, like the labels; {predicted.shape} came.")
        counted = labels != IGNORED
        _check_range(labels[counted], K, "Labels")
        _check_range(predicted, K, "Predictions")
        cells = labels[counted].astype(np.int64) * K + predicted[counted]
        found = tf.math.bincount(tf.constant(cells), minlength=K * K, maxlength=K * K, dtype=tf.int64)
        self.counts = self.counts + tf.reshape(found, (K, K))

    @property
    def iou(self) -> dict[str, float | None]:
        """{name: intersection over union}; None for a class that is neither in the labels nor predicted."""
        return {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(self.class_names, self._ious(), strict=True)
        }

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
        # Division of 64-bit integers is in float64; an empty union is kept out of it.
        return tf.where(union > 0, both / tf.maximum(union, 1), empty).numpy()

    # What a progress bar shows, a report holds and a state file keeps

    def headline(self) -> str:
        """The running mean, for a progress bar."""
        return "mIoU -" if self.miou is None else f"mIoU {100 * self.miou:.1f}"

    def results(self) -> dict[str, Any]:
        """``miou``, ``pixel_accuracy`` and ``iou`` by class."""
        return {"miou": self.miou, "pixel_accuracy": self.pixel_accuracy, "iou": self.iou}

    def state(self) -> list[list[int]]:
        """The counts as plain numbers."""
        return self.counts.numpy().tolist()

    def restore(self, state: Any) -> None:
        """Take up the counts of ``state()``. Raises ``ValueError`` where they do not fit."""
        counts = np.asarray(state)
        if counts.shape != self.counts.shape or counts.dtype != np.int64 or (counts < 0).any():
            raise ValueError(f"expected counts {tuple(self.counts.shape)}, came {counts.dtype} {counts.shape}")
        self.counts = tf.constant(counts)


def _check_range(numbers: np.ndarray, K: int, what: str) -> None:
    if not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"{what} are expected as integers, {numbers.dtype} came.")
    if numbers.size and (numbers.min() < 0 or numbers.max() >= K):
        wrong = numbers.min() if numbers.min() < 0 else numbers.max()
        raise InputError(f"{what} are expected in 0..{K - 1}, {wrong} is among them.")
