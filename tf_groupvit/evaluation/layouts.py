"""A benchmark's name and a root folder in; the image and mask file of every picture out.

The layouts are those of mmsegmentation's dataset preparation and of the datasets' own archives.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_groupvit.errors import DatasetError
from tf_groupvit.evaluation import benchmarks
from tf_groupvit.evaluation.file_names import is_junk

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Layout:
    """Where the files of a benchmark lie.

    Attributes:
        homes: folders below the root that may hold the dataset, the first that does is taken; "" is
            the root itself. images, masks: folders below home, as pairs that belong together; the
            first pair whose images exist is taken.
        split: a file below home with a picture's name on each line; None: every file of the images
            folder.
        image_suffix: what follows a picture's name in its image file, before the ending.
        mask_suffixes: what follows it in the mask file, with the map of its numbers; the first that
            exists is taken.
    """

    homes: tuple[str, ...]
    folders: tuple[tuple[str, str], ...]
    mask_suffixes: tuple[tuple[str, np.ndarray], ...]
    split: str | None = None
    image_suffix: str = ""


@dataclass(frozen=True)
class Pair:
    """One picture: its name, its two files, and the map (256) of the mask's numbers to labels."""

    name: str
    image: Path
    mask: Path
    table: np.ndarray


# The last ones are those of the published evaluation.
_COCO_HOMES = ("", "coco_stuff164k", "data/coco_stuff164k", "coco", "data/coco", "local_data/coco")
_COCO_FOLDERS = (
    ("images/val2017", "annotations/val2017"),
    ("val2017", "stuffthingmaps/val2017"),
)


def _voc(year: str, kind: str, table: np.ndarray) -> Layout:
    """VOC2012, and VOC2010 with masks of another kind, "Context"."""
    return Layout(
        homes=(
            "",
            year,
            f"VOCdevkit/{year}",
            f"data/VOCdevkit/{year}",
            f"local_data/VOCdevkit/{year}",
        ),
        folders=(("JPEGImages", f"SegmentationClass{kind}"),),
        mask_suffixes=((".png", table),),
        split=f"ImageSets/Segmentation{kind}/val.txt",
    )


LAYOUTS = {
    "voc": _voc("VOC2012", "", benchmarks.plain(21)),
    "voc20": _voc("VOC2012", "", benchmarks.zero_ignored(20)),
    "context": _voc("VOC2010", "Context", benchmarks.plain(60)),
    "context59": _voc("VOC2010", "Context", benchmarks.zero_ignored(59)),
    "coco-object": Layout(
        homes=_COCO_HOMES,
        folders=_COCO_FOLDERS,
        mask_suffixes=(
            ("_instanceTrainIds.png", benchmarks.plain(81)),
            (".png", benchmarks.COCO_OBJECT_RAW),
            ("_labelTrainIds.png", benchmarks.COCO_OBJECT_FROM_TRAIN_IDS),
        ),
    ),
    "coco-stuff": Layout(
        homes=_COCO_HOMES,
        folders=_COCO_FOLDERS,
        mask_suffixes=(
            ("_labelTrainIds.png", benchmarks.plain(171)),
            (".png", benchmarks.COCO_STUFF_RAW),
        ),
    ),
    "ade20k": Layout(
        homes=(
            "",
            "ADEChallengeData2016",
            "ade/ADEChallengeData2016",
            "data/ade/ADEChallengeData2016",
        ),
        folders=(("images/validation", "annotations/validation"),),
        mask_suffixes=((".png", benchmarks.zero_ignored(150)),),
    ),
    "cityscapes": Layout(
        homes=("", "cityscapes", "data/cityscapes"),
        folders=(("leftImg8bit/val", "gtFine/val"),),
        mask_suffixes=(
            ("_gtFine_labelTrainIds.png", benchmarks.plain(19)),
            ("_gtFine_labelIds.png", benchmarks.CITYSCAPES_RAW),
        ),
        image_suffix="_leftImg8bit",
    ),
}


