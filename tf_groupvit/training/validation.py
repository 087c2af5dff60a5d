"""What is seen of a model in training: mIoU on held-out scenes, what the groups do, and pictures of
both.

Masks are used here, and only here.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_groupvit.evaluation.scores import ConfusionMatrix
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.operations import normalize
from tf_groupvit.preprocessing.image_arrays import resize_bicubic
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.scenes.scene import CLASSES, scenes
from tf_groupvit.segmentation.overlay import blend, names_over_image, paint
from tf_groupvit.segmentation.palette import group_colors
from tf_groupvit.segmentation.protocol import group_scores, read_groups
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.templates import SIMPLE
from tf_groupvit.segmentation.upsampling import SmallScores
from tf_groupvit.training.caption_batches import TrainingData
from tf_groupvit.training.contrastive_model import Batch, TrainingModel
from tf_groupvit.training.scene_batches import DRAWN_AT

SEED = 2**40  # of the held-out scenes; the streams of training and evaluation share none anyway
AT_ONCE = 50
SHOWN_AT = (
    256  # pixels of a picture's longer side: a small one is enlarged, so that names can be read
)


class SceneScores:
    """``measure()`` -> ``{"val_miou", "groups_used"}`` of the published protocol, all classes as
    vocabulary.
    """

    def __init__(
        self,
        model: TFGroupViTModel,
        tokenizer: Tokenizer,
        to_pixels: Callable[[tf.Tensor], tf.Tensor],
        count: int = 100,
        classes: Sequence[str] = CLASSES,
    ) -> None:
        self.model, self.to_pixels, self.count, self.classes = model, to_pixels, count, classes
        tokens = tokenizer([SIMPLE.format(name) for name in classes])
        self.prompts = (tf.constant(tokens["input_ids"]), tf.constant(tokens["attention_mask"]))
        self._label = tf.function(self._labels, reduce_retracing=True, autograph=False)

    def measure(self) -> dict[str, float]:
        """Measure the model as it is now."""
        tally, used = ConfusionMatrix(self.classes), []
        drawn = list(scenes(SEED, self.count, DRAWN_AT))
        for start in range(0, self.count, AT_ONCE):
            part = drawn[start : start + AT_ONCE]
            labels, owners = self._label(tf.constant(np.stack([one.image for one in part])))
            for one, found, groups in zip(part, labels.numpy(), owners.numpy(), strict=True):
                tally.update(one.mask, found)
                used.append(len(np.unique(groups)))
        return {"val_miou": tally.miou or 0.0, "groups_used": float(np.mean(used))}

    def _labels(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """uint8 (B, H, W, 3) -> labels (B, H, W), and the group of each patch (B, rows, columns)."""
        texts = normalize(self.model.get_text_features(*self.prompts, training=False))
        pixels = self.to_pixels(images)
        groups = read_groups(self.model, pixels)
        scores = group_scores(
            groups, texts, pixels.shape[2], pixels.shape[3], "paper"
        )  # (B, S, S, K)
        scores = tf.image.resize(scores, images.shape[1:3])
        return tf.argmax(scores, axis=-1, output_type=tf.int32), tf.argmax(
            groups["maps"][-1], axis=1
        )


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
    """``draw()`` -> pictures by name: ``images``, ``groups of stage 1`` and so on, and ``masks``
    where there are words.

    Args:
        to_pixels: uint8 (B, S, S, 3) -> pixel values (B, 3, S, S), as the model is trained on.
        size: S.
        images: uint8 (H, W, 3), each of any size; they are seen whole, as mode "whole" sees them.
        words: class names of the masks, all of them the vocabulary; none: no masks.
    """

    def __init__(
        self,
        model: TFGroupViTModel,
        tokenizer: Tokenizer,
        to_pixels: Callable[[tf.Tensor], tf.Tensor],
        size: int,
        images: Sequence[np.ndarray],
        words: Sequence[str] = (),
    ) -> None:
        self.model, self.words = model, list(words)
        self.shown = [_shown(image) for image in images]
        self.pixels = to_pixels(
            tf.constant(np.stack([resize_bicubic(image, size, size) for image in images]))
        )
        tokens = tokenizer([SIMPLE.format(word) for word in words or ("picture",)])
        self.prompts = (tf.constant(tokens["input_ids"]), tf.constant(tokens["attention_mask"]))
        self._look = tf.function(self._seen, autograph=False)

    def draw(self) -> dict[str, list[Image.Image]]:
        """Draw what the model, as it is now, makes of the images: one picture of each, in their
        order.
        """
        maps, scores = self._look()
        pictures = {"images": [Image.fromarray(image) for image in self.shown]}
        for stage, of_stage in enumerate(maps, 1):
            pictures[f"groups of stage {stage}"] = list(map(_groups, self.shown, of_stage.numpy()))
        if self.words:
            pictures["masks"] = [
                self._masks(*pair) for pair in zip(self.shown, scores.numpy(), strict=True)
            ]
        return pictures

    def _seen(self) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        """Maps (B, rows, columns, G) of each stage, and scores (B, S, S, K)."""
        groups = read_groups(self.model, self.pixels)
        texts = normalize(self.model.get_text_features(*self.prompts, training=False))
        height, width = self.pixels.shape[2:]
        scores = group_scores(groups, texts, height, width, "paper")
        return tuple(tf.transpose(maps, (0, 2, 3, 1)) for maps in groups["maps"]), scores

    def _masks(self, image: np.ndarray, scores: np.ndarray) -> Image.Image:
        labels = SmallScores(scores).labels(*image.shape[:2])
        return names_over_image(Segmentation(labels, self.words, image))


def _groups(image: np.ndarray, maps: np.ndarray) -> Image.Image:
    """Each pixel in the colour of its group: maps (rows, columns, G) over the image (H, W, 3)."""
    labels = SmallScores(maps).labels(*image.shape[:2])
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
