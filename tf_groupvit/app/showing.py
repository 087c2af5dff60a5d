"""A ``Segmentation`` in; what the page shows of it out: regions with their names and colours, a
chart, a sentence.

No Gradio and no TensorFlow. Words of a person go into HTML only escaped.
"""

from html import escape
from typing import Any

import numpy as np

from tf_groupvit.segmentation.palette import group_colors
from tf_groupvit.segmentation.result import Segmentation

CLASSES = "Classes"
SAID = 8  # classes that the sentence names; the chart has them all
STRENGTH = 0.6  # how much of a region's colour lies over the photo

Regions = tuple[
    np.ndarray, list[tuple[np.ndarray, str]]
]  # the photo (H, W, 3), and masks (H, W) with their names


def view_names(stages: int) -> list[str]:
    """The views to choose from: the classes, then the groups of each stage."""
    return [CLASSES, *(f"Groups of stage {stage}" for stage in range(1, stages + 1))]


def regions(result: Segmentation, view: str) -> tuple[Regions, dict[str, str]]:
    """The photo with a mask for each region of a view, largest first, and the colour ``#rrggbb`` of
    each name.
    """
    if view == CLASSES:
        labels, names, colours = result.labels, result.class_names, result.colors
    else:
        labels = result.groups[int(view.rsplit(" ", 1)[1]) - 1]
        names = _group_names(result, labels)
        colours = group_colors(len(names))
    sizes = np.bincount(labels.ravel(), minlength=len(names))
    present = [int(number) for number in np.argsort(-sizes, kind="stable") if sizes[number]]
    masks = [((labels == number) * STRENGTH, names[number]) for number in present]
    return (result.image, masks), {names[number]: _hex(colours[number]) for number in present}


def _group_names(result: Segmentation, labels: np.ndarray) -> list[str]:
    """``group 3``; the groups of the last stage also with the class that each is closest to."""
    count = int(labels.max()) + 1
    if labels is not result.final_group:
        return [f"group {number}" for number in range(count)]
    return [f"group {number}: {best[0][0]}" for number, best in enumerate(result.group_classes(1))]


def chart(result: Segmentation) -> str:
    """The areas as a table whose rows are bars in the classes' colours: HTML, read out as numbers.

    Classes that are not in the picture are folded away under their number.
    """
    colours = dict(zip(result.class_names, result.colors, strict=True))
    ranked = sorted(result.areas.items(), key=lambda item: -item[1])
    rows = "".join(_row(name, area, colours[name]) for name, area in ranked if area)
    table = (
        '<table class="areas"><caption>Part of the picture that each class'
        ' covers</caption><thead><tr><th scope="col">Class</th><th'
        f' scope="col">Area</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    absent = [escape(name) for name, area in ranked if not area]
    if not absent:
        return table
    noun = "class is" if len(absent) == 1 else "classes are"
    summary = f"{len(absent)} {noun} not in the picture"
    return (
        f"{table}<details"
        f' class="absent"><summary>{summary}</summary><p>{", ".join(absent)}</p></details>'
    )


def _row(name: str, area: float, colour: np.ndarray) -> str:
    bar = (
        f'<span class="bar" style="width:{100 * area:.2f}%;background:{_hex(colour)}"'
        ' aria-hidden="true"></span>'
    )
    return (
        f'<tr><th scope="row">{escape(name)}</th><td>{bar}<span'
        f' class="share">{area:.1%}</span></td></tr>'
    )


def sentence(result: Segmentation) -> str:
    """What is to be seen, in a line that a screen reader announces."""
    shares = sorted(result.areas.items(), key=lambda item: -item[1])
    present = [f"{escape(name)} {area:.0%}" for name, area in shares if area]
    more = [f"and {len(present) - SAID} more"] if len(present) > SAID else []
    told = ", ".join([*present[:SAID], *more])
    height, width = result.labels.shape
    return f'<p role="status" class="told">Segmented {width}x{height} pixels: {told}.</p>'


def refusal(message: str) -> str:
    """An error in words, announced at once."""
    return f'<p role="alert" class="refused">{escape(message)}</p>'


def _hex(colour: Any) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)
