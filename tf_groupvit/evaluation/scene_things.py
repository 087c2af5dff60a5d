"""The name of a thing and points on it in; how far each is from its outline, and its colour there,
out.

A thing fits a circle of radius 1; u goes right, v goes down. Distances are negative inside. Every
thing has colours and a pattern of its own, also beyond its outline, where a close-up goes on with
them.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Points = np.ndarray  # float32 (h, w)
Drawn = tuple[
    np.ndarray, np.ndarray
]  # distance (h, w), colour (3, h, w) in 0..255: planes are quicker to work on


REACH = 1.25  # a stamp goes so far to either side: outlines and half a pixel beyond them lie within


def surface(name: str, u: Points, v: Points) -> np.ndarray:
    """Colour (3, h, w) of the thing everywhere, as if it had no outline."""
    return DRAWERS[name](u, v)[1]


@lru_cache(maxsize=64)
def stamp(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The thing drawn once, upright, for pictures of this size: a table to look points up in.

    Distance to the outline (N * N), negative inside, and colour (3, N * N), row by row over
    -REACH..REACH in both directions; the rim is darker. Colours are bytes: eight things stay in a
    processor's cache.
    """
    N = min(2 * size, 1024)
    across = ((np.arange(N, dtype=np.float32) + 0.5) * (2 * REACH / N) - REACH)[None]
    distance, colour = DRAWERS[name](*np.broadcast_arrays(across, across.T))
    colour = colour * np.clip(0.62 - 3.2 * distance, 0.62, 1)
    return distance.astype(np.float32).ravel(), (colour + 0.5).astype(np.uint8).reshape(3, -1)


def _apple(u: Points, v: Points) -> Drawn:
    body = np.minimum(_disc(u, v, 0.27, 0.14, 0.67), _disc(u, v, -0.27, 0.14, 0.67))
    stem = np.maximum(np.abs(u - 0.15 * v) - 0.07, np.abs(v + 0.62) - 0.33)
    leaf = np.hypot((u - 0.36) / 2.2, v + 0.74) - 0.15
    shine = _soft(_disc(u, v, -0.36, -0.1, 0.2), 0.12)
    colour = _mix(_even(u, (212, 28, 38)), (255, 214, 206), 0.85 * shine)
    colour = _paint(colour, leaf, (88, 176, 52))
    return np.minimum(np.minimum(body, stem), leaf), _paint(colour, stem, (92, 58, 30))


def _orange(u: Points, v: Points) -> Drawn:
    pores = np.sin(13 * u + 3 * v) * np.sin(13 * v - 3 * u)
    colour = _mix(_even(u, (248, 144, 20)), (214, 98, 4), np.clip(1.6 * pores, 0, 1))
    colour = _mix(colour, (255, 206, 120), 0.8 * _soft(_disc(u, v, -0.34, -0.34, 0.18), 0.2))
    return _disc(u, v, 0, 0, 0.92), _paint(colour, _disc(u, v, 0.1, -0.66, 0.13), (60, 110, 40))


def _star(u: Points, v: Points) -> Drawn:
    fifth = np.float32(np.pi / 5)
    turn = (
        np.mod(np.arctan2(u, -v) + fifth, 2 * fifth) - fifth
    )  # 0 at a tip, a fifth at the valley beside it
    along, aside = np.hypot(u, v) * np.cos(turn), np.hypot(u, v) * np.sin(np.abs(turn))
    tip, valley = np.array((1.0, 0.0)), 0.52 * np.array((np.cos(fifth), np.sin(fifth)))
    edge = (valley - tip) / np.hypot(*(valley - tip))
    distance = (along - tip[0]) * -edge[1] * -1 + (aside - tip[1]) * edge[0] * -1
    return distance, _paint(_even(u, (240, 186, 0)), -turn, (255, 232, 60))


