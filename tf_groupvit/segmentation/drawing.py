"""Pictures and label maps in, pictures to look at out: blended, with names inside the regions, with
a legend.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from tf_groupvit.segmentation.label_placement import Font, legible, place
from tf_groupvit.segmentation.palette import BLACK, WHITE, ink_on

PAPER, TEXT, RIM = WHITE, (30, 30, 30), (120, 120, 120)
LETTERS = (11, 64)  # smallest and largest height of text, in pixels
SHRUNK = (1.0, 0.75, 0.6)  # a name that does not fit its region is tried smaller
SMALLEST_NAME = 9
CROWD, CROWDED = 40, 0.7  # a legend of more lines is set in smaller letters


def paint(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Label map (H, W) and colors (K, 3) -> picture (H, W, 3) uint8."""
    return colors[labels]


def blend(image: np.ndarray, paint: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """``alpha`` of the paint over the image: (H, W, 3) uint8, to the nearest 256th; halves are
    rounded up.
    """
    share = round(256 * alpha)
    return (
        (image.astype(np.uint16) * (256 - share) + paint.astype(np.uint16) * share + 128) >> 8
    ).astype(np.uint8)


def draw_contours(pixels: np.ndarray, labels: np.ndarray) -> None:
    """Draw the borders of the label map (H, W) into pixels (H, W, 3): white between black, seen on
    every color.
    """
    height, width = labels.shape
    thickness = max(1, round(letter_height((width, height)) / 20))
    core = np.zeros(labels.shape, bool)
    core[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    core[1:] |= labels[1:] != labels[:-1]
    core = _grown(core, thickness - 1)
    pixels[_grown(core, thickness)] = BLACK
    pixels[core] = WHITE


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """A mask (H, W) and what lies within so many steps of it, up, down, left and right."""
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
    """A name set in type: its text, font, the size of its pill, and where the text starts in it."""

    text: str
    font: Font
    size: tuple[int, int]
    start: tuple[float, float]

    @classmethod
    def of(cls, name: str, number: int, height: int) -> "Tag":
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
    """Write each class's name inside its region, on a pill of its color, black or white as reads
    better.

    Larger regions choose first. A region without room for its name in small type stays without it,
    and so do the classes ``unnamed``.
    """
    height, pixels = letter_height(picture.size), np.bincount(labels.ravel(), minlength=len(names))
    heights = sorted({max(SMALLEST_NAME, round(height * share)) for share in SHRUNK}, reverse=True)
    present = [int(number) for number in np.argsort(-pixels, kind="stable") if pixels[number]]
    present = [number for number in present if number not in unnamed]
    tags = {
        number: [Tag.of(names[number], number, height) for height in heights] for number in present
    }
    draw = ImageDraw.Draw(picture)
    places = place(labels, {number: [tag.size for tag in tags[number]] for number in present})
    for number, (which, corner) in places.items():
        _draw_tag(draw, tags[number][which], corner, tuple(map(int, colors[number])))


def _draw_tag(
    draw: ImageDraw.ImageDraw, tag: Tag, corner: tuple[int, int], color: tuple[int, ...]
) -> None:
    left, top = corner
    width, height = tag.size
    ink = ink_on(color)
    draw.rounded_rectangle(
        (left, top, left + width - 1, top + height - 1), height // 4, fill=color, outline=ink
    )
    draw.text((left + tag.start[0], top + tag.start[1]), tag.text, fill=ink, font=tag.font)


# Legend


@dataclass(frozen=True)
class Entry:
    """A line of a legend."""

    name: str
    number: int
    color: tuple[int, ...]
    share: float  # of the picture, 0..1

    @property
    def percent(self) -> str:
        return "<0.1%" if 0 < self.share < 0.0005 else f"{100 * self.share:.1f}%"


def with_legend(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """The picture at the top left, unchanged, and its legend on paper: below or to its right,
    whichever is squarer.
    """
    width, height = picture.size
    letters = round(letter_height(picture.size) * (1 if len(entries) <= CROWD else CROWDED))
    below, right = legend(entries, letters, width=width), legend(entries, letters, height=height)
    sizes = {
        (0, height): (below, (max(width, below.width), height + below.height)),
        (width, 0): (right, (width + right.width, max(height, right.height))),
    }
    corner = min(sizes, key=lambda place: max(sizes[place][1]))
    key, size = sizes[corner]
    sheet = Image.new("RGB", size, PAPER)
    sheet.paste(picture, (0, 0))
    sheet.paste(key, corner)
    return sheet


@dataclass(frozen=True)
class _Columns:
    """How a legend's entries are laid out: measures in pixels."""

    letters: int
    gap: int
    row: int
    column: int
    rows: int

    def corner(self, index: int) -> tuple[int, int]:
        return self.gap + index // self.rows * self.column, self.gap + index % self.rows * self.row


def legend(
    entries: Sequence[Entry], letters: int, width: int | None = None, height: int | None = None
) -> Image.Image:
    """Swatch, name and percent of each entry, down the columns, on a sheet as large as that takes.

    As many columns as go into ``width`` (half a column may stick out), or as few as keep within
    ``height``.
    """
    lines = [(entry, *legible(entry.name, entry.number, letters)) for entry in entries]
    gap, row = round(letters * 0.6), round(letters * 1.6)
    names = max(font.getlength(text) for _, text, font in lines)
    column = round(letters + names + legible("100.0%", 0, letters)[1].getlength("100.0%") + 4 * gap)
    columns = (
        (width + column // 2) // column if width else -(-len(lines) * row // max(height or 1, row))
    )
    rows = -(-len(lines) // max(1, columns))
    layout = _Columns(letters, gap, row, column, rows)
    sheet = Image.new("RGB", (-(-len(lines) // rows) * column + gap, rows * row + 2 * gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (entry, text, font) in enumerate(lines):
        _draw_line(draw, layout, index, entry, text, font)
    return sheet


def _draw_line(
    draw: ImageDraw.ImageDraw, layout: _Columns, index: int, entry: Entry, text: str, font: Font
) -> None:
    x, y = layout.corner(index)
    side, middle = layout.letters, y + layout.row // 2
    swatch = (x, middle - side // 2, x + side - 1, middle + (side - 1) // 2)
    draw.rectangle(swatch, fill=entry.color, outline=RIM)
    draw.text((x + side + layout.gap, middle), text, TEXT, font, anchor="lm")
    number_font = legible("%", 0, side)[1]
    draw.text(
        (x + layout.column - 2 * layout.gap, middle), entry.percent, TEXT, number_font, anchor="rm"
    )


# Panels


def panels(pictures: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Pictures of one size, each under its caption: side by side if they are upright or square,
    else stacked.
    """
    width, height = pictures[0].size
    type_height = letter_height((width, height))
    head, gap = round(type_height * 1.8), max(2, type_height // 2)
    lines = [legible(caption, index, type_height) for index, caption in enumerate(captions)]
    wide = max(
        width, *(round(font.getlength(text)) + 2 * gap for text, font in lines)
    )  # a picture may be narrower
    step = (wide + gap, 0) if height >= width else (0, height + head + gap)
    last = len(pictures) - 1
    sheet = Image.new("RGB", (wide + last * step[0], height + head + last * step[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, (text, font)) in enumerate(zip(pictures, lines, strict=True)):
        x, y = index * step[0], index * step[1]
        draw.text((x + gap, y + head // 2), text, BLACK, font, anchor="lm")
        sheet.paste(picture, (x, y + head))
    return sheet
