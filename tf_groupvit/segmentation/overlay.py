"""Pictures of a segmentation: the seven views of the original demo, and the overlay with legend.

As in the original demo, the background is neither painted nor named: the image shows as it is.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.label_placement import Font, legible, place
from tf_groupvit.segmentation.palette import BLACK, WHITE, group_colors, ink_on

if TYPE_CHECKING:
    from tf_groupvit.segmentation.result import Segmentation

PAPER, TEXT, RIM = WHITE, (30, 30, 30), (120, 120, 120)
LETTERS = (11, 64)  # smallest and largest height of text, in pixels
SHRUNK = (1.0, 0.75, 0.6)  # a name that does not fit its region is tried smaller
SMALLEST_NAME = 9  # pixels
CROWD, CROWDED = 40, 0.7  # a legend of more lines is set in smaller letters

# Colors and borders


def paint(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Label map (H, W) and colors (K, 3) -> picture (H, W, 3) uint8."""
    return colors[labels]


def blend(image: np.ndarray, paint: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """``alpha`` of the paint over the image, both (H, W, 3) uint8, to the nearest 256th.

    Halves are rounded up.
    """
    share = round(256 * alpha)
    mixed = image.astype(np.uint16) * (256 - share) + paint.astype(np.uint16) * share
    return ((mixed + 128) >> 8).astype(np.uint8)


def draw_contours(pixels: np.ndarray, labels: np.ndarray) -> None:
    """Draw the borders of a label map (H, W) into pixels (H, W, 3): white between black."""
    height, width = labels.shape
    thickness = max(1, round(letter_height((width, height)) / 20))
    core = np.zeros(labels.shape, bool)
    core[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    core[1:] |= labels[1:] != labels[:-1]
    core = _dilated(core, thickness - 1)
    pixels[_dilated(core, thickness)] = BLACK
    pixels[core] = WHITE


def _dilated(mask: np.ndarray, steps: int) -> np.ndarray:
    """A mask (H, W) and all pixels at most ``steps`` from it, up, down, left and right."""
    for _ in range(steps):
        near = mask.copy()
        near[1:] |= mask[:-1]
        near[:-1] |= mask[1:]
        near[:, 1:] |= mask[:, :-1]
        near[:, :-1] |= mask[:, 1:]
        mask = near
    return mask


def letter_height(size: tuple[int, int]) -> int:
    """Height of text, in pixels, that suits a picture of (width, height)."""
    return int(np.clip(round(np.sqrt(size[0] * size[1]) / 30), *LETTERS))


# Names inside regions


@dataclass(frozen=True)
class Tag:
    """A name with its font, the size of its pill in pixels, and where the text starts in it."""

    text: str
    font: Font
    size: tuple[int, int]
    start: tuple[float, float]

    @classmethod
    def of(cls, name: str, number: int, height: int) -> "Tag":
        """The tag of class ``number`` in letters ``height`` pixels high."""
        text, font = legible(name, number, height)
        left, top, right, bottom = font.getbbox(text)
        margin = max(2, height // 4)
        size = (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin)
        return cls(text, font, size, (margin - left, margin - top))


def draw_names(
    picture: Image.Image,
    labels: np.ndarray,
    names: Sequence[str],
    colors: np.ndarray,
    unnamed: Collection[int] = (),
) -> None:
    """Write the name of each class inside its region, on a pill of its color.

    Larger regions choose first. A region without room for its name in small letters has none, and
    neither have the classes ``unnamed``. Labels are (H, W), colors (K, 3).
    """
    height, pixels = letter_height(picture.size), np.bincount(labels.ravel(), minlength=len(names))
    heights = sorted({max(SMALLEST_NAME, round(height * share)) for share in SHRUNK}, reverse=True)
    present = [int(number) for number in np.argsort(-pixels, kind="stable") if pixels[number]]
    tags = {
        number: [Tag.of(names[number], number, height) for height in heights]
        for number in present
        if number not in unnamed
    }
    draw = ImageDraw.Draw(picture)
    sizes = {number: [tag.size for tag in tried] for number, tried in tags.items()}
    for number, (which, (left, top)) in place(labels, sizes).items():
        tag, color = tags[number][which], tuple(map(int, colors[number]))
        width, height = tag.size
        box, ink = (left, top, left + width - 1, top + height - 1), ink_on(color)
        draw.rounded_rectangle(box, height // 4, fill=color, outline=ink)
        draw.text((left + tag.start[0], top + tag.start[1]), tag.text, fill=ink, font=tag.font)


# Legend


@dataclass(frozen=True)
class Entry:
    """A line of a legend; ``share`` is the part of the picture that the class covers, 0..1."""

    name: str
    number: int
    color: tuple[int, ...]
    share: float

    @property
    def percent(self) -> str:
        """The share as text, e.g. "45.6%"."""
        return "<0.1%" if 0 < self.share < 0.0005 else f"{100 * self.share:.1f}%"


def with_legend(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """The picture, unchanged, with its legend below or to its right, whichever is squarer."""
    width, height = picture.size
    letters = round(letter_height(picture.size) * (1 if len(entries) <= CROWD else CROWDED))
    below, right = legend(entries, letters, width=width), legend(entries, letters, height=height)
    under = (max(width, below.width), height + below.height)
    aside = (width + right.width, max(height, right.height))
    stacked = max(under) <= max(aside)
    sheet = Image.new("RGB", under if stacked else aside, PAPER)
    sheet.paste(picture, (0, 0))
    sheet.paste(*((below, (0, height)) if stacked else (right, (width, 0))))
    return sheet


def legend(
    entries: Sequence[Entry], letters: int, width: int | None = None, height: int | None = None
) -> Image.Image:
    """Swatch, name and percent of each entry, in columns.

    Letters are ``letters`` pixels high.

    There are as many columns as go into ``width`` (half a column may stick out), or as few as keep
    within ``height``, in pixels.
    """
    lines = [(entry, *legible(entry.name, entry.number, letters)) for entry in entries]
    gap, row = round(letters * 0.6), round(letters * 1.6)
    number_font = legible("100.0%", 0, letters)[1]
    longest = max(font.getlength(text) for _, text, font in lines)
    column = round(letters + longest + number_font.getlength("100.0%") + 4 * gap)
    wanted = (width + column // 2) // column if width else 0
    if height:
        wanted = -(-len(lines) * row // max(height, row))
    rows = -(-len(lines) // max(1, wanted))
    sheet = Image.new("RGB", (-(-len(lines) // rows) * column + gap, rows * row + 2 * gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (entry, text, font) in enumerate(lines):
        x, middle = gap + index // rows * column, gap + index % rows * row + row // 2
        swatch = (x, middle - letters // 2, x + letters - 1, middle + (letters - 1) // 2)
        draw.rectangle(swatch, fill=entry.color, outline=RIM)
        draw.text((x + letters + gap, middle), text, TEXT, font, anchor="lm")
        draw.text((x + column - 2 * gap, middle), entry.percent, TEXT, number_font, anchor="rm")
    return sheet


def panels(pictures: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Pictures of one size, each under its caption: in a row if they are upright, else stacked."""
    width, height = pictures[0].size
    letters = letter_height((width, height))
    head, gap = round(letters * 1.8), max(2, letters // 2)
    lines = [legible(caption, index, letters) for index, caption in enumerate(captions)]
    # A picture may be narrower than its caption.
    wide = max(width, *(round(font.getlength(text)) + 2 * gap for text, font in lines))
    step = (wide + gap, 0) if height >= width else (0, height + head + gap)
    last = len(pictures) - 1
    sheet = Image.new("RGB", (wide + last * step[0], height + head + last * step[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, (text, font)) in enumerate(zip(pictures, lines, strict=True)):
        x, y = index * step[0], index * step[1]
        draw.text((x + gap, y + head // 2), text, BLACK, font, anchor="lm")
        sheet.paste(picture, (x, y + head))
    return sheet


# Views of a segmentation


def classes_over_image(
    result: "Segmentation", alpha: float = 0.5, contours: bool = False
) -> Image.Image:
    """``alpha`` of each class's color over the image, and contours if wanted."""
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
    """Half image, half color of the group of each pixel (H, W)."""
    return Image.fromarray(blend(result.image, paint(groups, group_colors(int(groups.max()) + 1))))


def _all_groups(result: "Segmentation") -> Image.Image:
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
    "all_groups": _all_groups,
}


def overlay(
    result: "Segmentation", alpha: float = 0.5, legend: bool = True, contours: bool = True
) -> Image.Image:
    """``classes_over_image`` and a legend of the classes that are present, largest first.

    Raises ``InputError`` for values that ``Segmentation.overlay`` does not take.
    """
    number = isinstance(alpha, int | float | np.number) and not isinstance(alpha, bool)
    if not number or not 0 <= alpha <= 1:
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
        Entry(name, number, tuple(colors[number]), area)
        for number, (name, area) in enumerate(result.areas.items())
        if area
    ]
    return with_legend(picture, sorted(entries, key=lambda entry: -entry.share))


def _has_background(result: "Segmentation") -> bool:
    return result.class_names[0] == "background"
