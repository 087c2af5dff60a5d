"""The name of a ground and a size in, a patch of it (3, S, S) out: cut at random from a cloth that
is woven once.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

UNIT = (
    64  # the size at which blades, bricks and waves are a few pixels wide; other sizes scale them
)
CLOTH = (
    4  # a cloth is so many pictures wide and high; a byte a value, to stay in a processor's cache
)


def ground(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A patch of ground, float32 (3, S, S) in 0..255: cut anywhere, mirrored or not, a little
    darker or brighter.
    """
    cloth = _cloth(name, size)
    y, x = rng.integers(0, cloth.shape[-1] - size, 2)
    patch = cloth[:, y : y + size, x : x + size]
    if rng.random() < 0.5:
        patch = patch[..., ::-1]
    light, tints = rng.standard_normal(), rng.standard_normal(3)
    tint = np.maximum(np.minimum(1 + 0.07 * light + 0.02 * tints, 1.15), 0.85)
    patch = patch * tint.astype(np.float32)[:, None, None]
    if name == "sky":  # paler towards the horizon
        patch += np.linspace(-18, 22, size, dtype=np.float32)[:, None]
    return patch


@lru_cache(maxsize=32)
def _cloth(name: str, size: int) -> np.ndarray:
    rng = np.random.default_rng(GROUNDS.index(name))
    cloth = (WEAVERS[name](size * CLOTH, size / UNIT, rng) + 0.5).astype(np.uint8)
    cloth.flags.writeable = False
    return cloth


# Each takes the side N of the cloth, the scale of its pattern and a source of chance, and returns
# (3, N, N).


def _grass(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    blades = _noise(N, 2.6 * scale, 0.45 * scale, rng)
    patches = _noise(N, 12 * scale, 12 * scale, rng)
    return _blend((70, 142, 38), (150, 208, 84), _sigmoid(1.3 * blades + 0.4 * patches))


def _sky(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    clouds = _noise(N, 5 * scale, 11 * scale, rng) + 0.35 * _noise(N, 2 * scale, 4 * scale, rng)
    return _blend((112, 180, 240), (238, 245, 252), _sigmoid(3.5 * (clouds - 0.9)))


def _sand(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    rows = np.arange(N)[:, None] / (7 * scale) + 0.7 * _noise(N, 9 * scale, 16 * scale, rng)
    grains = _noise(N, 0.35 * scale, 0.35 * scale, rng)
    return _blend(
        (204, 172, 120), (240, 218, 172), _sigmoid(0.9 * np.sin(2 * np.pi * rows) + 0.9 * grains)
    )


def _water(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    waves = _noise(N, 0.9 * scale, 4.5 * scale, rng)
    deep = _blend((16, 62, 138), (34, 104, 176), _sigmoid(_noise(N, 10 * scale, 14 * scale, rng)))
    foam = _sigmoid(5 * (waves - 1.1))
    return deep + foam * (_plane((150, 214, 226)) - deep)


def _brick(N: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    high, wide, mortar = 7 * scale, 15 * scale, 1.1 * scale
    row = np.arange(N) // high
    across = np.arange(N)[None] + (row[:, None] % 2) * wide / 2
    down = np.broadcast_to((np.arange(N) % high)[:, None], (N, N))
    tones = rng.normal(0, 1, (int(row[-1]) + 1, int(across.max() // wide) + 1))
    tone = tones[row.astype(int)[:, None], (across // wide).astype(int)]
    bricks = _blend(
        (128, 48, 36),
        (192, 96, 70),
        _sigmoid(tone + 0.5 * _noise(N, 0.5 * scale, 0.5 * scale, rng)),
    )
    joint = (down < mortar) | (across % wide < mortar)
    return np.where(joint, _plane((206, 196, 184)), bricks)


WEAVERS: dict[str, Callable[[int, float, np.random.Generator], np.ndarray]] = {
    "grass": _grass,
    "sky": _sky,
    "sand": _sand,
    "water": _water,
    "brick": _brick,
}
GROUNDS = tuple(WEAVERS)


def _noise(N: int, down: float, across: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (N, N), mean 0 and spread 1, whose spots are so many pixels high and wide; its
    edges meet.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((N, N)))
    y, x = np.fft.fftfreq(N)[:, None], np.fft.rfftfreq(N)[None]
    smooth = np.fft.irfft2(
        spectrum * np.exp(-2 * np.pi**2 * ((down * y) ** 2 + (across * x) ** 2)), (N, N)
    )
    return (smooth - smooth.mean()) / smooth.std()


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _blend(
    dark: tuple[int, int, int], light: tuple[int, int, int], share: np.ndarray
) -> np.ndarray:
    """From one colour to the other, (3, N, N), by share (N, N) in 0..1."""
    return _plane(dark) + share * (_plane(light) - _plane(dark))


def _plane(colour: tuple[int, int, int]) -> np.ndarray:
    return np.array(colour, np.float64)[:, None, None]
