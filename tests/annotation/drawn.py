"""Label maps to trace, and polygons filled by the rule that tools of annotation use."""

import numpy as np
from PIL import Image


def blobs(seed: int, height: int, width: int, classes: int = 4, coarse: int = 12) -> np.ndarray:
    """(H, W) uint8: regions of any shape, with holes, some ``coarse`` pixels across."""
    rng = np.random.default_rng(seed)
    small = rng.normal(size=(classes, 2 + height // coarse, 2 + width // coarse)).astype("float32")
    large = [
        Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC) for one in small
    ]
    return np.argmax([np.asarray(one) for one in large], axis=0).astype(np.uint8)


def filled(rings, height: int, width: int) -> np.ndarray:
    """bool (H, W): the pixels whose middle is inside of the rings by the even-odd rule."""
    crossed = np.zeros((height, width + 1), np.int64)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            low, high = sorted((y0, y1))
            y = np.arange(max(np.ceil(low - 0.5), 0), min(np.ceil(high - 0.5), height), dtype=int)
            if len(y):
                x = x0 + (y + 0.5 - y0) / (y1 - y0) * (x1 - x0)
                np.add.at(crossed, (y, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
    return np.cumsum(crossed, axis=1)[:, :width] % 2 == 1


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def outline(mask: np.ndarray) -> int:
    """The sides of pixels that a mask ends at."""
    padded = np.pad(mask, 1).astype(int)
    return int(sum(np.abs(np.diff(padded, axis=axis)).sum() for axis in (0, 1)))
