"""A model in training and held-out scenes in, mIoU and what the groups do out. Masks are used here, and only here."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_groupvit.evaluation.confusion import ConfusionMatrix
from tf_groupvit.evaluation.scenes import CLASSES, scenes
from tf_groupvit.models.comparing import normalise
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.segmentation.protocol import group_scores, read_groups
from tf_groupvit.segmentation.templates import SIMPLE
from tf_groupvit.training.scene_batches import DRAWN_AT

SEED = 2**40  # of the held-out scenes; the streams of training and evaluation share none anyway
AT_ONCE = 50


class SceneScores:
    """``measure()`` -> ``{"val_miou", "groups_used"}`` of the published protocol, all classes as vocabulary."""

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
        texts = normalise(self.model.get_text_features(*self.prompts, training=False))
        pixels = self.to_pixels(images)
        groups = read_groups(self.model, pixels)
        scores = group_scores(groups, texts, pixels.shape[2], pixels.shape[3], "paper")  # (B, S, S, K)
        scores = tf.image.resize(scores, images.shape[1:3])
        return tf.argmax(scores, axis=-1, output_type=tf.int32), tf.argmax(groups["maps"][-1], axis=1)
