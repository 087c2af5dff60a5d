"""Labels on a picture: the corner of a box inside each region of a label map (H, W), and fonts with
all letters.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font knows little beyond ASCII. These are looked for, by file name, where the system
# keeps its fonts.
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


def font_for(text: str, size: int) -> Font | None:
    """A font of ``size`` pixels with a glyph for every letter, Pillow's own first; None where there
    is no such font.
    """
    candidates = (_default_font(size), *(_system_font(name, size) for name in SYSTEM_FONTS))
    return next(
        (
            font
            for font in candidates
            if font and all(_has_letter(font, letter) for letter in set(text))
        ),
        None,
    )


def legible(name: str, number: int, size: int) -> tuple[str, Font]:
    """What to draw for class ``number`` and with which font.

    The name on one line, control characters as blanks, cut at 32 letters; ``#number``, the number
    of the class in the label image, where no font at hand has all the letters.
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    text = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
    font = font_for(text, size)
    return (text, font) if text and font else (f"#{number}", _default_font(size))


CELLS = 256**2  # places are looked for on a grid of about so many
LEAST_COVER = (
    0.5  # a box that fits nowhere may stick out of its region this far, if its middle is inside
)


def depth(labels: np.ndarray) -> np.ndarray:
    """Steps (H, W) from each pixel to the nearest one of another class or the rim: the deepest is
    the widest place.

    Erosion by a cross and by a square in turn, which makes octagons, near enough to circles.
    """
    steps = np.ones(labels.shape, np.int32)
    alive = np.ones(labels.shape, bool)
    for turn in range(max(labels.shape)):
        alive = _eroded(labels if turn == 0 else alive, alive, corners=turn % 2 == 0)
        if not alive.any():
            break
        steps += alive
    return steps


def _eroded(same: np.ndarray, alive: np.ndarray, corners: bool) -> np.ndarray:
    """Those alive whose neighbours all carry the same value; outside the rim nothing does."""
    kept = alive.copy()
    for axis in (0, 1):
        kept &= _agrees(same, axis)
    if corners:  # rows first, then columns of what is left: the square
        kept[1:-1, 1:-1] &= _corners_agree(same)
    return kept


def _agrees(same: np.ndarray, axis: int) -> np.ndarray:
    lines = np.moveaxis(same, axis, 0)
    equal = np.zeros(lines.shape, bool)
    equal[1:-1] = (lines[1:-1] == lines[2:]) & (lines[1:-1] == lines[:-2])
    return np.moveaxis(equal, 0, axis)


def _corners_agree(same: np.ndarray) -> np.ndarray:
    middle = same[1:-1, 1:-1]
    corners = (same[:-2, :-2], same[:-2, 2:], same[2:, :-2], same[2:, 2:])
    return np.logical_and.reduce([middle == corner for corner in corners])


def _box_sums(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """How many pixels of a mask (H, W) lie in the box at each corner: (H - height + 1, W - width +
    1).
    """
    sums = np.pad(
        np.cumsum(np.cumsum(mask, 0, dtype=np.int32), 1, dtype=np.int32), ((1, 0), (1, 0))
    )
    return (
        sums[height:, width:]
        - sums[:-height, width:]
        - sums[height:, :-width]
        + sums[:-height, :-width]
    )


Place = tuple[int, tuple[int, int]]  # which size of a box, and its (left, top)


def place(labels: np.ndarray, boxes: Mapping[int, Sequence[tuple[int, int]]]) -> dict[int, Place]:
    """Where the box of each class goes: {class: (which of its sizes, (left, top) in pixels)}.

    ``boxes`` holds, for each class in the order of its right of way, its sizes (width, height),
    largest first. A box lies wholly inside its region, at the deepest such place; where no size
    fits, the smallest may stick out by half, its middle inside. Boxes do not overlap, and a class
    without room is left out.
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
                places[number] = (which, (min(left * stride, labels.shape[1] - width),
                                          min(top * stride, labels.shape[0] - height)))  # fmt: skip
                break
    return places


def _best_corner(
    region: np.ndarray, taken: np.ndarray, depths: np.ndarray, cells: tuple[int, int], cover: float
) -> tuple[int, int] | None:
    """Top and left of the box that covers enough of its region, meets no other and has the deepest
    middle.
    """
    height, width = cells
    if height > region.shape[0] or width > region.shape[1]:
        return None
    middle = np.s_[height // 2 : height // 2 + region.shape[0] - height + 1,
                   width // 2 : width // 2 + region.shape[1] - width + 1]  # fmt: skip
    inside = _box_sums(region, height, width)
    fits = (
        (inside >= cover * height * width) & (_box_sums(taken, height, width) == 0) & region[middle]
    )
    if not fits.any():
        return None
    # More inside comes first, then deeper, then nearer to the middle of the region.
    worth = np.where(fits, 1000.0 * inside + depths[middle] - _off_centre(region)[middle], -np.inf)
    top, left = np.unravel_index(worth.argmax(), worth.shape)
    return int(top), int(left)


def _off_centre(region: np.ndarray) -> np.ndarray:
    """Distance (H, W) to the mean of a region's pixels, in 0..1."""
    rows, columns = np.nonzero(region)
    y, x = np.ogrid[: region.shape[0], : region.shape[1]]
    return np.hypot(y - rows.mean(), x - columns.mean()) / np.hypot(*region.shape)
