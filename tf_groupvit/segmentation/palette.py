"""Colors of classes and groups, as different as can be, and the ink that is readable on a color."""

from collections.abc import Sequence
from functools import cache

import numpy as np

BACKGROUND_COLOR = (0, 0, 0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
# The colors of the first classes differ mainly in hue, which stays visible at half opacity, unlike
# lightness.
FIRST = ((230, 60, 50), (30, 90, 240), (255, 195, 0), (200, 60, 220),
         (0, 165, 80), (0, 215, 235), (255, 140, 190), (150, 95, 20))  # fmt: skip
# Distances in OKLab. A class gets another color in a picture if its region, covered by half, would
# look nearly as before (UNSEEN), or if its color is nearly that of another class there (ALIKE).
# The new color must exceed the larger distances (SEEN, APART).
UNSEEN, SEEN = 0.075, 0.12
ALIKE, APART = 0.1, 0.18
SAME_HUE = 0.82  # the cosine of 35 degrees
GRAY = 0.06  # colors with less chroma count as having no hue
FIRST_SIXTH = np.deg2rad(10)  # middle of the first sixth of the hues: grass is near 130, sky 250
TYPICAL = 0.12  # chroma of a region
SAMPLE = 2**16  # pixels of a picture that its mean colors are taken from

# OKLab, Björn Ottosson 2020: https://bottosson.github.io/posts/oklab/. Equal distances look
# equally different.
_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                   [0.2119034982, 0.6806995451, 0.1073969566],
                   [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_OPPONENTS = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                       [1.9779984951, -2.4285922050, 0.4505937099],
                       [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


def _linear(colors: np.ndarray) -> np.ndarray:
    """sRGB bytes (..., 3) -> linear light (..., 3) in 0..1 (IEC 61966-2-1)."""
    share = np.asarray(colors, np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def oklab(colors: np.ndarray) -> np.ndarray:
    """sRGB bytes (..., 3) -> lightness, green-red and blue-yellow in OKLab (..., 3)."""
    return np.cbrt(_linear(colors) @ _CONES.T) @ _OPPONENTS.T


def _spread(
    lightness: tuple[float, float], chroma: tuple[float, float], *first: tuple[int, int, int]
) -> np.ndarray:
    """256 colors (256, 3) in a range of lightness and chroma, each far from all before it."""
    steps = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = oklab(grid)
    kept = np.ones(len(grid), bool)
    for values, (low, high) in ((lab[:, 0], lightness), (np.hypot(lab[:, 1], lab[:, 2]), chroma)):
        kept &= (values >= low) & (values <= high)
    grid, lab = grid[kept], lab[kept]
    chosen = list(np.asarray(first))
    gap = _nearest(lab, oklab(np.asarray(first)))
    while len(chosen) < 256:
        best = int(gap.argmax())
        chosen.append(grid[best])
        gap = np.minimum(gap, np.linalg.norm(lab - lab[best], axis=1))
    return np.asarray(chosen, np.uint8)


def _nearest(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """Distance (m) of each of these (m, 3) to the nearest of those (n, 3); infinite if n is 0."""
    return np.linalg.norm(these[:, None] - those[None], axis=-1).min(axis=1, initial=np.inf)


@cache
def _class_table() -> np.ndarray:
    return _spread((0.5, 0.9), (0.12, 0.28), *FIRST)


@cache
def _group_table() -> np.ndarray:
    # Darker and paler than classes, so that a map of groups is not taken for a map of classes.
    return _spread((0.35, 0.95), (0.04, 0.2), (60, 120, 180))


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """Colors (K, 3) uint8 of the classes; they repeat after 256.

    "background", which can only be the first class, is black, and the others have the same colors
    with and without it.
    """
    background = len(class_names) > 0 and class_names[0] == "background"
    colors = _class_table()[(np.arange(len(class_names)) - background) % 256]
    if background:
        colors[0] = BACKGROUND_COLOR
    return colors


def picture_colors(class_names: Sequence[str], labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Colors (K, 3) uint8 of the classes in one picture, labels (H, W) and image (H, W, 3) uint8.

    They are those of ``class_colors``, except for classes whose color is hard to see over their own
    region, or hard to tell from that of a class before them in the picture. Those get a color
    that is easy to see, if possible one that no other class uses.
    """
    colors, table = class_colors(class_names), _class_table()
    looks, regions = oklab(colors), _mean_colors(labels, image, len(class_names))
    kept: list[int] = []
    moved: list[int] = []
    for k in np.flatnonzero(regions[:, 0] >= 0).tolist():
        if k == 0 and class_names[0] == "background":
            continue
        alike = _nearest(looks[[k]], looks[kept])[0] < ALIKE
        (moved if alike or _seen(colors[[k]], regions[k])[0] < UNSEEN else kept).append(k)
    for k in moved:
        seen, apart = _seen(table, regions[k]) / SEEN, _nearest(oklab(table), looks[kept]) / APART
        fit = np.minimum(seen, apart)
        free = _nearest(oklab(table), looks) >= ALIKE
        worth = np.minimum(fit, 1) + (fit >= 1) * (free + _colorful(table, regions[k]))
        colors[k] = table[worth.argmax()]
        looks[k] = oklab(colors[k])
        kept.append(k)
    return colors


def _seen(colors: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How far each color (n, 3) moves a region of mean color (3) that it covers by half: (n).

    0 where both have the same hue.
    """
    moves = np.linalg.norm(oklab((colors + region) / 2) - oklab(region), axis=1)
    hue, strength = _hues(region)
    return np.where((_hues(colors)[0] @ hue > SAME_HUE) & (strength > GRAY), 0, moves)


def _colorful(colors: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How much of its hue each color (n, 3) gives to a region that it covers by half: (n).

    It counts less where the region's own hue is hardly moved. Of the region's mean color (3) only
    the sixth of the hues counts, so that grass gets the same color in all pictures.
    """
    plane, (hue, strength) = oklab(colors)[:, 1:], _hues(region)
    turns = np.round((np.arctan2(hue[1], hue[0]) - FIRST_SIXTH) * 3 / np.pi)
    sixth = np.pi / 3 * turns + FIRST_SIXTH
    typical = TYPICAL * (strength > GRAY) * np.array([np.cos(sixth), np.sin(sixth)])
    own = ((plane + typical) / 2 * _hues(colors)[0]).sum(axis=1)
    return np.minimum(own, np.linalg.norm(plane - typical, axis=1) / 2)


def _hues(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hues of colors (..., 3) as unit vectors (..., 2), and their chroma (...)."""
    plane = oklab(colors)[..., 1:]
    strength = np.linalg.norm(plane, axis=-1)
    return plane / np.maximum(strength, 1e-9)[..., None], strength


def _mean_colors(labels: np.ndarray, image: np.ndarray, count: int) -> np.ndarray:
    """The mean color (count, 3) of each class's region in a sample of pixels; -1 without any."""
    step = max(1, int(np.sqrt(labels.size / SAMPLE)))
    numbers, pixels = labels[::step, ::step].ravel(), image[::step, ::step].reshape(-1, 3)
    sums = np.stack([np.bincount(numbers, pixels[:, c], count) for c in range(3)], axis=1)
    sizes = np.bincount(numbers, minlength=count)[:, None]
    return np.where(sizes, sums / np.maximum(sizes, 1), -1)


def group_colors(count: int) -> np.ndarray:
    """Colors (G, 3) uint8 of that many groups; they repeat after 256."""
    return _group_table()[np.arange(count) % 256]


def luminance(color: tuple[int, ...] | np.ndarray) -> float:
    """Relative luminance, 0..1, of an sRGB color (3) (WCAG 2.2, "relative luminance")."""
    return float(_linear(np.asarray(color)) @ [0.2126, 0.7152, 0.0722])


def contrast(one: tuple[int, ...] | np.ndarray, other: tuple[int, ...] | np.ndarray) -> float:
    """Contrast ratio, 1..21, of two colors (3) (WCAG 2.2); text needs 4.5 (criterion 1.4.3)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(color: tuple[int, ...] | np.ndarray) -> tuple[int, int, int]:
    """Black or white, whichever has more contrast on a color (3): always at least 4.58."""
    return max((BLACK, WHITE), key=lambda ink: contrast(ink, color))
