"""A segmentation in, pictures to look at out: the seven views of the original demo, an overlay with
legend, the labels.

As in the original, the background is where nothing is painted and no name stands: the image shows
as it is.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.drawing import (
    PAPER,
    Entry,
    blend,
    draw_contours,
    draw_names,
    paint,
    panels,
    with_legend,
)
from tf_groupvit.segmentation.palette import group_colors

if TYPE_CHECKING:
    from tf_groupvit.segmentation.result import Segmentation


def classes_over_image(
    result: "Segmentation", alpha: float = 0.5, contours: bool = False
) -> Image.Image:
    """``alpha`` of the class's color over the image, and contours; the background is left as it is."""
    blended = blend(result.image, paint(result.labels, result.colors), alpha)
    if _has_background(result):
        blended[result.labels == 0] = result.image[result.labels == 0]
    if contours:
        draw_contours(blended, result.labels)
    return Image.fromarray(blended)


def names_over_image(result: "Segmentation") -> Image.Image:
    """``classes_over_image`` with the names of the classes inside their regions."""
    picture = classes_over_image(result)
    unnamed = {0} if _has_background(result) else set()
    draw_names(picture, result.labels, result.class_names, result.colors, unnamed)
    return picture


def groups_over_image(result: "Segmentation", groups: np.ndarray) -> Image.Image:
    """Half image, half color of the group (H, W)."""
    return Image.fromarray(blend(result.image, paint(groups, group_colors(int(groups.max()) + 1))))


def panels_of_groups(result: "Segmentation") -> Image.Image:
    """``groups_over_image`` of every stage, under captions."""
    counts = [len(np.unique(groups)) for groups in result.groups]
    captions = [
        f"stage {stage}: {count} group{'s' * (count != 1)}" for stage, count in enumerate(counts, 1)
    ]
    return panels([groups_over_image(result, groups) for groups in result.groups], captions)


VIEWS: dict[str, Callable[["Segmentation"], Image.Image]] = {
    "input": lambda result: Image.fromarray(result.image),
    "pred": lambda result: Image.fromarray(paint(result.labels, result.colors)),
    "input_pred": classes_over_image,
    "input_pred_label": names_over_image,
    "first_group": lambda result: groups_over_image(result, result.first_group),
    "final_group": lambda result: groups_over_image(result, result.final_group),
    "all_groups": panels_of_groups,
}


def check_view(name: str) -> str:
    """The name, if there is such a view. Raises ``InputError`` naming them all."""
    if name not in VIEWS:
        raise InputError(f"There is no view '{name}': choose from {', '.join(VIEWS)}.")
    return name


def overlay(
    result: "Segmentation", alpha: float = 0.5, legend: bool = True, contours: bool = True
) -> Image.Image:
    """``classes_over_image`` and a legend of the classes that are there, largest first; the
    background's is empty.
    """
    if (
        isinstance(alpha, bool)
        or not isinstance(alpha, int | float | np.number)
        or not 0 <= alpha <= 1
    ):
        raise InputError(
            f"alpha is {alpha!r}: expected a number from 0, the image alone, to 1, the colors"
            " alone."
        )
    for name, value in (("legend", legend), ("contours", contours)):
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{name} is {value!r}: expected True or False.")
    picture = classes_over_image(result, float(alpha), bool(contours))
    if not legend:
        return picture
    colors = result.colors.tolist()
    if _has_background(result):
        colors[0] = PAPER
    entries = [
        Entry(name, number, tuple(color), area)
        for number, ((name, area), color) in enumerate(
            zip(result.areas.items(), colors, strict=True)
        )
        if area
    ]
    return with_legend(picture, sorted(entries, key=lambda entry: -entry.share))


def label_image(result: "Segmentation") -> Image.Image:
    """Class numbers as gray: mode "L", or "I;16" where they do not fit a byte."""
    return Image.fromarray(
        result.labels if len(result.class_names) <= 256 else result.labels.astype(np.uint16)
    )


def color_image(result: "Segmentation") -> Image.Image:
    """Class numbers with the palette of the views, mode "P"; the view "pred" where they do not fit
    a byte.
    """
    if len(result.class_names) > 256:
        return VIEWS["pred"](result)
    picture = Image.fromarray(result.labels)
    palette = np.zeros(
        (256, 3), np.uint8
    )  # all 256 of them, or Pillow packs several pixels into a byte
    palette[: len(result.class_names)] = result.colors
    picture.putpalette(palette.tobytes())
    return picture


def _has_background(result: "Segmentation") -> bool:
    return result.class_names[0] == "background"
