"""A classifier and a tree with a folder for each class in, top-1 and top-5 accuracy out."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tf_groupvit.errors import DatasetError
from tf_groupvit.evaluation.evaluator import checked_count
from tf_groupvit.evaluation.file_names import first_in_doubt, is_junk
from tf_groupvit.evaluation.rounds import go_through, open_file
from tf_groupvit.evaluation.scores import ClassificationScores, TopK
from tf_groupvit.files import IMAGE_SUFFIXES
from tf_groupvit.preprocessing.image_reading import read_image

NAMES_FILE = "classes.txt"

Classify = Callable[[np.ndarray], Any]  # uint8 (H, W, 3) -> probabilities (K)


class FolderDataset:
    """A tree with a folder for each class, as ImageNet's validation pictures are kept.

    A class is called as its folder, underscores read as blanks. A ``classes.txt`` in the root
    renames them: a line for each folder, ``folder<TAB>name``, or the names alone in the
    alphabetical order of the folders. A name may hold synonyms, as a segmenter takes them:
    ``sofa|couch`` in ``prompts``, ``sofa`` in ``class_names``.

    Raises:
        DatasetError: there are no folders, a folder has no images, or ``classes.txt`` does not go
            with the folders.
    """

    name = "folder"

    def __init__(self, root: str | PathLike[str]) -> None:
        self.root = Path(root)
        folders = self._folders()
        self.prompts = _renamed(self.root / NAMES_FILE, [folder.name for folder in folders])
        self.class_names = [_shown(prompt) for prompt in self.prompts]
        self.names: list[str] = []
        self.labels: list[int] = []
        for label, folder in enumerate(folders):
            inside = _images_of(folder)
            self.names += [path.relative_to(self.root).as_posix() for path in inside]
            self.labels += [label] * len(inside)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3). Raises ``ImageError`` for a file that cannot be read."""
        return read_image(self.root / self.names[index])

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            raise DatasetError(
                f"{self.root}: there is no such folder: give one with a folder for each class."
            )
        folders = sorted(
            path for path in self.root.iterdir() if path.is_dir() and not is_junk(path.name)
        )
        if not folders:
            raise DatasetError(f"{self.root}: expected a folder for each class, none is there.")
        return folders


def evaluate_classes(
    classify: Classify,
    dataset: FolderDataset,
    *,
    limit: int | None = None,
    state: str | PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> ClassificationScores:
    """Classify every picture of a tree; ``limit``, ``state``, ``settings`` and ``progress`` as in
    ``evaluate``.

    Args:
        classify: a function from an image, uint8 (H, W, 3), to probabilities (K), in the order of
            the class names.
        limit: only so many pictures, spread evenly over the tree, since its classes lie one after
            the other.

    Raises:
        InputError: the state is of another evaluation.
        The error of the first picture, where not one could be classified. Single failures are in
        ``.failures``.
    """
    count = min(checked_count(limit, "limit") or len(dataset), len(dataset))
    indices = [k * len(dataset) // count for k in range(count)]
    names = [dataset.names[index] for index in indices]
    tally = TopK(dataset.class_names)
    described = {
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        **(settings or {}),
    }
    file, done = open_file(None if state is None else Path(state), described, tally, names)

    def measure(position: int) -> None:
        index = indices[position]
        tally.update(dataset.labels[index], classify(dataset.image(index)))

    images, failures = go_through(
        names, measure, tally, file=file, done=done, progress=progress, title=dataset.name
    )
    return ClassificationScores(
        dataset.name, images, failures, dict(settings or {}), tally.results()
    )


def _images_of(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    inside = (path for path in files if not is_junk(path.relative_to(folder).as_posix()))
    images = sorted(path for path in inside if path.is_file())
    if not images:
        raise DatasetError(
            f"{folder}: expected the images of a class ({', '.join(IMAGE_SUFFIXES)}), the folder holds"
            " none."
        )
    return images


def _renamed(file: Path, folders: list[str]) -> list[str]:
    """The class names in the order of the folders."""
    if not file.is_file():
        return _all_different([folder.replace("_", " ").strip() for folder in folders], file.parent)
    try:
        lines = [
            line.strip()
            for line in file.read_text(encoding="utf-8-sig").split("\n")
            if line.strip()
        ]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: cannot be read: {error}.") from error
    if not all("\t" in line for line in lines):
        if len(lines) != len(folders) or any("\t" in line for line in lines):
            raise DatasetError(
                f"{file}: expected {len(folders)} names, one a folder; {len(lines)} lines came."
            )
        if doubt := first_in_doubt(folders):
            place, by_letter, by_number = doubt
            raise DatasetError(
                f"{file}: '{lines[place]}' may be the class of the folder '{by_letter}' (sorted by"
                f" letters) or '{by_number}' (by numbers): write a line for each folder,"
                " 'folder<TAB>name'."
            )
        return _all_different(lines, file)
    names = {
        folder.strip(): name.strip() for folder, name in (line.split("\t", 1) for line in lines)
    }
    nameless = next((folder for folder in folders if not names.get(folder)), None)
    if nameless is not None:
        raise DatasetError(f"{file}: expected a line for every folder, '{nameless}' has none.")
    return _all_different([names[folder] for folder in folders], file)


def _all_different(names: list[str], where: Path) -> list[str]:
    shown = [_shown(name) for name in names]
    twice = next((name for name in shown if shown.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(
            f"{where}: two classes are called '{twice}': names must differ: rename one in"
            f" {NAMES_FILE}."
        )
    return names


def _shown(prompt: str) -> str:
    """The first of synonyms: what the class is called."""
    return " ".join(prompt.split("|")[0].split())
