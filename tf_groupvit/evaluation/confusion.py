"""A confusion matrix as a picture: what the pixels of each class were taken for."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.label_placement import Font, legible
from tf_groupvit.segmentation.palette import BLACK, WHITE, ink_on

CELL = (14, 44)  # smallest and largest side of a cell, in pixels
LARGEST = 4096  # side of the field of all cells; where the smallest cells are larger, they shrink
LETTERS = (10, 14)  # smallest and largest height of names
RIGHT, WRONG = (0, 104, 71), (178, 34, 34)  # colors of a whole row on the diagonal, and beside it
GRID, EMPTY = (225, 225, 225), (244, 244, 244)
WRITTEN = 18  # side of a cell, from which on percent are written
LEAST = 0.005  # the share of a row from which on its percent are written
TITLES = ("segmented as, in percent", "class in the masks")
MARGIN = 12


def draw_confusion(counts: npt.ArrayLike, class_names: Sequence[str]) -> Image.Image:
    """Draw a matrix of pixels (K, K), rows the true classes, columns the predicted ones.

    A cell shows the percent of its row, so that each row adds up to 100, and is the darker the
    more; on the diagonal, what is right, in green, else in red. A row of gray has no pixels. Names
    that no font has the letters of are numbers.

    Raises ``InputError`` for a matrix of another shape than the names.
    """
    counts, K = np.asarray(counts), len(class_names)
    if counts.shape != (K, K) or K < 1:
        raise InputError(f"Expected counts as ({K}, {K}), a class each: received {counts.shape}.")
    cell = max(2, min(LARGEST // K, max(CELL[0], min(CELL[1], 1800 // K))))
    letters = max(LETTERS[0], min(LETTERS[1], cell - 4))
    named = cell >= CELL[0]
    names = [legible(name, number, letters) for number, name in enumerate(class_names)]
    widest = int(max(font.getlength(text) for text, font in names)) if named else 0
    title_height, edge = letters + MARGIN, widest + 2 * MARGIN
    left, top = edge + title_height, edge + title_height
    side = cell * K
    font = legible("x", 0, letters)[1]
    wide, high = (int(font.getlength(title)) for title in TITLES)
    width, height = (max(left + side, title_height + long) + 2 * MARGIN for long in (wide, high))
    picture = Image.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(picture)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros((K, K)), where=total > 0)
    colors = _colors(shares, total[:, 0] > 0)
    field = Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST)
    picture.paste(field, (left, top))
    if named:
        for at in range(K + 1):
            draw.line([(left + at * cell, top), (left + at * cell, top + side)], GRID)
            draw.line([(left, top + at * cell), (left + side, top + at * cell)], GRID)
        _write_percents(draw, shares, colors, cell, (left, top))
        for at, (text, font) in enumerate(names):
            middle = int((at + 0.5) * cell)
            draw.text((left - MARGIN // 2, top + middle), text, BLACK, font, anchor="rm")
            _write_upward(picture, text, font, (left + middle, top - MARGIN // 2))
    center = left + side // 2
    at = min(max(title_height, center - wide // 2), width - MARGIN - wide)
    draw.text((at, MARGIN), TITLES[0], BLACK, font, anchor="la")
    start = (MARGIN + letters // 2, max(center + high // 2, title_height + high))
    _write_upward(picture, TITLES[1], font, start)
    return picture


def _colors(shares: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The color of each cell (K, K, 3) uint8."""
    full = np.where(np.eye(len(shares), dtype=bool)[..., None], RIGHT, WRONG)
    strength = np.sqrt(shares)[..., None]  # so that a few percent are seen
    colors = np.where(counted[:, None, None], WHITE + (full - WHITE) * strength, EMPTY)
    return np.rint(colors).astype(np.uint8)


def _write_percents(
    draw: ImageDraw.ImageDraw,
    shares: np.ndarray,
    colors: np.ndarray,
    cell: int,
    corner: tuple[int, int],
) -> None:
    if cell < WRITTEN:
        return
    font = legible("100", 0, cell // 3 + 2)[1]
    for row, column in np.argwhere(shares >= LEAST):
        middle = (corner[0] + (column + 0.5) * cell, corner[1] + (row + 0.5) * cell)
        text, ink = f"{100 * shares[row, column]:.0f}", ink_on(colors[row, column])
        draw.text(middle, text, ink, font, anchor="mm")


def _write_upward(picture: Image.Image, text: str, font: Font, start: tuple[int, int]) -> None:
    """Write a text from the bottom up, from ``start``, the middle of its first letter."""
    left, top, right, bottom = map(int, font.getbbox(text))
    length, height = right - left + 2, bottom - top + 2
    strip = Image.new("L", (length, height))
    ImageDraw.Draw(strip).text((1 - left, 1 - top), text, 255, font)
    upward = strip.transpose(Image.Transpose.ROTATE_90)
    picture.paste(BLACK, (start[0] - height // 2, start[1] - length), upward)
