"""``MaskTrainingModel``: a keras.Model that learns from images with masks of class numbers.

The segmentation logits are compared with the mask. They differ in two ways from transformers'
definition, which is meant for inference. That one multiplies by the logit scale twice; here it is
once, otherwise the softmax over classes would saturate from the start. And it stops the gradient
at the group maps; here it passes, unless ``through_maps`` is False, so that the assignment
of patches to groups learns from the masks as well. The arg max is the same either way.

The texts are fixed embeddings of class prompts: the text tower neither runs nor learns, so classes
that were never in a mask keep their meaning as well as the changed images allow.
"""

from typing import Any

import numpy.typing as npt
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.operations import group_maps, normalize, segmentation_logits
from tf_groupvit.training.contrastive_model import Batch
from tf_groupvit.training.replicas import AcrossReplicas
from tf_groupvit.types import Tensor

IGNORED = 255  # the label of pixels that do not count, in masks of PASCAL VOC and others


class MaskTrainingModel(AcrossReplicas):
    """A ``TFGroupViTModel`` and K classes; ``fit`` takes batches that are dicts.

    A batch has ``pixel_values`` float (B, 3, H, W) and ``labels`` int (B, H, W), class numbers from
    0, or ``ignored``. Compile it with an optimizer alone. What ``model_setup.train_only`` froze
    stays: of the model, only the vision tower and its projection can learn here.

    Args:
        model: trained in place.
        text_embeds: (K, D), of length one, such as a segmenter's.
        ignored: the label of pixels that do not count.
        through_maps: whether the assignment to groups learns too, or the groups' features alone.

    Raises:
        InputError: embeddings of another width than the model's.
    """

    def __init__(
        self,
        model: TFGroupViTModel,
        text_embeds: npt.ArrayLike,
        ignored: int = IGNORED,
        through_maps: bool = True,
        **keywords: Any,
    ) -> None:
        super().__init__(dtype=model.dtype_policy, **keywords)
        self.model, self.ignored, self.through_maps = model, ignored, through_maps
        embeds, width = ops.convert_to_numpy(text_embeds), model.config.projection_dim
        if embeds.ndim != 2 or embeds.shape[1] != width:
            raise InputError(f"text_embeds have shape {embeds.shape}: expected (K, {width}).")
        self.text_embeds = self.add_weight(
            name="text_embeds",
            shape=embeds.shape,
            dtype="float32",
            trainable=False,
            initializer="zeros",
        )
        self.text_embeds.assign(embeds)
        self.built = True

    def call(self, batch: Batch, training: bool | None = None) -> Tensor:
        """The loss of a batch, a scalar."""
        logits = self.logits(batch["pixel_values"], training)
        return mask_loss(logits, batch["labels"], self.ignored)

    def logits(self, pixel_values: Tensor, training: bool | None = None) -> Tensor:
        """Pixels (B, 3, H, W) -> logits of every class at every pixel (B, K, H, W)."""
        vision = self.model.vision_model(pixel_values, output_attentions=True, training=training)
        height, width = ops.shape(pixel_values)[2:]
        patch = self.model.config.vision_config.patch_height_width
        maps = group_maps(vision["attentions"], height // patch[0], width // patch[1])
        maps = maps if self.through_maps else ops.stop_gradient(maps)
        projected = self.model.visual_projection(vision["last_hidden_state"], training=training)
        groups = normalize(projected)  # (B, G, D)
        scale = ops.exp(ops.cast(self.model.logit_scale, "float32"))
        return segmentation_logits(maps, groups, self.text_embeds, scale, height, width) / scale

    def compute_loss(
        self,
        x: Batch | None = None,
        y: None = None,
        y_pred: Any = None,
        *arguments: Any,
        **keywords: Any,
    ) -> Tensor:
        """What ``call`` returned, a scalar, and the model's own losses."""
        return y_pred + sum(self.losses)


def mask_loss(logits: Tensor, labels: Tensor, ignored: int = IGNORED) -> Tensor:
    """Mean cross-entropy of logits (B, K, H, W) at the pixels of labels (B, H, W) -> scalar.

    Pixels with the label ``ignored`` do not count.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "int32")
    counted = ops.cast(ops.not_equal(labels, ignored), "float32")
    index = ops.where(ops.equal(labels, ignored), 0, labels)[:, None]  # (B, 1, H, W)
    chosen = ops.take_along_axis(logits, index, axis=1)[:, 0]
    lost = (ops.logsumexp(logits, axis=1) - chosen) * counted
    return ops.sum(lost) / ops.maximum(ops.sum(counted), 1.0)
