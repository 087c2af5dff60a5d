"""True class and probabilities (K) in, one picture after the other; top-1 and top-5 accuracy out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_groupvit.errors import InputError

TOP = 5


class TopK:
    """Pictures counted by class: how many there were, and of how many the class came first, or among the first five.

    Ties go to the class that stands first. ``top1`` and ``top5`` are fractions of all pictures, from 0 to 1; with
    five classes or fewer every picture is right among five, and ``top5`` says so.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self.counts = np.zeros((len(self.class_names), 3), np.int64)  # (K, 3): pictures, first, among five

    def update(self, label: int, probabilities: np.ndarray) -> None:
        """Count one picture of class ``label`` with its probabilities (K).

        Raises ``InputError`` for another number of probabilities, or one that is no number.
        """
        probabilities = np.asarray(probabilities)
        K = len(self.class_names)
        if probabilities.shape != (K,):
            raise InputError(f"{K} probabilities are expected, one a class; {probabilities.shape} came.")
        if np.isnan(probabilities).any():
            raise InputError("Probabilities are expected to be numbers, NaN is among them.")
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        self.counts[label] += (1, int(best[0] == label), int(label in best))

    @property
    def top1(self) -> float | None:
        """The fraction of pictures whose class has the highest probability; None before the first."""
        return self._share(1)

    @property
    def top5(self) -> float | None:
        """The fraction of pictures whose class is among the five highest; None before the first."""
        return self._share(2)

    def _share(self, column: int) -> float | None:
        pictures = int(self.counts[:, 0].sum())
        return int(self.counts[:, column].sum()) / pictures if pictures else None

    @property
    def accuracy(self) -> dict[str, float | None]:
        """{name: top-1 accuracy over the pictures of that class}; None for a class without pictures."""
        rows = zip(self.class_names, self.counts.tolist(), strict=True)
        return {name: first / pictures if pictures else None for name, (pictures, first, _) in rows}

    # What a progress bar shows, a report holds and a state file keeps

    def headline(self) -> str:
        """The running top-1 accuracy, for a progress bar."""
        return "top-1 -" if self.top1 is None else f"top-1 {100 * self.top1:.1f}"

    def results(self) -> dict[str, Any]:
        """``top1``, ``top5`` and ``accuracy`` by class."""
        return {"top1": self.top1, "top5": self.top5, "accuracy": self.accuracy}

    def state(self) -> list[list[int]]:
        """The counts as plain numbers."""
        return self.counts.tolist()

    def restore(self, state: Any) -> None:
        """Take up the counts of ``state()``. Raises ``ValueError`` where they do not fit."""
        counts = np.asarray(state)
        if counts.shape != self.counts.shape or counts.dtype != np.int64 or (counts < 0).any():
            raise ValueError(f"expected counts {self.counts.shape}, came {counts.dtype} {counts.shape}")
        self.counts = counts
