"""Pictures with masks of class numbers in, the pixels' cross-entropy out: a keras.Model for
``fit``.

What is compared with the mask are the segmentation logits, with two differences from transformers'
definition, which is made for looking, not for learning. It multiplies by the logit scale twice:
here once, or the softmax over classes would be a step from the start. And it stops the gradient at
the group maps: here it passes, unless ``through_maps`` is False, so that the assignment of patches
to groups learns from the masks as well. The arg max is the same either way.

The texts are fixed embeddings of class prompts: the text tower neither runs nor learns, and words
that were never masked keep their meaning as well as the moved images allow.
"""

from collections.abc import Mapping
from typing import Any

from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.operations import group_maps, normalize, segmentation_logits
from tf_groupvit.training.replicas import AcrossReplicas

IGNORED = 255  # the label of pixels that do not count, in masks of PASCAL VOC and others


class MaskTrainingModel(AcrossReplicas):
    """A ``TFGroupViTModel`` and K classes; ``fit`` takes batches that are dicts of pixels and
    labels.

    ``pixel_values`` float (B, 3, H, W) and ``labels`` int (B, H, W), numbers of the classes from 0,
    or ``ignored``. Compile it with an optimizer alone. What ``optimizer.train_only`` froze stays:
    of the model, only the vision tower and its projection can learn here.

    Args:
        model: trained in place.
        text_embeds: (K, D), of length one, such as a segmenter's.
        ignored: the label of pixels that do not count.
        through_maps: whether the assignment to groups learns too, or the groups' features alone.
    """

    def __init__(
        self,
        model: TFGroupViTModel,
        text_embeds: Any,
        ignored: int = IGNORED,
        through_maps: bool = True,
        **keywords: Any,
    ) -> None:
        super().__init__(dtype=model.dtype_policy, **keywords)
        self.model, self.ignored, self.through_maps = model, ignored, through_maps
        embeds = ops.convert_to_numpy(text_embeds)
        if embeds.ndim != 2 or embeds.shape[1] != model.config.projection_dim:
            raise InputError(
                f"text_embeds have shape {embeds.shape}: expected (K,"
                f" {model.config.projection_dim})."
            )
        self.text_embeds = self.add_weight(
            name="text_embeds",
            shape=embeds.shape,
            dtype="float32",
            trainable=False,
            initializer="zeros",
        )
        self.text_embeds.assign(embeds)
        self.built = True

    def call(self, batch: Mapping[str, Any], training: Any = None) -> Any:
        """The loss of a batch, a scalar."""
        return mask_loss(
            self.logits(batch["pixel_values"], training), batch["labels"], self.ignored
        )

    def logits(self, pixel_values: Any, training: Any = None) -> Any:
        """Pixels (B, 3, H, W) -> logits of every class at every pixel (B, K, H, W)."""
        vision = self.model.vision_model(pixel_values, output_attentions=True, training=training)
        height, width = ops.shape(pixel_values)[2:]
        patch = self.model.config.vision_config.patch_height_width
        maps = group_maps(vision["attentions"], height // patch[0], width // patch[1])
        maps = maps if self.through_maps else ops.stop_gradient(maps)
        groups = normalize(
            self.model.visual_projection(vision["last_hidden_state"], training=training)
        )  # (B, G, D)
        scale = ops.exp(ops.cast(self.model.logit_scale, "float32"))
        return segmentation_logits(maps, groups, self.text_embeds, scale, height, width) / scale

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *arguments: Any, **keywords: Any
    ) -> Any:
        """What ``call`` returned, and the model's own losses."""
        return y_pred + sum(self.losses)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, *arguments: Any, **keywords: Any) -> Any:
        return self.get_metrics_result()


def mask_loss(logits: Any, labels: Any, ignored: int = IGNORED) -> Any:
    """Logits (B, K, H, W) against labels (B, H, W): the mean cross-entropy of pixels that are not
    ignored.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "int32")
    counted = ops.cast(ops.not_equal(labels, ignored), "float32")
    index = ops.where(ops.equal(labels, ignored), 0, labels)[:, None]  # (B, 1, H, W)
    chosen = ops.take_along_axis(logits, index, axis=1)[:, 0]
    lost = (ops.logsumexp(logits, axis=1) - chosen) * counted
    return ops.sum(lost) / ops.maximum(ops.sum(counted), 1.0)
