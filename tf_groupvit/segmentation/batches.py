"""Images read and given to a model in batches, where one that fails does not cost the others."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

MOST_IMAGES = 8
MOST_PIXELS = 2**25  # of a whole batch, which is in memory: a very large photo is a batch alone

Key = TypeVar("Key")
Answer = TypeVar("Answer")


def in_batches(
    keys: Iterable[Key],
    read: Callable[[Key], np.ndarray],
    answer: Callable[[list[np.ndarray]], Iterable[Answer]],
    most_images: int = MOST_IMAGES,
    most_pixels: int = MOST_PIXELS,
) -> Iterator[tuple[Key, Answer | Exception]]:
    """Yield each key, in order, with the answer to its image, or with the error that it met.

    Args:
        keys: one for each image.
        read: from a key to its image, uint8 (H, W, 3).
        answer: from several images to an answer for each. Where it fails, it gets the images of the
            batch again one at a time: only images that fail on their own have an error.
        most_images, most_pixels: the largest batch; an image of more pixels goes alone.
    """
    batch: list[tuple[Key, np.ndarray | Exception]] = []
    pixels = 0
    for key in keys:
        image: np.ndarray | Exception
        try:
            image = read(key)
            size = image.shape[0] * image.shape[1]
        except Exception as error:  # whatever it is, the caller decides what to do about it
            image, size = error, 0
        if batch and pixels + size > most_pixels:
            yield from _answered(batch, answer)
            batch, pixels = [], 0
        batch.append((key, image))
        pixels += size
        if len(batch) == most_images:
            yield from _answered(batch, answer)
            batch, pixels = [], 0
    yield from _answered(batch, answer)


def _answered(
    batch: list[tuple[Key, np.ndarray | Exception]],
    answer: Callable[[list[np.ndarray]], Iterable[Answer]],
) -> Iterator[tuple[Key, Answer | Exception]]:
    images = [image for _, image in batch if not isinstance(image, Exception)]
    try:
        together: Iterator[Answer] | None = iter(answer(images)) if len(images) > 1 else None
    except Exception:
        together = None
    for key, image in batch:
        if isinstance(image, Exception):
            yield key, image
            continue
        found: Answer | Exception
        try:
            found = next(iter(answer([image])) if together is None else together)
        except Exception as error:
            found = error
        yield key, found
