"""Many pictures on one."""

import io

import numpy as np
from PIL import Image

from tf_groupvit.segmentation.contact_sheet import GAP, TILE, contact_sheet
from tf_groupvit.segmentation.palette import class_colors
from tf_groupvit.segmentation.result import Segmentation


def test_a_class_has_one_color_on_the_whole_sheet():
    """Also where it is hard to see, as over a picture of that very color."""
    (color,) = class_colors(["sheep"])
    pictures = [np.full((8, 8, 3), 255, np.uint8), np.tile(color, (8, 8, 1))]
    results = [Segmentation(np.zeros((8, 8), np.int32), ["sheep"], one) for one in pictures]
    assert not np.array_equal(results[0].colors, results[1].colors)
    content = contact_sheet({"a": results[0], "b": results[1]})
    sheet = np.asarray(Image.open(io.BytesIO(content)), int)
    for number, picture in enumerate(pictures):
        left, top = GAP + number * (TILE + GAP), GAP
        seen = sheet[top + TILE // 2, left + TILE // 5]
        np.testing.assert_allclose(seen, (color + picture[0, 0].astype(int)) / 2, atol=3)
