"""Class and group numbers in, colours (n, 3) out, and the ink that can be read on a colour."""

from functools import cache

import numpy as np

BACKGROUND = (0, 0, 0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

# OKLab, Björn Ottosson 2020: https://bottosson.github.io/posts/oklab/ - equal distances look equally different.
_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                   [0.2119034982, 0.6806995451, 0.1073969566],
                   [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_OPPONENTS = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                       [1.9779984951, -2.4285922050, 0.4505937099],
                       [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


def _linear(colours: np.ndarray) -> np.ndarray:
    """sRGB bytes (..., 3) -> linear light (..., 3) in 0..1 (IEC 61966-2-1)."""
    share = np.asarray(colours, np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB bytes (..., 3) -> lightness, green-red, blue-yellow (..., 3)."""
    return np.cbrt(_linear(colours) @ _CONES.T) @ _OPPONENTS.T


def _spread(lightness: tuple[float, float], chroma: tuple[float, float], first: tuple[int, int, int]) -> np.ndarray:
    """256 colours (256, 3), each as far as can be from all before it, in bands of lightness and chroma."""
    steps = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = oklab(grid)
    shade, strength = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    kept = (shade >= lightness[0]) & (shade <= lightness[1]) & (strength >= chroma[0]) & (strength <= chroma[1])
    grid, lab = grid[kept], lab[kept]
    chosen = [np.asarray(first)]
    gap = np.linalg.norm(lab - oklab(chosen[0]), axis=1)
    while len(chosen) < 256:
        best = int(gap.argmax())
        chosen.append(grid[best])
        gap = np.minimum(gap, np.linalg.norm(lab - lab[best], axis=1))
    return np.asarray(chosen, np.uint8)


@cache
def _class_table() -> np.ndarray:
    return _spread(lightness=(0.5, 0.9), chroma=(0.08, 0.25), first=(230, 60, 50))


@cache
def _group_table() -> np.ndarray:
    # Darker and paler than classes, so that a map of groups is not taken for a map of classes.
    return _spread(lightness=(0.35, 0.95), chroma=(0.04, 0.2), first=(60, 120, 180))


def class_colours(class_names: list[str] | tuple[str, ...]) -> np.ndarray:
    """Colours (K, 3) uint8: the same number has the same colour in every picture; "background" in front is black.

    There are 256 different ones; class 256 looks like class 0 again.
    """
    colours = _class_table()[np.arange(len(class_names)) % 256]
    if class_names and class_names[0] == "background":
        colours[0] = BACKGROUND
    return colours


def group_colours(count: int) -> np.ndarray:
    """Colours (count, 3) uint8 of groups; they repeat after 256."""
    return _group_table()[np.arange(count) % 256]


def luminance(colour: tuple[int, ...] | np.ndarray) -> float:
    """Relative luminance in 0..1 (WCAG 2.2, definition "relative luminance")."""
    return float(_linear(np.asarray(colour)) @ [0.2126, 0.7152, 0.0722])


def contrast(one: tuple[int, ...] | np.ndarray, other: tuple[int, ...] | np.ndarray) -> float:
    """Contrast ratio in 1..21 (WCAG 2.2); text needs 4.5 (success criterion 1.4.3)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(colour: tuple[int, ...] | np.ndarray) -> tuple[int, int, int]:
    """Black or white, whichever reads better: at least 4.58, the square root of 21, on any colour."""
    return max((BLACK, WHITE), key=lambda ink: contrast(ink, colour))
