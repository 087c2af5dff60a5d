"""Zero-shot scores of a segmenter: mIoU on a dataset with masks, top-1 and top-5 on classes.

What `tf-groupvit evaluate` prints comes from here, so that both give the same numbers.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.datasets import (
    Dataset,
    FolderDataset,
    MaskDataset,
    OwnMaskDataset,
    SceneDataset,
)
from tf_groupvit.evaluation.progress import count_pictures, open_file
from tf_groupvit.evaluation.scores import (
    ClassificationScores,
    ConfusionMatrix,
    SegmentationScores,
    TopK,
)
from tf_groupvit.preprocessing.image_arrays import STATISTICS
from tf_groupvit.runtimes import LITE_INT8
from tf_groupvit.segmentation.batches import in_batches
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.segmenter import Segmenter

Segment = Callable[[np.ndarray], npt.ArrayLike | Segmentation]  # (H, W, 3) uint8 -> (H, W)
Classify = Callable[[np.ndarray], npt.ArrayLike]  # (H, W, 3) uint8 -> probabilities (K)


def evaluate(
    segment: Segmenter | Segment,
    dataset: Dataset,
    *,
    limit: int | None = None,
    state: str | PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
    mask_orientation: str | None = None,
    as_trained: bool = True,
    progress: bool = False,
) -> SegmentationScores:
    """Segment every picture of a dataset and compare its pixels with the labels.

    Args:
        segment: a ``Segmenter``, which gets pictures in batches; or any function from an image,
            uint8 (H, W, 3), to class numbers (H, W) in the order of ``dataset.class_names``.
        limit: count only the first pictures, this many.
        state: a file to go on from, made where it is missing: written at least every ten seconds
            and at the end. Pictures that failed are tried again.
        settings: what else the scores depend on (JSON values), besides the settings of a
            ``Segmenter``: reported, and compared with those of ``state``.
        mask_orientation: in place of the dataset's own, see ``MaskDataset``.
        as_trained: use the statistics that the published models were trained with, see
            ``with_trained_statistics``.
        progress: show a bar with the running mIoU on standard error.

    Raises:
        InputError: the segmenter has other classes than the dataset; the state is of another
            evaluation.
        DatasetError: a mask cannot be used (all are read before work starts), or may lie in two
            ways.
        GroupViTError: not one picture could be segmented: the error of the first one. Single errors
            are in ``.failures``.
    """
    _check_classes(getattr(segment, "class_names", None), dataset)
    if mask_orientation is not None:
        if not isinstance(dataset, MaskDataset | OwnMaskDataset):
            raise InputError(
                f"mask_orientation is about masks of photos: leave it out for {dataset.name}."
            )
        dataset = dataset.oriented(mask_orientation)
    settings = dict(settings or {})
    if isinstance(segment, Segmenter):
        segment = with_trained_statistics(segment, dataset) if as_trained else segment
        settings = {**_described(segment), **_masks_described(segment), **settings}
    if (orientation := getattr(dataset, "mask_orientation", None)) is not None:
        settings["mask_orientation"] = orientation
    settings.update(getattr(dataset, "settings", {}))
    names = dataset.names[: checked_count(limit, "limit")]
    tally = ConfusionMatrix(dataset.class_names)
    described = {"dataset": dataset.name, "class_names": list(dataset.class_names), **settings}
    file, done = open_file(state, described, tally, names)
    known = set(done)
    dataset.check(
        (index for index, name in enumerate(names) if name not in known), progress=progress
    )

    def answers(indices: list[int]) -> Iterator[tuple[int, Any]]:
        if isinstance(segment, Segmenter):
            return in_batches(indices, dataset.image, segment)
        return in_batches(indices, dataset.image, lambda images: [segment(images[0])], 1)

    def count(index: int, answer: npt.ArrayLike | Segmentation) -> None:
        predicted = answer.labels if isinstance(answer, Segmentation) else np.asarray(answer)
        tally.update(dataset.labels(index), predicted)

    images, failures = count_pictures(
        names, answers, count, tally, file=file, done=done, progress=progress, title=dataset.name
    )
    failures = {**getattr(dataset, "unpaired", {}), **failures}
    return SegmentationScores(
        dataset.name, images, failures, settings, tally.results(), tally.counts.numpy()
    )


def evaluate_classes(
    classify: Segmenter | Classify,
    dataset: FolderDataset,
    *,
    limit: int | None = None,
    state: str | PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
    as_trained: bool = True,
    progress: bool = False,
) -> ClassificationScores:
    """Classify every picture of a tree with a folder for each class.

    Args:
        classify: a ``Segmenter``, which gets pictures in batches; or any function from an image,
            uint8 (H, W, 3), to probabilities (K) in the order of the class names.
        limit: count only this many pictures, spread evenly over the tree, since its classes lie
            one after the other.
        state, settings, as_trained, progress: as in ``evaluate``.

    Raises:
        InputError: the state is of another evaluation.
        Exception: the error of the first picture, where not one could be classified. Single errors
            are in ``.failures``.
    """
    settings = dict(settings or {})
    if isinstance(classify, Segmenter):
        classify = with_trained_statistics(classify, dataset) if as_trained else classify
        settings = {**_described(classify), **settings}
    total = min(checked_count(limit, "limit") or len(dataset), len(dataset))
    indices = [k * len(dataset) // total for k in range(total)]
    names = [dataset.names[index] for index in indices]
    tally = TopK(dataset.class_names)
    described = {"dataset": dataset.name, "class_names": list(dataset.class_names), **settings}
    file, done = open_file(state, described, tally, names)

    def read(place: int) -> np.ndarray:
        return dataset.image(indices[place])

    def answers(places: list[int]) -> Iterator[tuple[int, Any]]:
        if isinstance(classify, Segmenter):
            return in_batches(places, read, classify.classify)
        return in_batches(places, read, lambda images: [classify(images[0])], 1)

    def count(place: int, answer: npt.ArrayLike) -> None:
        tally.update(dataset.labels[indices[place]], np.asarray(answer))

    images, failures = count_pictures(
        names, answers, count, tally, file=file, done=done, progress=progress, title=dataset.name
    )
    return ClassificationScores(dataset.name, images, failures, settings, tally.results())


def with_trained_statistics(segmenter: Segmenter, dataset: Dataset | FolderDataset) -> Segmenter:
    """The segmenter with ImageNet's statistics, where photos are measured and it has CLIP's.

    The published checkpoints were trained with ImageNet's mean and standard deviation, and their
    processor files name CLIP's. A segmenter whose ``normalize`` was chosen stays as it is, and so
    does one whose checkpoint names other statistics. So does any on masks of one's own: there, what
    ``segment`` and exports give is measured, not what was published.
    """
    if segmenter.normalize is not None or isinstance(dataset, SceneDataset | OwnMaskDataset):
        return segmenter
    own, clip = (segmenter.processor.mean, segmenter.processor.std), STATISTICS["clip"]
    if not np.allclose(own, clip, rtol=0, atol=1e-6):
        return segmenter
    return segmenter.with_choices(normalize="imagenet")


def fingerprint(model: keras.Model) -> str:
    """Sixteen hexadecimal digits over shapes and values of a model's weights, in their order.

    Names are left out, since Keras counts models in them; so are integers, which are states of
    random generators.
    """
    digest = hashlib.blake2b(digest_size=8)
    for weight in model.weights:
        if "float" in str(weight.dtype):
            digest.update(str(tuple(weight.shape)).encode())
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def checked_count(count: int | None, name: str) -> int | None:
    """The count, or None where there is none. Raises ``InputError`` below 1."""
    if count is not None and count < 1:
        raise InputError(f"The {name} is expected to be 1 or more: received {count}.")
    return count


def _described(segmenter: Segmenter) -> dict[str, Any]:
    """What all scores of a segmenter depend on, besides its classes."""
    described: dict[str, Any] = {
        "templates": list(segmenter.classes.templates),
        "normalize": segmenter.normalize or "checkpoint",
        "weights": fingerprint(segmenter.model),
    }
    if segmenter.runtime == LITE_INT8:  # the only runtime that changes labels
        described["runtime"] = segmenter.runtime
    return described


def _masks_described(segmenter: Segmenter) -> dict[str, Any]:
    """What its masks depend on, besides."""
    settings, config = segmenter.settings, segmenter.model.config.vision_config
    described: dict[str, Any] = {name: getattr(settings, name) for name in ("protocol", "mode")}
    described["background"] = settings.background
    if settings.size != config.image_height_width:
        described["size"] = list(settings.size)
    if settings.refine is not None:
        described["refine"] = settings.refine
    return described


def _check_classes(given: Sequence[str] | None, dataset: Dataset) -> None:
    if given is None or list(given) == list(dataset.class_names):
        return
    pairs = zip(given, dataset.class_names, strict=False)
    number = next((k for k, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    if number is None:
        expected, found = f"{len(dataset.class_names)} classes", f"{len(given)}"
    else:
        expected, found = f"'{dataset.class_names[number]}' as class {number}", f"'{given[number]}'"
    raise InputError(
        f"{dataset.name}: expected {expected}, the segmenter has {found}: make it with these"
        " classes."
    )
