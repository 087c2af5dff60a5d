"""What is seen of a model in training: mIoU on held-out scenes, what its groups do, and pictures.

Masks are used here, and only here. Everything is seen as a segmenter sees it.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from keras import ops
from PIL import Image

from tf_groupvit.evaluation.scores import ConfusionMatrix
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.operations import normalize
from tf_groupvit.preprocessing.image_arrays import resize_bicubic
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.scenes.scene import CLASSES, scenes
from tf_groupvit.segmentation.overlay import blend, names_over_image, paint
from tf_groupvit.segmentation.palette import group_colors
from tf_groupvit.segmentation.pipeline import Found, Pipeline
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.settings import make_settings
from tf_groupvit.segmentation.templates import SIMPLE
from tf_groupvit.segmentation.upsampling import LowResScores
from tf_groupvit.training.caption_batches import TrainingData
from tf_groupvit.training.contrastive_model import Batch, TrainingModel
from tf_groupvit.training.scene_batches import DRAWN_AT, PixelValues

SEED = 2**40  # of the held-out scenes; the streams of training and evaluation share none anyway
AT_ONCE = 50
SHOWN_AT = 256  # pixels of a picture's longer side; a small one is enlarged, for legible names


class _Segmenting:
    """A model in training that segments whole pictures by the published protocol, as it is now."""

    def __init__(
        self,
        model: TFGroupViTModel,
        tokenizer: Tokenizer,
        to_pixels: PixelValues,
        words: Sequence[str],
    ) -> None:
        settings = make_settings(model.config.vision_config, to_pixels, size=to_pixels.size)
        self.pipeline = Pipeline(model, settings)
        self.tokens = tokenizer([SIMPLE.format(word) for word in words])

    def find(self, images: Sequence[np.ndarray]) -> list[Found]:
        """What is in each picture uint8 (H, W, 3), with all words as classes."""
        features = self.pipeline.model.get_text_features(**self.tokens, training=False)
        return self.pipeline.find(images, ops.convert_to_numpy(normalize(features)))


class SceneScores:
    """``measure()`` -> ``{"val_miou", "groups_used"}`` by the published protocol on scenes.

    Args:
        to_pixels: size and statistics of the pixels that the model is trained on.
        count: number of scenes.
        classes: the vocabulary.
    """

    def __init__(
        self,
        model: TFGroupViTModel,
        tokenizer: Tokenizer,
        to_pixels: PixelValues,
        count: int = 100,
        classes: Sequence[str] = CLASSES,
    ) -> None:
        self.count, self.classes = count, classes
        self._segmenting = _Segmenting(model, tokenizer, to_pixels, classes)

    def measure(self) -> dict[str, float]:
        """Measure the model as it is now."""
        tally, used = ConfusionMatrix(self.classes), []
        drawn = list(scenes(SEED, self.count, DRAWN_AT))
        for start in range(0, self.count, AT_ONCE):
            part = drawn[start : start + AT_ONCE]
            for one, (scores, groups) in zip(
                part, self._segmenting.find([one.image for one in part]), strict=True
            ):
                tally.update(one.mask, scores.labels(*one.mask.shape))
                used.append(len(np.unique((groups or {})["maps"][-1].argmax(axis=-1))))
        return {"val_miou": tally.miou or 0.0, "groups_used": float(np.mean(used))}


class CaptionScores:
    """``measure()`` -> ``{"val_loss"}``: the weighted loss of held-out pairs, without noise.

    Batches should have the size of the training's, or all pairs, where those are fewer: with
    another size the contrastive loss is another number.

    Args:
        data: the held-out pairs, in the order of their files.
        count: how many of them are read.
    """

    def __init__(self, training: TrainingModel, data: TrainingData, count: int) -> None:
        self.training = training
        self.batches = data.batches().take(count // data.batch_size)
        self._loss = tf.function(self._weighted_loss, autograph=False)

    def measure(self) -> dict[str, float]:
        """Measure the model as it is now."""
        return {"val_loss": float(np.mean([self._loss(batch).numpy() for batch in self.batches]))}

    def _weighted_loss(self, batch: Batch) -> tf.Tensor:
        return sum(self.training.weighted(self.training(batch, training=False)))


class GroupPictures:
    """``draw()`` -> pictures by name.

    They are ``images``, ``groups of stage 1`` and so on, and ``masks`` where there are words.

    Args:
        to_pixels: size and statistics of the pixels that the model is trained on.
        images: uint8 (H, W, 3), each of any size; they are seen whole, as mode "whole" sees them.
        words: class names of the masks, all of them the vocabulary; none: no masks.
    """

    def __init__(
        self,
        model: TFGroupViTModel,
        tokenizer: Tokenizer,
        to_pixels: PixelValues,
        images: Sequence[np.ndarray],
        words: Sequence[str] = (),
    ) -> None:
        self.images, self.words = list(images), list(words)
        self.shown = [_shown(image) for image in images]
        self._segmenting = _Segmenting(model, tokenizer, to_pixels, words or ("picture",))

    def draw(self) -> dict[str, list[Image.Image]]:
        """Draw what the model, as it is now, makes of the images: one picture of each, in order."""
        found = self._segmenting.find(self.images)
        pictures = {"images": [Image.fromarray(image) for image in self.shown]}
        maps = [(groups or {})["maps"] for _, groups in found]
        for stage in range(len(maps[0])):
            of_stage = [
                _groups(*pair) for pair in zip(self.shown, (m[stage] for m in maps), strict=True)
            ]
            pictures[f"groups of stage {stage + 1}"] = of_stage
        if self.words:
            pictures["masks"] = [
                names_over_image(Segmentation(scores.labels(*image.shape[:2]), self.words, image))
                for image, (scores, _) in zip(self.shown, found, strict=True)
            ]
        return pictures


def _groups(image: np.ndarray, maps: np.ndarray) -> Image.Image:
    """Each pixel in the color of its group: maps (rows, columns, G) over the image (H, W, 3)."""
    labels = LowResScores(maps).labels(*image.shape[:2])
    return Image.fromarray(blend(image, paint(labels, group_colors(maps.shape[2]))))


def _shown(image: np.ndarray) -> np.ndarray:
    """The image at the size at which it is shown; each pixel of a small one becomes a square."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest > SHOWN_AT:
        sides = (max(1, height * SHOWN_AT // longest), max(1, width * SHOWN_AT // longest))
        return resize_bicubic(image, *sides)
    times = SHOWN_AT // longest
    return image.repeat(times, axis=0).repeat(times, axis=1)