def _tree(u: Points, v: Points) -> Drawn:
    layers = [np.maximum(0.8 * np.abs(u) - 0.6 * (v - top), v - low) for top, low in TREE_LAYERS]
    trunk = np.maximum(np.abs(u) - 0.15, np.abs(v - 0.72) - 0.28)
    needles = np.clip(1.5 * np.sin(16 * v + 9 * np.abs(u)), 0, 1)
    colour = _mix(_even(u, (8, 62, 42)), (34, 112, 78), needles)
    crown = np.minimum(np.minimum(layers[0], layers[1]), layers[2])
    return np.minimum(crown, trunk), _paint(colour, np.maximum(trunk, -crown), (104, 64, 34))


TREE_LAYERS = ((-1.0, -0.3), (-0.68, 0.12), (-0.36, 0.56))


def _box(u: Points, v: Points) -> Drawn:
    lid = np.maximum(np.abs(u) - 0.86, np.abs(v + 0.52) - 0.22)
    body = np.maximum(np.abs(u) - 0.74, np.abs(v - 0.1) - 0.72)
    colour = _paint(_even(u, (132, 56, 184)), lid, (164, 92, 214))
    colour = _mix(colour, (92, 30, 138), np.clip(1 - 14 * np.abs(v + 0.28), 0, 1))
    ribbon = np.minimum(np.abs(u), np.abs(v - 0.25)) - 0.09
    return np.minimum(lid, body), _paint(colour, ribbon, (244, 214, 255))


def _cross(u: Points, v: Points) -> Drawn:
    upright = np.maximum(np.abs(u) - 0.32, np.abs(v) - 0.92)
    beam = np.maximum(np.abs(v) - 0.32, np.abs(u) - 0.92)
    distance = np.minimum(upright, beam)
    hatch = np.clip(4 * np.sin(11 * (u + v)) - 2, 0, 1)
    return distance, _mix(_even(u, (26, 26, 30)), (128, 130, 138), hatch)


def _ring(u: Points, v: Points) -> Drawn:
    sectors = np.clip(0.5 + 3 * np.sin(6 * np.arctan2(v, u)), 0, 1)
    distance = np.abs(np.hypot(u, v) - 0.68) - 0.26
    return distance, _mix(_even(u, (236, 40, 140)), (255, 176, 216), sectors)


def _moon(u: Points, v: Points) -> Drawn:
    distance = np.maximum(_disc(u, v, 0, 0, 0.96), -_disc(u, v, 0.52, -0.16, 0.66))
    colour = _even(u, (214, 216, 226))
    for x, y, radius in CRATERS:
        colour = _mix(colour, (140, 144, 160), _soft(_disc(u, v, x, y, radius), 0.08))
    return distance, colour


CRATERS = (
    (-0.55, -0.1, 0.17),
    (-0.32, 0.5, 0.2),
    (0.22, 0.72, 0.12),
    (-0.25, -0.72, 0.11),
    (0.4, 0.1, 0.22),
)

DRAWERS: dict[str, Callable[[Points, Points], Drawn]] = {
    "apple": _apple,
    "orange": _orange,
    "star": _star,
    "tree": _tree,
    "box": _box,
    "cross": _cross,
    "ring": _ring,
    "moon": _moon,
}
THINGS = tuple(DRAWERS)


def _disc(u: Points, v: Points, x: float, y: float, radius: float) -> np.ndarray:
    return np.sqrt((u - x) ** 2 + (v - y) ** 2) - radius  # np.hypot takes ten times as long


def _even(u: Points, colour: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(_plane(colour), (3, *u.shape))


def _plane(colour: tuple[int, int, int]) -> np.ndarray:
    return np.array(colour, np.float32)[:, None, None]


def _soft(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside, 0 from ``width`` outside on."""
    return np.clip(1 - distance / width, 0, 1)


def _mix(colour: np.ndarray, other: tuple[int, int, int], share: np.ndarray) -> np.ndarray:
    return colour + share * (_plane(other) - colour)


def _paint(colour: np.ndarray, distance: np.ndarray, other: tuple[int, int, int]) -> np.ndarray:
    """The other colour wherever the distance is negative."""
    return np.where(distance < 0, _plane(other), colour)
