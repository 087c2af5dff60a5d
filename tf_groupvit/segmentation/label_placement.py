"""Names on a picture: a font that has all letters, and a place for the box of each class."""

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font has little beyond ASCII. These are looked up by file name among the system's.
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "STHeiti Light.ttc",
    "segoeui.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
)
_NO_LETTER = "\uffff"  # a noncharacter: every font draws its "missing" box for it
LONGEST = 32  # letters of a name that are drawn; the rest is an ellipsis
CELLS = 256**2  # places are searched on a grid with about this many cells
LEAST_COVER = 0.5  # a box that fits nowhere may stick out of its region by this much

# Fonts


@cache
def _system_font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _default_font(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _has_letter(font: Font, letter: str) -> bool:
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))


def legible(name: str, number: int, size: int) -> tuple[str, Font]:
    """What to draw for class ``number`` in letters of ``size`` pixels, and with which font.

    The name on one line, control characters as blanks, cut at 32 letters; or ``#number``, the
    number of the class in the label image, where no font has a glyph for every letter.
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    text = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
    if text:
        for font in (_default_font(size), *(_system_font(name, size) for name in SYSTEM_FONTS)):
            if font and all(_has_letter(font, letter) for letter in set(text)):
                return text, font
    return f"#{number}", _default_font(size)


# Places

Place = tuple[int, tuple[int, int]]  # which size of a box, and its (left, top)


def place(labels: np.ndarray, boxes: Mapping[int, Sequence[tuple[int, int]]]) -> dict[int, Place]:
    """Where the box of each class goes in a label map (H, W).

    Args:
        boxes: for each class, in the order in which they choose, the sizes (width, height) of its
            box in pixels, largest first.

    Returns:
        {class: (which of its sizes, (left, top) in pixels)}. A box lies wholly inside its region,
        at the deepest such place; where no size fits, the smallest may stick out by half, its
        middle inside. Boxes do not overlap, and a class without room is left out.
    """
    stride = math.ceil(math.sqrt(labels.size / CELLS))
    grid = labels[stride // 2 :: stride, stride // 2 :: stride]
    depths, taken = depth(grid), np.zeros(grid.shape, bool)
    places = {}
    for number, sizes in boxes.items():
        region = grid == number
        tries = [(which, size, 1.0) for which, size in enumerate(sizes)]
        for which, (width, height), cover in [*tries, (len(sizes) - 1, sizes[-1], LEAST_COVER)]:
            cells = (-(-height // stride), -(-width // stride))
            corner = _best_corner(region, taken, depths, cells, cover)
            if corner is not None:
                top, left = corner
                taken[top : top + cells[0] + 1, left : left + cells[1] + 1] = True
                x = min(left * stride, labels.shape[1] - width)
                places[number] = (which, (x, min(top * stride, labels.shape[0] - height)))
                break
    return places


def depth(labels: np.ndarray) -> np.ndarray:
    """Steps (H, W) from each pixel to the nearest one of another class or outside the map.

    Erosion by a cross and by a square in turn, which gives octagons, close enough to circles.
    """
    height, width = labels.shape
    steps, alive = np.ones(labels.shape, np.int32), np.ones(labels.shape, bool)
    same = labels.astype(np.int32)
    for turn in range(max(labels.shape)):
        near = np.pad(same, 1, constant_values=-1)
        for y, x in ((y, x) for y in range(3) for x in range(3)):
            if turn % 2 == 0 or 1 in (y, x):  # the square has the corners, too
                alive &= near[y : y + height, x : x + width] == same
        if not alive.any():
            break
        steps += alive
        same = alive.astype(np.int32)
    return steps


def _best_corner(
    region: np.ndarray, taken: np.ndarray, depths: np.ndarray, cells: tuple[int, int], cover: float
) -> tuple[int, int] | None:
    """(top, left) of the box that has the deepest middle of those that cover enough of the region.

    ``region``, ``taken`` and ``depths`` are (H, W), ``cells`` is the box's (height, width). None if
    no box fits without overlapping another.
    """
    height, width = cells
    if height > region.shape[0] or width > region.shape[1]:
        return None
    down = slice(height // 2, height // 2 + region.shape[0] - height + 1)
    middle = down, slice(width // 2, width // 2 + region.shape[1] - width + 1)
    inside = _box_sums(region, height, width)
    fits = inside >= cover * height * width
    fits &= (_box_sums(taken, height, width) == 0) & region[middle]
    if not fits.any():
        return None
    rows, columns = np.nonzero(region)
    y, x = np.ogrid[: region.shape[0], : region.shape[1]]
    off_center = np.hypot(y - rows.mean(), x - columns.mean()) / np.hypot(*region.shape)
    # Most pixels inside the region first, then the deepest, then the nearest to its center.
    worth = np.where(fits, 1000.0 * inside + depths[middle] - off_center[middle], -np.inf)
    top, left = np.unravel_index(worth.argmax(), worth.shape)
    return int(top), int(left)


def _box_sums(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """How many pixels of a mask (H, W) the box at each corner has: (H-height+1, W-width+1)."""
    sums = np.cumsum(np.cumsum(mask, 0, dtype=np.int32), 1, dtype=np.int32)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    tops = sums[height:] - sums[:-height]
    return tops[:, width:] - tops[:, :-width]
