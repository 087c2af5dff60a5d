"""Finding the files of a benchmark: the image and the mask of every picture below a root folder."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tf_groupvit.errors import DatasetError
from tf_groupvit.evaluation.benchmarks import BENCHMARKS, Layout
from tf_groupvit.evaluation.masks import Mask, MaskFile
from tf_groupvit.files import is_junk, read_lines

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")  # of the images of benchmarks


@dataclass(frozen=True)
class Pair:
    """One picture: its name, its file, and its mask."""

    name: str
    image: Path
    mask: Mask


def find_pairs(dataset: str, root: Path) -> list[Pair]:
    """The pictures of a benchmark below ``root``, in the order of the split file or of their names.

    Raises ``DatasetError``, naming it, where the root, the split file, a folder, an image or a mask
    is missing.
    """
    layout = BENCHMARKS[dataset].layout
    home, images, masks = _located(layout, dataset, root)
    found, drawn = _images_in(images, layout.image_suffix), files_in(masks)

    def missing(name: str, why: str) -> DatasetError:
        file = f"{images / name}{layout.image_suffix}{IMAGE_ENDINGS[0]}"
        return DatasetError(f"{file}: there is no such image{why}")

    if layout.split is None:
        names = sorted(found)
        for name, mask in _masked(layout, drawn):
            # A mask without its image: scores over the rest would look complete.
            if name not in found:
                raise missing(name, f", but its mask {mask} exists: the images are incomplete.")
    else:
        names = _names_in(home / layout.split)
    if not names:
        where = home / layout.split if layout.split else images
        raise DatasetError(
            f"{where}: expected the pictures of {dataset}, found none: is the download complete?"
        )
    for name in names:
        if name not in found:
            raise missing(name, f": {dataset} is incomplete.")
    return [_pair(name, found[name], layout, masks, drawn) for name in names]


def _located(layout: Layout, dataset: str, root: Path) -> tuple[Path, Path, Path]:
    """(home, folder of images, folder of masks) of the first place that has the images."""
    if not root.is_dir():
        raise DatasetError(f"{root}: there is no such folder: give the --root of {dataset}.")
    for home in layout.homes:
        for images, masks in layout.folders:
            if not (root / home / images).is_dir():
                continue
            if not (root / home / masks).is_dir():
                raise DatasetError(
                    f"{root / home / masks}: there is no such folder: expected the masks of"
                    f" {dataset} in it."
                )
            return root / home, root / home / images, root / home / masks
    places = ", ".join(str(Path(home) / layout.folders[0][0]) for home in layout.homes)
    raise DatasetError(
        f"{root}: expected the images of {dataset} in one of {places}: none of these exists."
    )


def files_in(folder: Path) -> set[str]:
    """The files below a folder but for junk, as relative paths with forward slashes."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not is_junk(name)}


def _images_in(folder: Path, suffix: str) -> dict[str, Path]:
    """{name: image file} below a folder."""
    found: dict[str, Path] = {}
    for file in sorted(files_in(folder)):
        stem, dot, ending = file.rpartition(".")
        if dot + ending.lower() in IMAGE_ENDINGS and stem.endswith(suffix):
            found.setdefault(stem.removesuffix(suffix), folder / file)
    return found


def _masked(layout: Layout, drawn: set[str]) -> list[tuple[str, str]]:
    """(name of the picture, mask file) for each mask, in order."""
    # The longest suffix first: ".png" ends them all.
    suffixes = sorted((suffix for suffix, _ in layout.mask_suffixes), key=len, reverse=True)
    found = []
    for file in sorted(drawn):
        suffix = next((suffix for suffix in suffixes if file.endswith(suffix)), None)
        if suffix is not None and "TrainIds" not in file.removesuffix(suffix):
            found.append((file.removesuffix(suffix), file))
    return found


def _names_in(split: Path) -> list[str]:
    names = read_lines(split, DatasetError, "it lists the pictures to evaluate, one name a line")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DatasetError(f"{split}: '{twice}' is listed twice: each picture must count once.")
    return names


def _pair(name: str, image: Path, layout: Layout, masks: Path, drawn: set[str]) -> Pair:
    for suffix, table in layout.mask_suffixes:
        if name + suffix in drawn:
            return Pair(name, image, MaskFile(masks / (name + suffix), table))
    names = " or ".join(name + suffix for suffix, _ in layout.mask_suffixes)
    raise DatasetError(f"{masks}: expected the mask {names} of {image.name}: it does not exist.")
