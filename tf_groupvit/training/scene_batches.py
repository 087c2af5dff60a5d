"""A seed and a step in, a batch of captioned scenes out, always the same one; their masks go no further than here."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from tf_groupvit.evaluation.scenes import scene
from tf_groupvit.preprocessing.tokenizer import Tokenizer

DRAWN_AT = 64  # pixels: the size at which scenes are evaluated
AHEAD = 4  # batches that are drawn while a step runs
Statistics = tuple[Sequence[float], Sequence[float]]

# A word's prompt is one of these, another at every step: what is learned should not hang on the words around it.
TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}.",
    "a picture of the {}.",
    "a photo of {}.",
    "{}.",
    "nothing but {}.",
)


class SceneBatches:
    """Endless batches of scenes of the training stream, each a pure function of the seed and its number.

    Args:
        words: the vocabulary whose words are looked for in captions.
        size: side of the pixel values, S: scenes are drawn at 64 and resized as a segmenter resizes.
        statistics: mean and standard deviation of the pixels, as the processor has them.
        text_length: T, in tokens.
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
    ) -> None:
        self.tokenizer, self.words, self.batch_size, self.seed = tokenizer, tuple(words), batch_size, seed
        self.to_pixels = PixelValues(size, statistics)
        self.padding = dict(max_length=text_length, padding="max_length")
        self.text_length = text_length
        self.prompts = [self._encode([form.format(word) for word in words]) for form in TEMPLATES]

    def _encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        tokens = self.tokenizer(texts, max_length=self.text_length, padding="max_length")
        return tokens["input_ids"], tokens["attention_mask"]

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """Batch ``number``, counted from 0: uint8 ``images`` (B, 64, 64, 3) and all else that a step reads."""
        first = number * self.batch_size
        drawn = [scene(self.seed, first + i, DRAWN_AT, "training") for i in range(self.batch_size)]
        captions = [one.caption for one in drawn]  # the masks stay behind
        ids, mask = self._encode(captions)
        form = np.random.default_rng((self.seed, number)).integers(len(TEMPLATES))
        return {
            "images": np.stack([one.image for one in drawn]),
            "input_ids": ids,
            "attention_mask": mask,
            "word_ids": self.prompts[form][0],
            "word_mask": self.prompts[form][1],
            "present": words_in(captions, self.words),
        }

    def batches(self, start: int = 0) -> tf.data.Dataset:
        """Batches from number ``start`` on, as the training step takes them."""

        def draw() -> Iterator[dict[str, np.ndarray]]:
            number = start
            while True:
                yield self.batch(number)
                number += 1

        B, V, T = self.batch_size, len(self.words), self.text_length
        shapes = {"input_ids": (B, T), "attention_mask": (B, T), "word_ids": (V, T), "word_mask": (V, T)}
        signature = {name: tf.TensorSpec(shape, tf.int32) for name, shape in shapes.items()}
        signature["images"] = tf.TensorSpec((B, DRAWN_AT, DRAWN_AT, 3), tf.uint8)
        signature["present"] = tf.TensorSpec((B, V), tf.float32)
        return tf.data.Dataset.from_generator(draw, output_signature=signature).map(self._with_pixels).prefetch(AHEAD)

    def _with_pixels(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rest = {name: value for name, value in batch.items() if name != "images"}
        return {"pixel_values": self.to_pixels(batch["images"]), **rest}


class PixelValues:
    """uint8 (B, H, W, 3) -> normalised floats (B, 3, S, S), in graph ops; resized as mode "whole" resizes."""

    def __init__(self, size: int, statistics: Statistics) -> None:
        self.size = size
        self.mean, self.std = (np.asarray(values, np.float32) for values in statistics)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(images, tf.float32)
        if images.shape[1:3] != (self.size, self.size):
            pixels = tf.image.resize(pixels, (self.size, self.size), method="bicubic", antialias=True)
            pixels = tf.clip_by_value(tf.round(pixels), 0, 255)  # as the bytes of a resized picture
        return tf.transpose((pixels / 255 - self.mean) / self.std, (0, 3, 1, 2))


def words_in(captions: Sequence[str], words: Sequence[str]) -> np.ndarray:
    """Which words each caption has, as whole words and in any case: float32 (B, V)."""
    patterns = [re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE) for word in words]
    return np.array([[bool(pattern.search(text)) for pattern in patterns] for text in captions], np.float32)
