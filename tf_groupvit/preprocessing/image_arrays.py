"""Resize and normalize images in NumPy: as Pillow resizes, by named statistics.

``image_graph`` has the same operations for TensorFlow graphs.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from tf_groupvit.errors import InputError

# name -> (mean, standard deviation) of red, green and blue, on a scale from 0 to 1.
STATISTICS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def resize_bicubic(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) to (height, width, 3) as Pillow's bicubic does.

    That is a = -0.5, antialiased, rounded to 8 bits after each of its two passes. The order of the
    passes shows by some gray levels at hard edges, and Pillow changed it in version 13; it is fixed
    here, as in the exported graph, so that every version of Pillow gives the same pixels.
    """
    H, W, _ = pixels.shape
    image = Image.fromarray(pixels)
    first = (W, height) if rows_first(H, W, height, width) else (width, H)
    for size in (first, (width, height)):
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def rows_first(H: int, W: int, height: int, width: int) -> bool:
    """Whether the number of rows changes first, from H x W to height x width pixels.

    Parity: Pillow 13; before it, columns always were first.
    """
    return H - height > max(0, 2 * (W - width))


def statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of ``"clip"`` or ``"imagenet"``, three numbers each; InputError for others."""
    if name not in STATISTICS:
        raise InputError(
            f"normalize: expected one of {', '.join(map(repr, STATISTICS))}, got {name!r}."
        )
    return STATISTICS[name]


def normalize(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(pixels / 255 - mean) / std: uint8 (B, H, W, 3) -> float32 (B, 3, H, W)."""
    return look_up(pixels, gray_levels(1 / 255, mean, std))


def gray_levels(
    factor: float | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> np.ndarray:
    """What each of the 256 gray levels becomes: float32 (256, 3). None leaves a step out.

    Parity: transformers multiplies in float64, then normalizes in float32.
    """
    levels = np.arange(256, dtype=np.float64)[:, None].repeat(3, axis=1)  # (256, 3)
    levels = (levels if factor is None else levels * factor).astype(np.float32)
    if mean is not None and std is not None:
        levels = (levels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return levels


def look_up(pixels: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Replace gray levels: uint8 (B, H, W, 3), float32 (256, 3) -> float32 (B, 3, H, W)."""
    B, H, W, _ = pixels.shape
    values = np.empty((B, 3, H, W), np.float32)
    for channel in range(3):
        np.take(levels[:, channel], pixels[..., channel], out=values[:, channel], mode="clip")
    return values
