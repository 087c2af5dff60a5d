"""A seed and a count in; scenes as a dataset to evaluate on, or as files to look at, out."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.evaluation.scenes import CLASSES, Scene, scene, scenes
from tf_groupvit.segmentation.picture import png
from tf_groupvit.segmentation.writing import check_folder, make_folder, write_whole


class SceneDataset:
    """Scenes of the evaluation stream: no pixel is background, none is left out.

    Args:
        seed, count: which scenes, and how many.
        size: their side in pixels.

    Raises ``InputError`` for a count below 1, and as ``scene`` does.
    """

    name = "scenes"

    def __init__(self, seed: int, count: int, size: int = 64) -> None:
        if count < 1:
            raise InputError(f"The count of scenes is expected to be 1 or more, {count} came.")
        scene(seed, count - 1, size)  # what is wrong with seed or size shows itself here
        self.class_names: Sequence[str] = CLASSES
        self.names: Sequence[str] = [f"{index:05d}" for index in range(count)]
        # Image and labels of a scene are asked for one after the other: drawn once.
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


def write_scenes(
    folder: Path, seed: int, count: int, size: int = 64, progress: bool = False
) -> None:
    """Write the first ``count`` scenes of a seed below ``folder``, which is made if it is missing.

    ``images/NNNNN.png``; ``masks/NNNNN.png`` with class numbers, one byte a pixel;
    ``captions.txt``, a line for each picture in the order of their names; ``classes.txt``, one
    class a line in the order of the numbers. ``progress`` shows a bar on standard error.

    Raises:
        InputError: as ``SceneDataset`` does; or a file cannot be written.
        DatasetError: the folder holds scenes already: captions and pictures of two runs would be
            mixed.
    """
    SceneDataset(seed, count, size)  # before anything is written
    check_folder(folder)
    if (folder / "captions.txt").exists():
        raise DatasetError(f"{folder}: holds scenes already: name another folder, or empty it.")
    images, masks = (make_folder(folder / part) for part in ("images", "masks"))
    captions, width = [], max(5, len(str(count - 1)))  # names whose order is that of their numbers
    for index, drawn in enumerate(
        tqdm(scenes(seed, count, size), "scenes", count, leave=False, disable=not progress)
    ):
        captions.append(drawn.caption)
        write_whole(images / f"{index:0{width}d}.png", png(Image.fromarray(drawn.image)))
        write_whole(masks / f"{index:0{width}d}.png", png(Image.fromarray(drawn.mask)))
    write_whole(folder / "classes.txt", "".join(f"{name}\n" for name in CLASSES).encode())
    write_whole(folder / "captions.txt", "".join(f"{line}\n" for line in captions).encode())
