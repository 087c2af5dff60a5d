"""Records of drawn label maps and of the demo's results, to be written in every format."""

import numpy as np
from drawn import blobs

from tf_groupvit.annotation.format_parts import Description
from tf_groupvit.annotation.records import Record, labels_of, record_of
from tf_groupvit.segmentation.result import Segmentation

NAMES = ["grass", "a \"red\" car, 'old'", "Öl & 空 <b>", "sky"]
SCENE_CLASSES = "apple,star,grass,sky,water,sand"


def record(item_id: str, labels: np.ndarray, names=NAMES, ignored: np.ndarray | None = None):
    """The record of a label map; ``ignored`` is true for pixels that belong to no class."""
    margins = np.ones(labels.shape, np.float32) if ignored is None else (~ignored).astype("float32")
    image = np.zeros((*labels.shape, 3), np.uint8)
    scores = np.linspace(0.5, 0.9, len(names))
    result = Segmentation(labels, names, image, class_scores=scores, margins=margins)
    return record_of(item_id, result, ignore_below=0.5)


def drawn_records(names=NAMES) -> list[Record]:
    """Seven records: one of an error, one of holes in holes, one with pixels of no class."""
    maps = [blobs(seed, 96, 128, len(names), 24) for seed in range(4)]
    y, x = np.indices((80, 90))
    rings = (np.hypot(y - 40, x - 40) // 9 % 3).astype(np.uint8)
    part = blobs(9, 96, 128, 2, 24).astype(bool)
    return [
        *(record(f"a/{number}.jpg", one, names) for number, one in enumerate(maps)),
        Record("a/broken.jpg", error="no picture"),
        record("b/rings.jpg", rings, names),
        record("b/ä 0.jpg", blobs(7, 60, 80, len(names), 12), names, part[:60, :80]),
    ]


def scene_records(segmenter, size: int = 200, count: int = 4) -> list[Record]:
    """What the demo finds in drawn scenes."""
    from tf_groupvit.scenes.scene import scenes

    drawn = [one.image for one in scenes(3, count, size)]
    found = segmenter(drawn)
    return [record_of(f"{number}.png", result) for number, result in enumerate(found)]


def expected(records, names=NAMES) -> dict[str, np.ndarray]:
    """The label map of each record that has no error."""
    return {one.id: labels_of(one, len(names)) for one in records if one.error is None}


def exact(names=NAMES) -> Description:
    """Polygons of every region along the edges of its pixels."""
    return Description(names, tolerance=0, minimum_area=0)
