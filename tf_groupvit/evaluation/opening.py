"""What a user says of a dataset in; the dataset, and how it is segmented unless said otherwise,
out.
"""

from dataclasses import dataclass

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.classification import FolderDataset
from tf_groupvit.evaluation.datasets import BENCHMARKS, MaskDataset, SceneDataset

SEED, COUNT = 0, 500  # of the scenes, unless given
NAMES = (*BENCHMARKS, SceneDataset.name, FolderDataset.name)


@dataclass(frozen=True)
class Opened:
    """A dataset, ready to be read, and what goes with it.

    Attributes:
        dataset: its pictures, with a mask or a class each.
        prompts: its classes without the background.
        mode: how pictures are segmented unless said otherwise: "window" as published, "whole" for
            scenes.
        background: the published threshold; None where there is no background.
    """

    dataset: MaskDataset | SceneDataset | FolderDataset
    prompts: tuple[str, ...]
    mode: str
    background: float | None = None


def open_dataset(
    name: str,
    root: str | None = None,
    seed: int | None = None,
    count: int | None = None,
    mask_orientation: str | None = None,
) -> Opened:
    """Find the pictures of a dataset.

    Args:
        name: one of ``NAMES``.
        root: its folder; all need one but "scenes".
        seed, count: which scenes, and how many; 0 and 500 unless given.
        mask_orientation: see ``MaskDataset``.

    Raises:
        InputError: there is no such dataset, or an argument is missing or of another dataset.
        DatasetError: its files are missing or do not go together.
    """
    if name not in NAMES:
        raise InputError(f"There is no dataset '{name}': choose from {', '.join(NAMES)}.")
    if mask_orientation is not None and name not in BENCHMARKS:
        raise InputError(
            f"--mask-orientation is about masks beside photos: leave it out for {name}."
        )
    if name == SceneDataset.name:
        if root is not None:
            raise InputError("The scenes are drawn, not read: leave --root out.")
        drawn = SceneDataset(SEED if seed is None else seed, COUNT if count is None else count)
        return Opened(drawn, tuple(drawn.class_names), "whole")
    if seed is not None or count is not None:
        raise InputError(
            f"--seed and --count belong to the scenes: leave them out for {name}, or use --limit."
        )
    if root is None:
        raise InputError(f"{name} is read from a folder: give it with --root DIR.")
    if name == FolderDataset.name:
        tree = FolderDataset(root)
        return Opened(tree, tuple(tree.prompts), "whole")
    benchmark = BENCHMARKS[name]
    return Opened(
        MaskDataset(name, root, mask_orientation), benchmark.prompts, "window", benchmark.background
    )
