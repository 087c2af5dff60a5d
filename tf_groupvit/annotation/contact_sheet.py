"""One picture that shows many, to look at before anything else: overlays in rows over their ids."""

import io
import math
from collections.abc import Mapping

from PIL import Image, ImageDraw

from tf_groupvit.segmentation.label_placement import legible
from tf_groupvit.segmentation.overlay import PAPER, TEXT
from tf_groupvit.segmentation.result import Segmentation

TILE, GAP, LETTERS = 400, 12, 15  # pixels
COLUMNS = 4


def contact_sheet(pictures: Mapping[str, Segmentation]) -> bytes:
    """The overlays of pictures by id, at least one, with their legends: a JPEG."""
    columns = min(COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    step = TILE + GAP, TILE + GAP + 2 * LETTERS
    sheet = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (name, result) in enumerate(sorted(pictures.items())):
        left = GAP + number % columns * step[0]
        top = GAP + number // columns * step[1]
        tile = _tile(result)
        sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
        text, font = legible(name[-30:], number, LETTERS)
        middle = left + TILE // 2, top + TILE + LETTERS
        draw.text(middle, text, TEXT, font, anchor="mm")
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=90)
    return content.getvalue()


def _tile(result: Segmentation) -> Image.Image:
    """An overlay that fits a tile; small pictures are enlarged, so that the legend is readable."""
    height, width = result.labels.shape
    scale = TILE / max(height, width)
    if scale != 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        labels = Image.fromarray(result.labels).resize(size, Image.Resampling.NEAREST)
        image = Image.fromarray(result.image).resize(size)
        result = Segmentation(labels, result.class_names, image)  # type: ignore[arg-type]
    picture = result.overlay()
    picture.thumbnail((TILE, TILE))
    return picture
