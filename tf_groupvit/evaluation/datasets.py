"""Datasets to evaluate on: benchmarks with masks, drawn scenes, and trees with a folder a class."""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from tqdm import tqdm

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.evaluation.benchmarks import BENCHMARKS, Benchmark
from tf_groupvit.evaluation.coco import CocoFile, read_coco
from tf_groupvit.evaluation.layouts import Pair, find_pairs
from tf_groupvit.evaluation.masks import checked_choice, turn_of
from tf_groupvit.evaluation.numbering import (
    Color,
    number_classes,
    number_colors,
    read_colored,
    read_table,
)
from tf_groupvit.evaluation.own_masks import find_own_pairs
from tf_groupvit.files import IMAGE_SUFFIXES, first_in_doubt, is_junk, read_lines
from tf_groupvit.preprocessing.image_reading import read_image, turn
from tf_groupvit.scenes.scene import CLASSES, check_scenes, scene
from tf_groupvit.segmentation.class_names import ClassNames

__all__ = [
    "BENCHMARKS",
    "NAMES",
    "Benchmark",
    "Dataset",
    "FolderDataset",
    "MaskDataset",
    "OpenedDataset",
    "OwnMaskDataset",
    "SceneDataset",
    "open_dataset",
]

SEED, COUNT, SIDE = 0, 500, 64  # of the scenes, unless given
NAMES_FILE = "classes.txt"


class Dataset(Protocol):
    """Pictures with a label for every pixel, by their index in ``names``.

    It may also have ``settings``, JSON values that scores depend on, and ``unpaired``, {name: what
    it lacks} of what cannot be measured.
    """

    name: str
    class_names: Sequence[str]  # K, in the order of the labels
    names: Sequence[str]  # one for each picture, all different

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3)."""

    def labels(self, index: int) -> np.ndarray:
        """uint8 (H, W): 0..K-1, or 255 where the pixel does not count."""

    def check(self, indices: Iterable[int], progress: bool = False) -> None:
        """Raise ``DatasetError`` for the first of these pictures whose labels cannot be used."""


class _Pairs:
    """Pictures and their masks: found when the dataset is made, and read one at a time."""

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        pairs: list[Pair],
        mask_orientation: str | None,
    ) -> None:
        self.name, self.mask_orientation = name, checked_choice(mask_orientation)
        self.class_names = class_names
        self._pairs = pairs
        self.names: Sequence[str] = [pair.name for pair in pairs]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3), upright. Raises ``ImageError`` for a file that cannot be read."""
        return read_image(self._pairs[index].image)

    def labels(self, index: int) -> np.ndarray:
        """uint8 (H, W), upright: 0..K-1, or 255. Raises ``DatasetError`` for an unusable mask.

        With over 255 classes it is int32, and 65535 takes the place of 255.
        """
        pair = self._pairs[index]
        return turn(pair.mask.labels(), self._turn(pair))

    def check(self, indices: Iterable[int], progress: bool = False) -> None:
        """Read every header, then every mask, so that what is wrong is known before work starts.

        An image whose header cannot be read passes: the evaluation meets, counts and names it.
        Raises ``DatasetError`` for the first mask that cannot be used.
        """
        listed = list(indices)
        bar = dict(unit="mask", disable=not progress, leave=False)
        for index in tqdm(listed, desc="checking sizes", **bar):
            self._turn(self._pairs[index])
        for index in tqdm(listed, desc="checking masks", **bar):
            self.labels(index)

    def oriented(self, mask_orientation: str) -> Self:
        """The same dataset with another ``mask_orientation``. Raises ``InputError`` as it does."""
        other = copy(self)
        other.mask_orientation = checked_choice(mask_orientation)
        return other

    def _turn(self, pair: Pair) -> int:
        return turn_of(pair.image, pair.mask, self.mask_orientation)


