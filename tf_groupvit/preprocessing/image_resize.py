"""uint8 pixels (H, W, 3) in; uint8 pixels (height, width, 3) out, by the two ways that segmentation resizes."""

import numpy as np
from PIL import Image

_STRIP = 1 << 20  # pixels that are worked on at a time, to bound the float32 in between


def resize_bicubic(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize as Pillow's bicubic does: a = -0.5, antialiased, rounded to 8 bits after each of its two passes.

    The order of the passes shows by some grey levels at hard edges, and Pillow changed it in version 13;
    it is fixed here, as in the exported graph, so that every version of Pillow gives the same pixels.
    """
    H, W, _ = pixels.shape
    image = Image.fromarray(pixels)
    first = (W, height) if rows_first(H, W, height, width) else (width, H)
    for size in (first, (width, height)):
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def rows_first(H: int, W: int, height: int, width: int) -> bool:
    """Say whether the number of rows changes first. Parity: Pillow 13; before it, columns always came first."""
    return H - height > max(0, 2 * (W - width))


def resize_bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bilinearly with half-pixel centres and without antialiasing, as OpenCV does by default.

    The published segmentation scores were made that way. OpenCV rounds its weights to 11 bits, so it may
    differ by one grey level. Halves round up. Memory does not grow with the image beyond the result.
    """
    H, W, _ = pixels.shape
    result = np.empty((height, width, 3), np.uint8)
    left, right, across = _neighbours(W, width)
    upper, lower, down = _neighbours(H, height)
    rows = max(1, _STRIP // max(width, W))
    for start in range(0, height, rows):
        part = slice(start, start + rows)
        top = _mix(pixels[upper[part]], left, right, across)
        bottom = _mix(pixels[lower[part]], left, right, across)
        mixed = top + (bottom - top) * down[part, None, None]
        result[part] = np.floor(mixed + np.float32(0.5))
    return result


def _mix(rows: np.ndarray, left: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    near = rows[:, left].astype(np.float32)
    return near + (rows[:, right].astype(np.float32) - near) * weight[:, None]


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new position its two old neighbours and the weight of the second, float32 as in TensorFlow."""
    scale = np.float32(old) / np.float32(new)
    place = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    below = np.floor(place)
    second = np.minimum(np.ceil(place).astype(np.int64), old - 1)
    first = np.minimum(np.maximum(below.astype(np.int64), 0), second)
    return first, second, place - below