def find_pairs(dataset: str, root: Path) -> list[Pair]:
    """The pictures of a benchmark below ``root``, in the order of the split file, or of their
    names.

    Raises ``DatasetError`` where the root, the split file, a folder, an image or a mask is missing,
    naming it.
    """
    layout = LAYOUTS[dataset]
    home, images, masks = _located(layout, dataset, root)
    found = _images_in(home / images, layout.image_suffix)
    if layout.split is None:
        names = sorted(found)
        _refuse_masks_alone(layout, home, images, masks, found)
    else:
        names = _names_in(home / layout.split)
    if not names:
        where = home / (layout.split or images)
        raise DatasetError(
            f"{where}: expected the pictures of {dataset}, none is there: is the download complete?"
        )
    for name in names:
        if name not in found:
            raise DatasetError(
                f"{home / images / name}{layout.image_suffix}{IMAGE_ENDINGS[0]}: there is no such"
                f" image: {dataset} is incomplete."
            )
    drawn = _files_in(home / masks)
    return [_pair(name, found[name], layout, home / masks, drawn) for name in names]


def _located(layout: Layout, dataset: str, root: Path) -> tuple[Path, str, str]:
    """(home, images folder, masks folder) of the first place that has the images."""
    if not root.is_dir():
        raise DatasetError(f"{root}: there is no such folder: give the --root of {dataset}.")
    for home in layout.homes:
        for images, masks in layout.folders:
            if not (root / home / images).is_dir():
                continue
            if not (root / home / masks).is_dir():
                raise DatasetError(
                    f"{root / home / masks}: there is no such folder: the masks of {dataset} go"
                    " there."
                )
            return root / home, images, masks
    looked = ", ".join(str(Path(home) / layout.folders[0][0]) for home in layout.homes)
    raise DatasetError(
        f"{root}: expected the images of {dataset} in one of {looked}: none of these is there."
    )


def _files_in(folder: Path) -> set[str]:
    """The files below a folder, as paths relative to it with forward slashes; junk is not among
    them.
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not is_junk(name)}


def _images_in(folder: Path, suffix: str) -> dict[str, Path]:
    """{name: image file} below a folder."""
    found: dict[str, Path] = {}
    for file in sorted(_files_in(folder)):
        stem, dot, ending = file.rpartition(".")
        if dot + ending.lower() in IMAGE_ENDINGS and stem.endswith(suffix):
            found.setdefault(stem.removesuffix(suffix), folder / file)
    return found


def _names_in(split: Path) -> list[str]:
    try:
        lines = split.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        reason = (
            "there is no such file"
            if isinstance(error, FileNotFoundError)
            else f"cannot be read: {error}"
        )
        raise DatasetError(
            f"{split}: {reason}: it lists the pictures to evaluate, one name a line."
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DatasetError(f"{split}: '{twice}' is listed twice: each picture must count once.")
    return names


def _pair(name: str, image: Path, layout: Layout, masks: Path, drawn: set[str]) -> Pair:
    for suffix, table in layout.mask_suffixes:
        if name + suffix in drawn:
            return Pair(name, image, masks / (name + suffix), table)
    names = " or ".join(name + suffix for suffix, _ in layout.mask_suffixes)
    raise DatasetError(f"{masks}: expected the mask {names} of {image.name}: it is not there.")


def _refuse_masks_alone(
    layout: Layout, home: Path, images: str, masks: str, found: dict[str, Path]
) -> None:
    """A mask without its image means that images are missing: scores over the rest would look
    complete.
    """
    suffixes = [suffix for suffix, _ in layout.mask_suffixes]
    for file in sorted(_files_in(home / masks)):
        # The longest suffix first: ".png" ends them all.
        suffix = next(
            (s for s in sorted(suffixes, key=len, reverse=True) if file.endswith(s)), None
        )
        if suffix is None or "TrainIds" in file.removesuffix(suffix):
            continue
        name = file.removesuffix(suffix)
        if name not in found:
            raise DatasetError(
                f"{home / images / name}{layout.image_suffix}{IMAGE_ENDINGS[0]}: there is no such"
                f" image, but its mask {file} is there: the images are incomplete."
            )
