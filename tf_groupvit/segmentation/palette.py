"""Class and group numbers in, colors (n, 3) out, and the ink that can be read on a color."""

from collections.abc import Sequence
from functools import cache

import numpy as np

BACKGROUND_COLOR = (0, 0, 0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
# Colors that few classes have: they differ in hue, which is left where a color covers half of an
# image, and less in lightness, which is not.
FIRST = ((230, 60, 50), (30, 90, 240), (255, 195, 0), (200, 60, 220),
         (0, 165, 80), (0, 215, 235), (255, 140, 190), (150, 95, 20))  # fmt: skip
# In OKLab: a class has another color in a picture if its region, covered by half, looks nearly as
# before, or if its color is nearly that of another class there. The other color stands farther off.
UNSEEN, SEEN = 0.075, 0.12
ALIKE, APART = 0.1, 0.18
SAME_HUE, GRAY = (
    0.82,
    0.06,
)  # the cosine of 35 degrees; and what is nearer to gray has no hue to speak of
FIRST_SIXTH, TYPICAL = (
    np.deg2rad(10),
    0.12,
)  # middles of the sixths of the hues: grass lies near 130, sky near 250
SAMPLE = 2**16  # pixels of a picture that are looked at

# OKLab, Björn Ottosson 2020: https://bottosson.github.io/posts/oklab/ - equal distances look
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
    """sRGB bytes (..., 3) -> lightness, green-red, blue-yellow (..., 3)."""
    return np.cbrt(_linear(colors) @ _CONES.T) @ _OPPONENTS.T


def _spread(
    lightness: tuple[float, float], chroma: tuple[float, float], *first: tuple[int, int, int]
) -> np.ndarray:
    """256 colors (256, 3), each as far as can be from all before it, in bands of lightness and
    chroma.
    """
    steps = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = oklab(grid)
    shade, strength = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    kept = (
        (shade >= lightness[0])
        & (shade <= lightness[1])
        & (strength >= chroma[0])
        & (strength <= chroma[1])
    )
    grid, lab = grid[kept], lab[kept]
    chosen = list(np.asarray(first))
    gap = _nearest(lab, oklab(np.asarray(first)))
    while len(chosen) < 256:
        best = int(gap.argmax())
        chosen.append(grid[best])
        gap = np.minimum(gap, np.linalg.norm(lab - lab[best], axis=1))
    return np.asarray(chosen, np.uint8)


def _nearest(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """How far each of these (m, 3) is from the nearest of those (n, 3), in OKLab: (m); infinite
    where n is 0.
    """
    return np.linalg.norm(these[:, None] - those[None], axis=-1).min(axis=1, initial=np.inf)


@cache
def _class_table() -> np.ndarray:
    return _spread((0.5, 0.9), (0.12, 0.28), *FIRST)


@cache
def _group_table() -> np.ndarray:
    # Darker and paler than classes, so that a map of groups is not taken for a map of classes.
    return _spread((0.35, 0.95), (0.04, 0.2), (60, 120, 180))


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """Colors (K, 3) uint8: a class has the same with and without "background" before it, which is
    black.

    There are 256 different ones; class 256 looks like class 0 again.
    """
    behind = len(class_names) and class_names[0] == "background"
    colors = _class_table()[(np.arange(len(class_names)) - bool(behind)) % 256]
    if behind:
        colors[0] = BACKGROUND_COLOR
    return colors


def picture_colors(class_names: Sequence[str], labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Colors (K, 3) uint8 of the classes in one picture, labels (H, W) and image (H, W, 3).

    They are those of ``class_colors``, but for classes whose color could hardly be seen over their
    own region, or told from that of a class before them in the picture. Those take one that can, if
    possible one that no class has.
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
        fit = np.minimum(
            _seen(table, regions[k]) / SEEN, _nearest(oklab(table), looks[kept]) / APART
        )
        free = _nearest(oklab(table), looks) >= ALIKE
        worth = np.minimum(fit, 1) + (fit >= 1) * (free + _colorful(table, regions[k]))
        colors[k] = table[worth.argmax()]
        looks[k] = oklab(colors[k])
        kept.append(k)
    return colors


def _seen(colors: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How far each color (n, 3) moves a region of a mean color (3) that it covers by half, (n); 0
    if hues are alike.
    """
    moves = np.linalg.norm(oklab((colors + region) / 2) - oklab(region), axis=1)
    hue, strength = _hues(region)
    return np.where((_hues(colors)[0] @ hue > SAME_HUE) & (strength > GRAY), 0, moves)


def _colorful(colors: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How much of its hue each color (n, 3) gives to a region that it covers by half, and how far
    that is moved, (n).

    Of the region only the sixth of the hues that it lies in counts, so that the grass of all
    pictures chooses alike.
    """
    plane, (hue, strength) = oklab(colors)[:, 1:], _hues(region)
    sixth = (
        np.pi / 3 * np.round((np.arctan2(hue[1], hue[0]) - FIRST_SIXTH) * 3 / np.pi) + FIRST_SIXTH
    )
    typical = TYPICAL * (strength > GRAY) * np.array([np.cos(sixth), np.sin(sixth)])
    own = ((plane + typical) / 2 * _hues(colors)[0]).sum(axis=1)
    return np.minimum(own, np.linalg.norm(plane - typical, axis=1) / 2)


def _hues(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions (..., 2) in the plane of hues, of length one, and how far colors (..., 3) lie from
    gray, (...).
    """
    plane = oklab(colors)[..., 1:]
    strength = np.linalg.norm(plane, axis=-1)
    return plane / np.maximum(strength, 1e-9)[..., None], strength


def _mean_colors(labels: np.ndarray, image: np.ndarray, count: int) -> np.ndarray:
    """The mean color (count, 3) of each class's region, of a sample of its pixels; -1 where there
    is none.
    """
    step = max(1, int(np.sqrt(labels.size / SAMPLE)))
    numbers, pixels = labels[::step, ::step].ravel(), image[::step, ::step].reshape(-1, 3)
    sums = np.stack(
        [np.bincount(numbers, pixels[:, channel], count) for channel in range(3)], axis=1
    )
    sizes = np.bincount(numbers, minlength=count)[:, None]
    return np.where(sizes, sums / np.maximum(sizes, 1), -1)


def group_colors(count: int) -> np.ndarray:
    """Colors (count, 3) uint8 of groups; they repeat after 256."""
    return _group_table()[np.arange(count) % 256]


def luminance(color: tuple[int, ...] | np.ndarray) -> float:
    """Relative luminance in 0..1 (WCAG 2.2, definition "relative luminance")."""
    return float(_linear(np.asarray(color)) @ [0.2126, 0.7152, 0.0722])


def contrast(one: tuple[int, ...] | np.ndarray, other: tuple[int, ...] | np.ndarray) -> float:
    """Contrast ratio in 1..21 (WCAG 2.2); text needs 4.5 (success criterion 1.4.3)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(color: tuple[int, ...] | np.ndarray) -> tuple[int, int, int]:
    """Black or white, whichever reads better: at least 4.58, the square root of 21, on any color."""
    return max((BLACK, WHITE), key=lambda ink: contrast(ink, color))