class MaskDataset(_Pairs):
    """A benchmark on disk: its files are found when it is made, and read one at a time.

    Args:
        name: a key of ``BENCHMARKS``.
        root: the dataset's own folder, or one that holds it under its usual names (the ``homes`` of
            its layout).
        mask_orientation: how masks lie over photos that EXIF turns, where their sizes do not tell:
            "as-photo", as the upright photo, or "as-stored", as its pixels in the file.

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
        checked_choice(mask_orientation)
        pairs = find_pairs(name, Path(root))
        super().__init__(name, BENCHMARKS[name].class_names, pairs, mask_orientation)


class OwnMaskDataset(_Pairs):
    """Pictures and masks of one's own, in two folders, or in one and a file of COCO annotations.

    A picture and its mask have the same path below their folders, but for what follows the last
    dot, or for ".labels.png", as ``segment`` calls masks. A mask is PNG (gray of 8 or 16 bits, or
    palette, as VOC's are), TIFF or BMP, and holds the number of a class for each pixel.

    Args:
        images: the folder of the pictures, with those below it.
        masks: the folder of the masks, or a file of COCO annotations (.json), with regions as
            polygons or run lengths, or panoptic, whose PNG are in the folder of the file's name
            beside it or in that of the file; the extra ``annotate`` brings what draws polygons.
        classes: names in the order of their numbers, which start at 0; with ``background``, that is
            0, and the first class is 1. Given with a table or annotations, only these classes
            count: the others are background where there is one, else ignored.
        table: a file of numbers and names, see ``numbering.read_table``. Several numbers may have
            one name. Or a ``labelmap.txt`` of colors and names: the colors of the masks, also those
            of palettes, are the classes then, and "ignored" does not count.
        ignore: numbers of pixels that do not count; unless given, 255 and, above 255 classes,
            65535, where that is no class.
        background: there is a class "background", label 0, for which no word is looked for. Its
            number is 0 or that of the table's "background". In COCO, it is what has no region,
            and without it such pixels do not count; of panoptic pictures they never do.
        mask_orientation: as in ``MaskDataset``.

    It has ``numbering``, the classes with their numbers, ``prompts``, the classes with synonyms,
    and ``unpaired``, {name: what it lacks} of pictures without a mask and masks without a picture.

    Raises:
        InputError: classes, table and numbers that do not fit together.
        DatasetError: a folder or the annotations cannot be used, or no picture has a mask.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        masks: str | PathLike[str],
        classes: ClassNames | None = None,
        *,
        table: str | PathLike[str] | None = None,
        ignore: Sequence[int] | None = None,
        background: bool = False,
        mask_orientation: str | None = None,
    ) -> None:
        checked_choice(mask_orientation)
        place: Path | CocoFile = Path(masks)
        colored: list[tuple[Color, str]] = []
        more: dict[str, Any] = {"ignore": ignore, "background": background}
        if Path(masks).is_file():
            if Path(masks).suffix.lower() != ".json":
                raise DatasetError(
                    f"{masks}: expected a folder of masks, or COCO annotations, a .json file."
                )
            if table is not None or ignore is not None:
                raise InputError(
                    f"{masks} numbers its categories itself, and pixels of no region do not count:"
                    " leave the table and the numbers to ignore out."
                )
            place = read_coco(Path(masks))
            more |= {"rows": place.rows, "source": str(masks), "free": True}
        elif table is not None:
            colored = read_colored(Path(table))
            more |= {"rows": colored or read_table(Path(table)), "source": str(table)}
        if colored:
            if more.pop("ignore") is not None:
                raise InputError(
                    f"{table} has colors, not numbers: leave the numbers to ignore out."
                )
            self.numbering = number_colors(classes=classes, **more)
        else:
            self.numbering = number_classes(classes, **more)
        self.prompts = self.numbering.prompts
        pairs, self.unpaired = find_own_pairs(Path(images), place, self.numbering)
        super().__init__(OWN, self.numbering.class_names, pairs, mask_orientation)
        # Scores depend on them, and a state belongs to these files.
        self.settings = {
            "images": str(images),
            "masks": str(masks),
            "numbers": self.numbering.numbers(),
            "ignore": self.numbering.ignored_numbers(),
        }


# Image and labels of the scenes of a batch are read one after the other: drawn once.
_drawn = lru_cache(maxsize=16)(scene)


class SceneDataset:
    """Scenes of the evaluation stream: no pixel is background, none is left out.

    Args:
        seed, count: which scenes, and how many.
        size: their side in pixels.

    Raises ``InputError`` for a count below 1, and for a seed or size that cannot be drawn.
    """

    name = "scenes"

    def __init__(self, seed: int, count: int, size: int = SIDE) -> None:
        check_scenes(seed, count, size)
        self.class_names: Sequence[str] = CLASSES
        self.names: Sequence[str] = [f"{index:05d}" for index in range(count)]
        # Scores depend on them, and the names are the same for all.
        self.settings = {"seed": seed, "scene_size": size}
        self._seed, self._size = seed, size

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """uint8 (S, S, 3)."""
        return _drawn(self._seed, index, self._size).image

    def labels(self, index: int) -> np.ndarray:
        """uint8 (S, S): numbers of ``CLASSES``."""
        return _drawn(self._seed, index, self._size).mask

    def check(self, indices: Iterable[int], progress: bool = False) -> None:
        """Nothing to check: masks and pictures are drawn together."""


