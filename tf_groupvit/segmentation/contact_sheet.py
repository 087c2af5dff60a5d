"""One picture that shows many, in rows over their names: to look at before anything else."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from tf_groupvit.segmentation.label_placement import LONGEST, legible
from tf_groupvit.segmentation.overlay import PAPER, TEXT
from tf_groupvit.segmentation.palette import class_colors
from tf_groupvit.segmentation.result import Segmentation

TILE, GAP, LETTERS, LINE = 400, 12, 15, 20  # pixels
COLUMNS = 4


def contact_sheet(pictures: Mapping[str, Segmentation]) -> bytes:
    """The overlays of pictures by id, at least one, with their legends: a JPEG.

    A class has the same color in all of them: that of ``class_colors``.
    """
    tiles = [(name[-30:], _tile(result)) for name, result in sorted(pictures.items())]
    return sheet_of(tiles)


def sheet_of(tiles: Sequence[tuple[str, Image.Image]], lines: int = 1) -> bytes:
    """Pictures with a text below each, at least one: a JPEG. Large ones are made smaller.

    A line that the font cannot show is the number of its picture.

    Args:
        lines: that a text may have; what is longer ends with an ellipsis.
    """
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    step = TILE + GAP, TILE + GAP + 2 * LETTERS + (lines - 1) * LINE
    sheet = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (text, tile) in enumerate(tiles):
        left = GAP + number % columns * step[0]
        top = GAP + number // columns * step[1]
        tile.thumbnail((TILE, TILE))
        sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
        for place, line in enumerate(_wrapped(text, lines)):
            shown, font = legible(line, number, LETTERS)
            middle = left + TILE // 2, top + TILE + LETTERS + place * LINE
            draw.text(middle, shown, TEXT, font, anchor="mm")
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=90)
    return content.getvalue()


def _wrapped(text: str, lines: int) -> list[str]:
    """A text in so many lines at most; one line is left to ``legible``."""
    if lines == 1:
        return [text]
    return textwrap.wrap(text, LONGEST, max_lines=lines, placeholder=" ...")


def _tile(result: Segmentation) -> Image.Image:
    """An overlay that fits a tile; small pictures are enlarged, so that the legend is readable."""
    height, width = result.labels.shape
    scale = TILE / max(height, width)
    if scale != 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        labels = Image.fromarray(result.labels).resize(size, Image.Resampling.NEAREST)
        image = Image.fromarray(result.image).resize(size)
        result = Segmentation(labels, result.class_names, image)  # type: ignore[arg-type]
    result.colors = class_colors(result.class_names)  # its own depend on its picture
    return result.overlay()
