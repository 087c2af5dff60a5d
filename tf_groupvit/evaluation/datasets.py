"""A dataset's name and its root in; its classes, images (H, W, 3) and labels (H, W) out."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation import benchmarks
from tf_groupvit.evaluation.layouts import Pair, find_pairs
from tf_groupvit.evaluation.masks import checked_choice, read_labels, turn_of
from tf_groupvit.preprocessing.image_reading import read_image, turn
from tf_groupvit.scenes.scene import CLASSES, Scene, check_scenes, scene
from tf_groupvit.segmentation.class_names import BACKGROUND


@dataclass(frozen=True)
class Benchmark:
    """What is fixed about a benchmark: its prompts, and the background threshold where it has a
    background.

    Source of the thresholds: the configurations of the published evaluation (the paper's text names
    others).
    """

    prompts: tuple[str, ...]
    background: float | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K classes in the order of the labels; "background" is first where there is one."""
        return self.prompts if self.background is None else (BACKGROUND, *self.prompts)


BENCHMARKS = {
    "voc": Benchmark(benchmarks.VOC, background=0.95),
    "voc20": Benchmark(benchmarks.VOC),
    "context": Benchmark(benchmarks.CONTEXT, background=0.35),
    "context59": Benchmark(benchmarks.CONTEXT),
    "coco-object": Benchmark(benchmarks.COCO_OBJECT, background=0.95),
    "coco-stuff": Benchmark(benchmarks.COCO_STUFF),
    "ade20k": Benchmark(benchmarks.ADE20K),
    "cityscapes": Benchmark(benchmarks.CITYSCAPES),
}


class Dataset(Protocol):
    """Pictures with a label for every pixel, by their index in ``names``."""

    name: str
    class_names: Sequence[str]  # K, in the order of the labels
    names: Sequence[str]  # one for each picture, all different

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3)."""

    def labels(self, index: int) -> np.ndarray:
        """uint8 (H, W): 0..K-1, or 255 where the pixel does not count."""

    def check(self, indices: Iterable[int], progress: bool = False) -> None:
        """Raise ``DatasetError`` for the first of these pictures whose labels cannot be used."""


class MaskDataset:
    """A benchmark on disk. Its files are found, and none is missing, once it is made; they are read
    one at a time.

    Args:
        name: a key of ``BENCHMARKS``.
        root: the dataset's own folder, or one that holds it under its usual names
            (``layouts.LAYOUTS``).
        mask_orientation: how masks lie beside photos that EXIF turns, where their sizes do not
            tell: "as-photo", as a person sees the photo, or "as-stored", as its pixels in the file.

    Raises:
        InputError: there is no such benchmark, or no such orientation.
        DatasetError: the root, the split file, an image or a mask is missing, or there are no
            pictures.
    """

    def __init__(
        self, name: str, root: str | PathLike[str], mask_orientation: str | None = None
    ) -> None:
        if name not in BENCHMARKS:
            raise InputError(f"There is no dataset '{name}': choose from {', '.join(BENCHMARKS)}.")
        self.name, self.mask_orientation = name, checked_choice(mask_orientation)
        self.class_names: Sequence[str] = BENCHMARKS[name].class_names
        self._pairs: list[Pair] = find_pairs(name, Path(root))
        self.names: Sequence[str] = [pair.name for pair in self._pairs]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3), upright. Raises ``ImageError`` for a file that cannot be read."""
        return read_image(self._pairs[index].image)

    def labels(self, index: int) -> np.ndarray:
        """uint8 (H, W), upright: 0..K-1, or 255. Raises ``DatasetError`` for a mask that cannot be
        used.
        """
        pair = self._pairs[index]
        return turn(read_labels(pair.mask, pair.table), self._turn(pair))

    def check(self, indices: Iterable[int], progress: bool = False) -> None:
        """Read every header, then every mask: how they lie and what they hold is known to fit
        before work starts.

        An image whose header cannot be read passes: the evaluation meets, counts and names it.
        """
        listed = list(indices)
        for index in _shown(listed, "checking sizes", progress):
            self._turn(self._pairs[index])
        for index in _shown(listed, "checking masks", progress):
            self.labels(index)

    def _turn(self, pair: Pair) -> int:
        return turn_of(pair.image, pair.mask, self.mask_orientation)


class SceneDataset:
    """Scenes of the evaluation stream: no pixel is background, none is left out.

    Args:
        seed, count: which scenes, and how many.
        size: their side in pixels.

    Raises ``InputError`` for a count below 1, and for a seed or size that cannot be drawn.
    """

    name = "scenes"

    def __init__(self, seed: int, count: int, size: int = 64) -> None:
        check_scenes(seed, count, size)
        self.class_names: Sequence[str] = CLASSES
        self.names: Sequence[str] = [f"{index:05d}" for index in range(count)]
        # Image and labels of a scene are read one after the other: it is drawn once.
        self._scene: Callable[[int], Scene] = lru_cache(maxsize=1)(
            lambda index: scene(seed, index, size)
        )

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """uint8 (S, S, 3)."""
        return self._scene(index).image

    def labels(self, index: int) -> np.ndarray:
        """uint8 (S, S): numbers of ``CLASSES``."""
        return self._scene(index).mask

    def check(self, indices: Iterable[int], progress: bool = False) -> None:
        """Masks and pictures are drawn together: they fit."""


def oriented(dataset: Dataset, mask_orientation: str) -> Dataset:
    """The same dataset with another word on how its masks lie. Raises ``InputError`` where it has
    no such masks.
    """
    if not isinstance(dataset, MaskDataset):
        raise InputError(
            f"mask_orientation is about masks beside photos: leave it out for {dataset.name}."
        )
    other = copy(dataset)
    other.mask_orientation = checked_choice(mask_orientation)
    return other


def _shown(indices: list[int], what: str, progress: bool) -> Iterable[int]:
    return tqdm(indices, desc=what, unit="mask", disable=not progress, leave=False)
