"""How the grounds and the things of scenes are painted.

A ground is a texture: a patch (3, S, S) is cut at random from a large one, which is made once.
A thing fits a circle of radius 1, u to the right and v downwards: its drawer gives the distance of
points (h, w) to its outline, negative inside, and their color, which has a pattern that goes on
beyond the outline, where a close-up needs it.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Color = tuple[int, int, int]

# Grounds

UNIT = 64  # the picture size at which blades, bricks and waves are a few pixels wide
TEXTURE = 4  # width and height of a texture in pictures; of bytes, to stay in a processor's cache


def ground(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A patch of a ground, float32 (3, S, S) in 0..255.

    It is cut anywhere from the texture, mirrored or not, a little darker or brighter.
    """
    texture = _texture(name, size)
    y, x = rng.integers(0, texture.shape[-1] - size, 2)
    patch = texture[:, y : y + size, x : x + size]
    if rng.random() < 0.5:
        patch = patch[..., ::-1]
    light, tints = rng.standard_normal(), rng.standard_normal(3)
    tint = np.maximum(np.minimum(1 + 0.07 * light + 0.02 * tints, 1.15), 0.85)
    patch = patch * tint.astype(np.float32)[:, None, None]
    if name == "sky":  # paler towards the horizon
        patch += np.linspace(-18, 22, size, dtype=np.float32)[:, None]
    return patch


@lru_cache(maxsize=32)
def _texture(name: str, size: int) -> np.ndarray:
    """uint8 (3, N, N), N four times ``size``."""
    rng = np.random.default_rng(GROUNDS.index(name))
    texture = (TEXTURES[name](size * TEXTURE, size / UNIT, rng) + 0.5).astype(np.uint8)
    texture.flags.writeable = False
    return texture


# Each takes the side N of the texture, the scale of its pattern and a random generator, and
# returns (3, N, N).


