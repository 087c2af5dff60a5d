"""Batches of drawn scenes with captions, each a pure function of the seed and its number."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from tf_groupvit.preprocessing.image_graph import to_pixel_values
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.scenes.scene import scene
from tf_groupvit.training.caption_batches import WHOLE, Share
from tf_groupvit.training.texts import Texts, Words
from tf_groupvit.types import Tensor

DRAWN_AT = 64  # pixels: the size at which scenes are evaluated
AHEAD = 4  # batches that are drawn while a step runs
Statistics = tuple[Sequence[float], Sequence[float]]


class SceneBatches:
    """Endless batches of scenes of the training stream; their masks are not used.

    Args:
        words: the vocabulary whose words are looked for in captions.
        size: side of the pixel values, S: scenes are drawn at 64 and resized as a segmenter
            resizes.
        statistics: mean and standard deviation of the pixels, as the processor has them.
        text_length: T, in tokens; longer captions are cut.
        share: which scenes of each batch are this worker's, where there are several.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        words: Sequence[str],
        size: int,
        batch_size: int,
        statistics: Statistics,
        seed: int = 0,
        text_length: int = 24,
        share: Share = WHOLE,
    ) -> None:
        self.batch_size, self.seed, self.share = batch_size, seed, share
        cut = tokenizer.limited_to(text_length)
        self.texts = Texts(cut, None, Words(words, cut, cut.max_length, seed), seed)
        self.to_pixels = PixelValues(size, statistics)

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """Batch ``number``, counted from 0: images (B, 64, 64, 3) and the rest of ``signature``."""
        first, every = number * self.batch_size, self.share.workers
        places = [(0, first + i) for i in range(self.share.worker, self.batch_size, every)]
        drawn = [scene(self.seed, index, DRAWN_AT, "training") for _, index in places]
        texts = self.texts(number, places, [one.caption for one in drawn])
        return {"images": np.stack([one.image for one in drawn]), **texts}

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Name -> shape and type: uint8 ``images`` (B, 64, 64, 3), and what the losses read.

        B are this worker's of a batch.
        """
        B = self.batch_size // self.share.workers
        images = tf.TensorSpec((B, DRAWN_AT, DRAWN_AT, 3), tf.uint8)
        return {"images": images, **self.texts.signature(B)}

    def batches(self, start: int = 0) -> tf.data.Dataset:
        """Batches from number ``start`` on, with ``pixel_values`` (B, 3, S, S) for ``images``."""

        def draw() -> Iterator[dict[str, np.ndarray]]:
            number = start
            while True:
                yield self.batch(number)
                number += 1

        def with_pixels(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            images = batch.pop("images")
            return {"pixel_values": self.to_pixels(images), **batch}

        drawn = tf.data.Dataset.from_generator(draw, output_signature=self.signature)
        return drawn.map(with_pixels).prefetch(AHEAD)


class PixelValues:
    """uint8 (B, H, W, 3) -> normalized floats (B, 3, S, S), in graph ops; resized as mode "whole".

    Unlike there, they are rounded once, after both passes.

    Args:
        size: S, in pixels.
        statistics: mean and standard deviation of red, green and blue.
    """

    def __init__(self, size: int, statistics: Statistics) -> None:
        self.size = size
        self.mean, self.std = (tuple(map(float, values)) for values in statistics)

    def __call__(self, images: Tensor) -> Tensor:
        pixels = images
        if images.shape[1:3] != (self.size, self.size):
            sides = (self.size, self.size)
            pixels = tf.cast(images, tf.float32)
            pixels = tf.image.resize(pixels, sides, method="bicubic", antialias=True)
            pixels = tf.clip_by_value(tf.round(pixels), 0, 255)  # as the bytes of a resized picture
        return to_pixel_values(pixels, self.mean, self.std)
