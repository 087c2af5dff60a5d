"""uint8 pixels (B, H, W, 3) in; float32 pixel values (B, 3, H, W), shifted and scaled by named statistics, out."""

from collections.abc import Sequence

import numpy as np

from tf_groupvit.errors import InputError

# name -> (mean, standard deviation) of red, green and blue, on a scale from 0 to 1.
STATISTICS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give (mean, std) of ``"clip"`` or ``"imagenet"``, three numbers each; InputError for another name."""
    if name not in STATISTICS:
        raise InputError(f"normalize: expected one of {', '.join(map(repr, STATISTICS))}, came {name!r}.")
    return STATISTICS[name]


def normalise(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(pixels / 255 - mean) / std: uint8 (B, H, W, 3) -> float32 (B, 3, H, W)."""
    return look_up(pixels, grey_levels(1 / 255, mean, std))


def grey_levels(factor: float | None, mean: Sequence[float] | None, std: Sequence[float] | None) -> np.ndarray:
    """Say what each of the 256 grey levels becomes: float32 (256, 3). None leaves a step out.

    Parity: transformers multiplies in float64, then normalises in float32.
    """
    levels = np.arange(256, dtype=np.float64)[:, None].repeat(3, axis=1)  # (256, 3)
    levels = (levels if factor is None else levels * factor).astype(np.float32)
    if mean is not None and std is not None:
        levels = (levels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return levels


def look_up(pixels: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Replace each grey level by its value: uint8 (B, H, W, 3), float32 (256, 3) -> float32 (B, 3, H, W)."""
    B, H, W, _ = pixels.shape
    values = np.empty((B, 3, H, W), np.float32)
    for channel in range(3):
        np.take(levels[:, channel], pixels[..., channel], out=values[:, channel], mode="clip")
    return values
