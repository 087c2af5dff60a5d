"""Scores in; a table that a person reads and a dictionary for JSON out."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        dataset: its name.
        images: how many pictures are in the scores.
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
        """Plain Python values for JSON: the scores first, then how they came about."""
        return {
            "dataset": self.dataset,
            **self.results,
            "images": self.images,
            "failures": [{"image": name, "error": error} for name, error in self.failures.items()],
            "settings": dict(self.settings),
        }

    def table(self) -> str:
        """Class by class, then the sums, as plain text; percent."""
        classes = self.results[self._by_class]
        width = max(map(len, [*classes, *self._sums]))
        rows = [f"{name:<{width}}  {_percent(value)}" for name, value in classes.items()]
        sums = [f"{title:<{width}}  {_percent(self.results[key])}" for title, key in self._sums.items()]
        head = f"{self.dataset}: {self.images} images" + (f", {len(self.failures)} failed" * bool(self.failures))
        rule = "-" * (width + 8)
        return "\n".join([head, rule, *rows, rule, *sums])

    # Which of the results is a column, and which are its sums.
    _by_class = "iou"
    _sums = {"mIoU": "miou", "pixel accuracy": "pixel_accuracy"}


@dataclass(frozen=True)
class SegmentationScores(Evaluation):
    """Fractions from 0 to 1: ``miou``, ``pixel_accuracy``, and ``iou`` {class: value, None where it does not occur}."""

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
    """Fractions from 0 to 1: ``top1``, ``top5``, and ``accuracy`` (top-1) by class."""

    _by_class = "accuracy"
    _sums = {"top-1": "top1", "top-5": "top5"}

    @property
    def top1(self) -> float | None:
        """The fraction of pictures whose class came first; None if no picture was counted."""
        return self.results["top1"]

    @property
    def top5(self) -> float | None:
        """The fraction of pictures whose class was among the first five; None if no picture was counted."""
        return self.results["top5"]


def _percent(value: float | None) -> str:
    return "     -" if value is None else f"{100 * value:6.2f}"
