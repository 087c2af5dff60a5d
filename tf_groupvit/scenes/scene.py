"""Scenes: captioned pictures of simple things on simple grounds, with their masks.

Drawn from a seed, for the demo checkpoint, tests, docs and the dataset "scenes".
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.files import atomic_write, check_folder, make_folder
from tf_groupvit.scenes.painting import GROUNDS, REACH, THINGS, ground, stamp, surface
from tf_groupvit.segmentation.image_encoding import png

T = TypeVar("T")

CLASSES: tuple[str, ...] = THINGS + GROUNDS  # thirteen: the order is the label number
NUMBER_OF = {name: number for number, name in enumerate(CLASSES)}

# Kinds of scene and how often they occur. Text alone teaches a group what it means only where a
# thing, or a ground, is alone in the picture: close-ups and empty scenes are there for that.
KINDS = {
    "things on one ground": 0.50,
    "things on two grounds": 0.18,
    "close-up": 0.16,
    "one ground": 0.08,
    "two grounds": 0.08,
}
COUNTS = {1: 0.35, 2: 0.40, 3: 0.25}  # how many things, where there are any
# The largest radius, in widths of the picture, by how many things there are.
LARGEST = {0: 0.0, 1: 0.36, 2: 0.27, 3: 0.23}

STREAMS = ("evaluation", "training")
MAX_SEED = 2**62


@dataclass(frozen=True)
class Scene:
    """A picture with its caption, and its mask, which training from text never sees.

    Attributes:
        image: uint8 (S, S, 3).
        mask: uint8 (S, S), numbers of ``CLASSES``; every pixel has a class.
        caption: a sentence that names what the picture shows.
        labels: the numbers that occur in the mask, in order.
    """

    image: np.ndarray
    mask: np.ndarray
    caption: str
    labels: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that occur in the mask."""
        return tuple(CLASSES[label] for label in self.labels)


def scenes(seed: int, count: int, size: int = 64, stream: str = "evaluation") -> Iterator[Scene]:
    """The first ``count`` scenes of a seed, in order.

    Raises ``InputError`` as ``scene`` does, and for a negative count.
    """
    if count < 0:
        raise InputError(f"The count of scenes must be 0 or more: received {count}.")
    rng = _generator()
    return (_scene(_moved(rng, seed, index, stream), size) for index in range(count))


def scene(seed: int, index: int, size: int = 64, stream: str = "evaluation") -> Scene:
    """Scene number ``index`` of a seed.

    The two streams share no scene, whatever the seeds: the stream is part of the generator's key.

    Raises:
        InputError: a seed outside 0..2**62-1, a negative index, a size outside 16..2048 or another
            stream.
    """
    return _scene(_moved(_generator(), seed, index, stream), size)


def _generator() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(0))


def _moved(rng: np.random.Generator, seed: int, index: int, stream: str) -> np.random.Generator:
    """The generator, moved to where this scene's numbers begin: faster than making a new one."""
    if stream not in STREAMS:
        raise InputError(
            f"There is no stream '{stream}' of scenes: choose from {', '.join(STREAMS)}."
        )
    if not 0 <= seed < MAX_SEED or index < 0:
        raise InputError(
            f"Seeds must be in 0..2**62-1 and indices 0 or more: received {seed} and {index}."
        )
    key = np.array([2 * seed + STREAMS.index(stream), index], np.uint64)
    start = dict(counter=np.zeros(4, np.uint64), key=key)
    empty = dict(buffer=np.zeros(4, np.uint64), buffer_pos=4, has_uint32=0, uinteger=0)
    rng.bit_generator.state = dict(bit_generator="Philox", state=start, **empty)
    return rng


def _scene(rng: np.random.Generator, size: int) -> Scene:
    if not 16 <= size <= 2048:
        raise InputError(f"The size of scenes must be in 16..2048 pixels: received {size}.")
    kind = _drawn_from(KINDS, rng)
    grounds = _grounds(2 if "two grounds" in kind else 1, rng)
    above = grounds[0] == "sky" or rng.random() < 0.7
    things = _things(kind, rng)
    if kind == "close-up":
        grounds = ()
        image, mask = _close(things[0], size, rng)
    else:
        image, mask = _laid(grounds, above, size, rng)
        things = _draw_all(image, mask, things, rng)
    text = caption(kind, [things[k] for k in rng.permutation(len(things))], grounds, above, rng)
    labels = tuple(np.flatnonzero(np.bincount(mask.ravel(), minlength=len(CLASSES))).tolist())
    pixels = (np.minimum(np.maximum(image, 0, out=image), 255, out=image) + 0.5).astype(np.uint8)
    return Scene(np.ascontiguousarray(pixels.transpose(1, 2, 0)), mask, text, labels)


