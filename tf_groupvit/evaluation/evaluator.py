"""A segmenter and a dataset in, mIoU, IoU by class and pixel accuracy out."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.datasets import Dataset, oriented
from tf_groupvit.evaluation.rounds import go_through, open_file
from tf_groupvit.evaluation.scores import ConfusionMatrix, SegmentationScores

Segment = Callable[
    [np.ndarray], Any
]  # uint8 (H, W, 3) -> integers (H, W), or a Segmentation, which has them


def evaluate(
    segment: Segment,
    dataset: Dataset,
    *,
    limit: int | None = None,
    state: str | PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    mask_orientation: str | None = None,
    progress: bool = False,
) -> SegmentationScores:
    """Segment every picture of a dataset and compare its pixels with the labels.

    Args:
        segment: a ``Segmenter``, or any function from an image, uint8 (H, W, 3), to class numbers
            (H, W) in the order of ``dataset.class_names``.
        limit: only the first so many pictures.
        state: a file to go on from, made where it is missing: written at least every ten seconds
            and at the end. Pictures that failed are tried again.
        settings: what the scores depend on besides (JSON values): reported, and compared with those
            of ``state``.
        mask_orientation: in place of the dataset's own, see ``MaskDataset``.
        progress: show a bar with the running mIoU on standard error.

    Raises:
        InputError: the segmenter has other classes than the dataset; the state is of another
            evaluation.
        DatasetError: a mask cannot be used (every one is read before work starts), or may lie in
            two ways.
        GroupViTError: not one picture could be segmented; it is the first one's. Single ones are in
            ``.failures``.
    """
    _check_classes(getattr(segment, "class_names", None), dataset)
    dataset = dataset if mask_orientation is None else oriented(dataset, mask_orientation)
    settings = {**(settings or {}), **_orientation_of(dataset)}
    names = dataset.names[: checked_count(limit, "limit")]
    tally = ConfusionMatrix(dataset.class_names)
    described = {"dataset": dataset.name, "class_names": list(dataset.class_names), **settings}
    file, done = open_file(None if state is None else Path(state), described, tally, names)
    dataset.check(
        (index for index, name in enumerate(names) if name not in set(done)), progress=progress
    )

    def measure(index: int) -> None:
        tally.update(dataset.labels(index), labels_of(segment(dataset.image(index))))

    images, failures = go_through(
        names, measure, tally, file=file, done=done, progress=progress, title=dataset.name
    )
    return SegmentationScores(dataset.name, images, failures, settings, tally.results())


def _orientation_of(dataset: Dataset) -> dict[str, str]:
    """What the scores depend on besides, where it was said."""
    said = getattr(dataset, "mask_orientation", None)
    return {} if said is None else {"mask_orientation": said}


def labels_of(answer: Any) -> np.ndarray:
    """The class numbers (H, W) of a ``Segmentation``, or of an answer that is them."""
    return np.asarray(getattr(answer, "labels", answer))


def checked_count(count: int | None, name: str) -> int | None:
    """The count, where it is one. Raises ``InputError`` below 1."""
    if count is not None and count < 1:
        raise InputError(f"The {name} is expected to be 1 or more, {count} came.")
    return count


def _check_classes(given: Sequence[str] | None, dataset: Dataset) -> None:
    if given is None or list(given) == list(dataset.class_names):
        return
    pairs = zip(given, dataset.class_names, strict=False)
    number = next((k for k, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    if number is None:
        expected, came = f"{len(dataset.class_names)} classes", f"{len(given)}"
    else:
        expected, came = f"'{dataset.class_names[number]}' as class {number}", f"'{given[number]}'"
    raise InputError(
        f"{dataset.name}: expected {expected}, the segmenter has {came}: make it with these"
        " classes."
    )