def _grass(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    blades = _noise(N, 2.6 * scale, 0.45 * scale, rng)
    patches = _noise(N, 12 * scale, 12 * scale, rng)
    return _mix(_plane((70, 142, 38)), (150, 208, 84), _sigmoid(1.3 * blades + 0.4 * patches))


def _sky(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    clouds = _noise(N, 5 * scale, 11 * scale, rng) + 0.35 * _noise(N, 2 * scale, 4 * scale, rng)
    return _mix(_plane((112, 180, 240)), (238, 245, 252), _sigmoid(3.5 * (clouds - 0.9)))


def _sand(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    rows = np.arange(N)[:, None] / (7 * scale) + 0.7 * _noise(N, 9 * scale, 16 * scale, rng)
    grains = _noise(N, 0.35 * scale, 0.35 * scale, rng)
    share = _sigmoid(0.9 * np.sin(2 * np.pi * rows) + 0.9 * grains)
    return _mix(_plane((204, 172, 120)), (240, 218, 172), share)


def _water(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    waves = _noise(N, 0.9 * scale, 4.5 * scale, rng)
    depth = _sigmoid(_noise(N, 10 * scale, 14 * scale, rng))
    deep = _mix(_plane((16, 62, 138)), (34, 104, 176), depth)
    return _mix(deep, (150, 214, 226), _sigmoid(5 * (waves - 1.1)))


def _brick(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    high, wide, mortar = 7 * scale, 15 * scale, 1.1 * scale
    row = np.arange(N) // high
    across = np.arange(N)[None] + (row[:, None] % 2) * wide / 2
    down = np.broadcast_to((np.arange(N) % high)[:, None], (N, N))
    tones = rng.normal(0, 1, (int(row[-1]) + 1, int(across.max() // wide) + 1))
    tone = tones[row.astype(int)[:, None], (across // wide).astype(int)]
    share = _sigmoid(tone + 0.5 * _noise(N, 0.5 * scale, 0.5 * scale, rng))
    bricks = _mix(_plane((128, 48, 36)), (192, 96, 70), share)
    joint = (down < mortar) | (across % wide < mortar)
    return np.where(joint, _plane((206, 196, 184)), bricks)


TEXTURES: dict[str, Callable[[int, float, np.random.Generator], np.ndarray]] = {
    "grass": _grass,
    "sky": _sky,
    "sand": _sand,
    "water": _water,
    "brick": _brick,
}
GROUNDS = tuple(TEXTURES)


def _noise(N: int, down: float, across: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (N, N) with mean 0 and deviation 1, whose opposite edges meet.

    Its spots are ``down`` pixels high and ``across`` pixels wide.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((N, N)))
    y, x = np.fft.fftfreq(N)[:, None], np.fft.rfftfreq(N)[None]
    blur = np.exp(-2 * np.pi**2 * ((down * y) ** 2 + (across * x) ** 2))
    smooth = np.fft.irfft2(spectrum * blur, (N, N))
    return (smooth - smooth.mean()) / smooth.std()


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# Things

Points = np.ndarray  # float32 (h, w)
Drawn = tuple[np.ndarray, np.ndarray]  # distance (h, w), color (3, h, w) in 0..255

REACH = 1.25  # half the side of a stamp: outlines and half a pixel beyond them lie within


def surface(name: str, u: Points, v: Points) -> np.ndarray:
    """Color (3, h, w) of a thing at points (h, w), as if it had no outline."""
    return DRAWERS[name](u, v)[1]


@lru_cache(maxsize=64)
def stamp(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A thing, drawn once and upright for pictures of this size: a table to look points up in.

    Distance to the outline (N * N), negative inside, and color (3, N * N), row by row over
    -REACH..REACH in both directions; the rim is darker. Colors are bytes: eight things stay in a
    processor's cache.
    """
    N = min(2 * size, 1024)
    across = ((np.arange(N, dtype=np.float32) + 0.5) * (2 * REACH / N) - REACH)[None]
    distance, color = DRAWERS[name](*np.broadcast_arrays(across, across.T))
    color = color * np.clip(0.62 - 3.2 * distance, 0.62, 1)
    return distance.astype(np.float32).ravel(), (color + 0.5).astype(np.uint8).reshape(3, -1)


def _apple(u: Points, v: Points) -> Drawn:
    body = np.minimum(_disc(u, v, 0.27, 0.14, 0.67), _disc(u, v, -0.27, 0.14, 0.67))
    stem = np.maximum(np.abs(u - 0.15 * v) - 0.07, np.abs(v + 0.62) - 0.33)
    leaf = np.hypot((u - 0.36) / 2.2, v + 0.74) - 0.15
    shine = _soft(_disc(u, v, -0.36, -0.1, 0.2), 0.12)
    color = _mix(_even(u, (212, 28, 38)), (255, 214, 206), 0.85 * shine)
    color = _paint(color, leaf, (88, 176, 52))
    return np.minimum(np.minimum(body, stem), leaf), _paint(color, stem, (92, 58, 30))


def _orange(u: Points, v: Points) -> Drawn:
    pores = np.sin(13 * u + 3 * v) * np.sin(13 * v - 3 * u)
    color = _mix(_even(u, (248, 144, 20)), (214, 98, 4), np.clip(1.6 * pores, 0, 1))
    color = _mix(color, (255, 206, 120), 0.8 * _soft(_disc(u, v, -0.34, -0.34, 0.18), 0.2))
    return _disc(u, v, 0, 0, 0.92), _paint(color, _disc(u, v, 0.1, -0.66, 0.13), (60, 110, 40))


def _star(u: Points, v: Points) -> Drawn:
    fifth = np.float32(np.pi / 5)
    # 0 at a tip, a fifth of the half circle at the valley next to it
    turn = np.mod(np.arctan2(u, -v) + fifth, 2 * fifth) - fifth
    along, aside = np.hypot(u, v) * np.cos(turn), np.hypot(u, v) * np.sin(np.abs(turn))
    tip, valley = np.array((1.0, 0.0)), 0.52 * np.array((np.cos(fifth), np.sin(fifth)))
    edge = (valley - tip) / np.hypot(*(valley - tip))
    distance = (along - tip[0]) * -edge[1] * -1 + (aside - tip[1]) * edge[0] * -1
    return distance, _paint(_even(u, (240, 186, 0)), -turn, (255, 232, 60))


def _tree(u: Points, v: Points) -> Drawn:
    layers = [np.maximum(0.8 * np.abs(u) - 0.6 * (v - top), v - low) for top, low in TREE_LAYERS]
    trunk = np.maximum(np.abs(u) - 0.15, np.abs(v - 0.72) - 0.28)
    needles = np.clip(1.5 * np.sin(16 * v + 9 * np.abs(u)), 0, 1)
    color = _mix(_even(u, (8, 62, 42)), (34, 112, 78), needles)
    crown = np.minimum(np.minimum(layers[0], layers[1]), layers[2])
    return np.minimum(crown, trunk), _paint(color, np.maximum(trunk, -crown), (104, 64, 34))


TREE_LAYERS = ((-1.0, -0.3), (-0.68, 0.12), (-0.36, 0.56))


def _box(u: Points, v: Points) -> Drawn:
    lid = np.maximum(np.abs(u) - 0.86, np.abs(v + 0.52) - 0.22)
    body = np.maximum(np.abs(u) - 0.74, np.abs(v - 0.1) - 0.72)
    color = _paint(_even(u, (132, 56, 184)), lid, (164, 92, 214))
    color = _mix(color, (92, 30, 138), np.clip(1 - 14 * np.abs(v + 0.28), 0, 1))
    ribbon = np.minimum(np.abs(u), np.abs(v - 0.25)) - 0.09
    return np.minimum(lid, body), _paint(color, ribbon, (244, 214, 255))


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
    color = _even(u, (214, 216, 226))
    for x, y, radius in CRATERS:
        color = _mix(color, (140, 144, 160), _soft(_disc(u, v, x, y, radius), 0.08))
    return distance, color


CRATERS = ((-0.55, -0.1, 0.17), (-0.32, 0.5, 0.2), (0.22, 0.72, 0.12), (-0.25, -0.72, 0.11),
           (0.4, 0.1, 0.22))  # fmt: skip

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


def _even(u: Points, color: Color) -> np.ndarray:
    return np.broadcast_to(_plane(color), (3, *u.shape))


def _plane(color: Color) -> np.ndarray:
    return np.array(color, np.float32)[:, None, None]


def _soft(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside, 0 from ``width`` outside on."""
    return np.clip(1 - distance / width, 0, 1)


def _mix(color: np.ndarray, other: Color, share: np.ndarray) -> np.ndarray:
    """From one color to another by a share in 0..1; (3, h, w) or what broadcasts to it."""
    return color + share * (_plane(other) - color)


def _paint(color: np.ndarray, distance: np.ndarray, other: Color) -> np.ndarray:
    """The other color wherever the distance is negative."""
    return np.where(distance < 0, _plane(other), color)