def _drawn_from(shares: Mapping[T, float], rng: np.random.Generator) -> T:
    """One of the keys, by their shares, which sum to 1."""
    left = rng.random()
    for key, share in shares.items():
        left -= share
        if left < 0:
            return key
    return key


def _grounds(count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Different grounds; the sky, if it is one of two, comes first: it lies above."""
    picked = [GROUNDS[k] for k in rng.permutation(len(GROUNDS))[:count]]
    return tuple(sorted(picked, key=lambda name: name != "sky"))


def _laid(
    grounds: tuple[str, ...], above: bool, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, S, S) float32 and mask (S, S) of one ground, or of two with a wavy border.

    The second ground lies below the first, or to its right unless ``above``.
    """
    image = ground(grounds[0], size, rng)
    mask = np.full((size, size), NUMBER_OF[grounds[0]], np.uint8)
    if len(grounds) == 2:
        waves = np.sin(np.arange(size) * (rng.uniform(2, 9) / size) + rng.uniform(0, 6))
        border = size * (rng.uniform(0.35, 0.65) + rng.uniform(0, 0.04) * waves)
        second = np.arange(size)[:, None] >= border[None]  # (S, S): rows below the border
        second = second if above else second.T
        image = np.where(second, ground(grounds[1], size, rng), image)
        mask[second] = NUMBER_OF[grounds[1]]
    return image, mask


def _things(kind: str, rng: np.random.Generator) -> list[str]:
    count = {"close-up": 1, "one ground": 0, "two grounds": 0}.get(kind)
    if count is None:
        count = _drawn_from(COUNTS, rng)
    return [THINGS[k] for k in rng.permutation(len(THINGS))[:count]]


def _draw_all(
    image: np.ndarray, mask: np.ndarray, names: list[str], rng: np.random.Generator
) -> list[str]:
    """Draw things that do not overlap into image (3, S, S) and mask (S, S).

    Returns the names of those that found a place; the first always does.
    """
    size = len(mask)
    placed: list[tuple[float, float, float]] = []
    drawn = []
    for name in names:
        radius = size * rng.uniform(0.16, LARGEST[len(names)])
        for x, y in rng.uniform(0.9 * radius, size - 0.9 * radius, (12, 2)).tolist():
            if all(math.hypot(x - a, y - b) > 0.95 * (radius + c) for a, b, c in placed):
                placed.append((x, y, radius))
                _draw(image, mask, name, placed[-1], rng)
                drawn.append(name)
                break
    return drawn


def _draw(
    image: np.ndarray,
    mask: np.ndarray,
    name: str,
    place: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Draw one thing at (x, y, radius) into image (3, S, S) and mask (S, S).

    Its edge is blended over one pixel; the mask has the pixels of which it covers half.
    """
    x, y, radius = place
    top, left = max(int(y - radius - 1), 0), max(int(x - radius - 1), 0)
    rows, columns = slice(top, int(y + radius) + 2), slice(left, int(x + radius) + 2)
    u, v = _points(mask[rows, columns].shape, x - left, y - top, radius, rng)
    distance, color = stamp(name, len(mask))
    N = math.isqrt(len(distance))
    row, column = (
        np.minimum(np.maximum((w + REACH) * (N / (2 * REACH)), 0), N - 1).astype(np.int32)
        for w in (v, u)
    )
    cells = row * N + column
    cover = np.minimum(np.maximum(0.5 - radius * distance.take(cells), 0), 1)
    image[:, rows, columns] += cover * (
        color.take(cells, axis=1) * _tint(rng) - image[:, rows, columns]
    )
    mask[rows, columns][cover >= 0.5] = NUMBER_OF[name]


def _close(name: str, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, S, S) float32 and mask (S, S) of one thing that fills the picture."""
    x, y = rng.uniform(0.25 * size, 0.75 * size, 2).tolist()
    u, v = _points((size, size), x, y, size * rng.uniform(0.4, 0.9), rng)
    image = surface(name, u, v).astype(np.float32) * _tint(rng)
    return image, np.full((size, size), NUMBER_OF[name], np.uint8)


def _points(
    shape: tuple[int, ...], x: float, y: float, radius: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a window (h, w) lie on a thing around (x, y) that is turned a little.

    Returns u, v (h, w) float32.
    """
    unit = np.float32(radius)
    across = (np.arange(shape[1], dtype=np.float32) + np.float32(0.5 - x))[None] / unit
    down = (np.arange(shape[0], dtype=np.float32) + np.float32(0.5 - y))[:, None] / unit
    angle = min(max(0.22 * rng.standard_normal(), -0.5), 0.5)
    sine, cosine = np.float32(math.sin(angle)), np.float32(math.cos(angle))
    return cosine * across + sine * down, cosine * down - sine * across


def _tint(rng: np.random.Generator) -> np.ndarray:
    """Factors (3, 1, 1): a little darker or brighter, hardly another hue."""
    tint = 1 + 0.06 * rng.standard_normal() + 0.025 * rng.standard_normal(3)
    return np.minimum(np.maximum(tint, 0.85), 1.12).astype(np.float32)[:, None, None]


# How a thing stands on each ground.
ON = {
    "grass": "on the grass",
    "sky": "in the sky",
    "sand": "on the sand",
    "water": "in the water",
    "brick": "on the brick",
}

# {t} the things with their articles, {on} the ground with its preposition, {g} and {h} the grounds.
FORMS = {
    "things on one ground": (
        "a photo of {t} {on}.",
        "a picture of {t} {on}.",
        "there is {t} {on}.",
        "{t} {on}.",
        "a photo of the {g} with {t}.",
        "{g} with {t}.",
    ),
    "things on two grounds": (
        "a photo of {t} with {g} {beside} {h}.",
        "{t}, {g} {beside} {h}.",
        "a picture of {g} {beside} {h} with {t}.",
        "there is {t} between the {g} and the {h}.",
    ),
    "close-up": (
        "a close-up of {t}.",
        "a photo of {t} up close.",
        "a picture of {t}.",
        "nothing but {t}.",
    ),
    "one ground": (
        "a photo of {g}.",
        "a picture of the {g}.",
        "nothing but {g}.",
        "just the {g}.",
    ),
    "two grounds": (
        "a photo of {g} {beside} {h}.",
        "{g} {beside} {h}.",
        "a picture of the {g} and the {h}.",
    ),
}


def caption(
    kind: str, things: Sequence[str], grounds: Sequence[str], above: bool, rng: np.random.Generator
) -> str:
    """One of the forms of this kind of scene. ``above``: the first of two grounds lies above the
    second.
    """
    form = FORMS[kind][rng.integers(len(FORMS[kind]))]
    first = grounds[0] if grounds else ""
    return form.format(
        t=_listed([f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in things]),
        on=ON.get(first, ""),
        g=first,
        h=grounds[-1] if grounds else "",
        beside="above" if above else "beside",
    )


def _listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


# Files


def write_scenes(
    folder: Path, seed: int, count: int, size: int = 64, progress: bool = False
) -> None:
    """Write the first ``count`` scenes of a seed below ``folder``, which is made if it is missing.

    ``images/NNNNN.png``; ``masks/NNNNN.png`` with class numbers, one byte a pixel;
    ``captions.txt``, a line for each picture in the order of their names; ``classes.txt``, one
    class a line in the order of the numbers. ``progress`` shows a bar on standard error.

    Raises:
        InputError: a count below 1, and as ``scene`` does; or a file cannot be written.
        DatasetError: the folder holds scenes already; captions of two runs would be mixed.
    """
    check_scenes(seed, count, size)
    check_folder(folder)
    if (folder / "captions.txt").exists():
        raise DatasetError(f"{folder}: holds scenes already: name another folder, or empty it.")
    images, masks = (make_folder(folder / part) for part in ("images", "masks"))
    captions, digits = [], max(5, len(str(count - 1)))  # names sort as the numbers do
    drawn = tqdm(scenes(seed, count, size), "scenes", count, leave=False, disable=not progress)
    for index, one in enumerate(drawn):
        captions.append(one.caption)
        atomic_write(images / f"{index:0{digits}d}.png", png(Image.fromarray(one.image)))
        atomic_write(masks / f"{index:0{digits}d}.png", png(Image.fromarray(one.mask)))
    for name, lines in (("classes", CLASSES), ("captions", captions)):
        atomic_write(folder / f"{name}.txt", "".join(f"{line}\n" for line in lines).encode())


def check_scenes(seed: int, count: int, size: int) -> None:
    """Raise ``InputError`` for a count below 1, and for a seed or size that cannot be drawn."""
    if count < 1:
        raise InputError(f"The count of scenes must be 1 or more: received {count}.")
    scene(seed, count - 1, size)