class FolderDataset:
    """A tree with a folder for each class, as ImageNet's validation pictures are kept.

    A class is called as its folder, underscores read as blanks. A ``classes.txt`` in the root
    renames them: a line for each folder, ``folder<TAB>name``, or the names alone in the
    alphabetical order of the folders. A name may hold synonyms, as a segmenter takes them:
    ``sofa|couch`` in ``prompts``, ``sofa`` in ``class_names``.

    Raises:
        DatasetError: there are no folders, a folder has no images, or ``classes.txt`` does not
            match the folders.
    """

    name = "folder"

    def __init__(self, root: str | PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DatasetError(
                f"{self.root}: there is no such folder: give one with a folder for each class."
            )
        below = (path for path in self.root.iterdir() if path.is_dir())
        folders = sorted(path for path in below if not is_junk(path.name))
        if not folders:
            raise DatasetError(f"{self.root}: expected a folder for each class, found none.")
        self.prompts = _class_names(self.root, [folder.name for folder in folders])
        self.class_names = [_first_synonym(prompt) for prompt in self.prompts]
        self.names: list[str] = []
        self.labels: list[int] = []
        for label, folder in enumerate(folders):
            images = _images_of(folder)
            self.names += [path.relative_to(self.root).as_posix() for path in images]
            self.labels += [label] * len(images)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3). Raises ``ImageError`` for a file that cannot be read."""
        return read_image(self.root / self.names[index])


def _images_of(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    inside = (path for path in files if not is_junk(path.relative_to(folder).as_posix()))
    images = sorted(path for path in inside if path.is_file())
    if not images:
        raise DatasetError(
            f"{folder}: expected the images of a class ({', '.join(IMAGE_SUFFIXES)}), found none."
        )
    return images


def _class_names(root: Path, folders: list[str]) -> list[str]:
    """The class names in the order of the folders, all different."""
    file = root / NAMES_FILE
    named = file.is_file()
    names = (
        _renamed(file, folders) if named else [name.replace("_", " ").strip() for name in folders]
    )
    shown = [_first_synonym(name) for name in names]
    twice = next((name for name in shown if shown.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(
            f"{file if named else root}: two classes are called '{twice}': names must differ:"
            f" rename one in {NAMES_FILE}."
        )
    return names


def _renamed(file: Path, folders: list[str]) -> list[str]:
    lines = read_lines(file, DatasetError)
    if not all("\t" in line for line in lines):
        if len(lines) != len(folders) or any("\t" in line for line in lines):
            raise DatasetError(
                f"{file}: expected {len(folders)} names, one a folder; found {len(lines)} lines."
            )
        if doubt := first_in_doubt(folders):
            place, by_letter, by_number = doubt
            raise DatasetError(
                f"{file}: '{lines[place]}' may be the class of the folder '{by_letter}' (sorted by"
                f" letters) or '{by_number}' (by numbers): write a line for each folder,"
                " 'folder<TAB>name'."
            )
        return lines
    pairs = (line.split("\t", 1) for line in lines)
    names = {folder.strip(): name.strip() for folder, name in pairs}
    nameless = next((folder for folder in folders if not names.get(folder)), None)
    if nameless is not None:
        raise DatasetError(f"{file}: expected a line for every folder, '{nameless}' has none.")
    return [names[folder] for folder in folders]


def _first_synonym(prompt: str) -> str:
    return " ".join(prompt.split("|")[0].split())


OWN = "masks"
NAMES = (*BENCHMARKS, SceneDataset.name, FolderDataset.name, OWN)


@dataclass(frozen=True)
class OpenedDataset:
    """A dataset, ready to be read, and how it is segmented unless said otherwise.

    Attributes:
        dataset: its pictures, with a mask or a class each.
        prompts: its classes without the background.
        mode: "window" as published, "whole" for scenes and for classification.
        background: the published threshold; None where there is no background.
    """

    dataset: MaskDataset | OwnMaskDataset | SceneDataset | FolderDataset
    prompts: tuple[str, ...]
    mode: str
    background: float | None = None


def open_dataset(
    name: str,
    root: str | PathLike[str] | None = None,
    seed: int | None = None,
    count: int | None = None,
    mask_orientation: str | None = None,
    size: int | None = None,
) -> OpenedDataset:
    """Find the pictures of a dataset.

    Args:
        name: one of ``NAMES`` but "masks", which ``OwnMaskDataset`` finds.
        root: its folder; all need one but "scenes".
        seed, count: which scenes, and how many; 0 and 500 unless given.
        mask_orientation: see ``MaskDataset``.
        size: the side of the scenes in pixels; 64 unless given.

    Raises:
        InputError: there is no such dataset, or an argument is missing or belongs to another one.
        DatasetError: its files are missing or do not match.
    """
    if name not in NAMES:
        raise InputError(f"There is no dataset '{name}': choose from {', '.join(NAMES)}.")
    if name == OWN:
        raise InputError("Masks of one's own are found by OwnMaskDataset(images, masks, classes).")
    if mask_orientation is not None and name not in BENCHMARKS:
        raise InputError(f"--mask-orientation is about masks of photos: leave it out for {name}.")
    if name == SceneDataset.name:
        if root is not None:
            raise InputError("The scenes are drawn, not read: leave --root out.")
        given = ((seed, SEED), (count, COUNT), (size, SIDE))
        drawn = SceneDataset(*(usual if value is None else value for value, usual in given))
        return OpenedDataset(drawn, tuple(drawn.class_names), "whole")
    if any(value is not None for value in (seed, count, size)):
        raise InputError(
            f"--seed, --count and --size belong to the scenes: leave them out for {name}."
        )
    if root is None:
        raise InputError(f"{name} is read from a folder: give it with --root DIR.")
    if name == FolderDataset.name:
        tree = FolderDataset(root)
        return OpenedDataset(tree, tuple(tree.prompts), "whole")
    row = BENCHMARKS[name]
    masks = MaskDataset(name, root, mask_orientation)
    return OpenedDataset(masks, row.prompts, "window", row.background)
