"""Decode what GroupViT sees in pictures into scores for classes.

There are two ways to do it: "paper", the published inference, and "hf", transformers'
``segmentation_logits``. Pure functions in ``keras.ops``, for any batch and any sizes, eager or
traced.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.inputs import accept
from tf_groupvit.models.operations import (
    first_argmax,
    group_maps,
    normalize,
    resize_maps,
    segmentation_affinity,
)
from tf_groupvit.models.outputs import ModelOutput
from tf_groupvit.segmentation.settings import check_protocol
from tf_groupvit.types import Tensor

TOP_CLASSES = 5  # classes of the whole image that stay in the running
HIGHEST_SCALE = 100.0
LOWEST = -3.0e38  # stands for minus infinity: a row without any class stays finite
Thresholds: TypeAlias = float | Sequence[float] | Tensor | None


class Groups(ModelOutput):
    """What the vision side says of images, before any text.

    maps: tuple, one per grouping stage: how much each patch belongs to each group (B, G, rows,
        columns). group_embeds (B, G, D) and image_embeds (B, D): of length one. scale: scalar, e to
        the logit scale.
    """

    fields = ("maps", "group_embeds", "image_embeds", "scale")


def encode_image(model: TFGroupViTModel, pixel_values: Tensor) -> Groups:
    """Run the vision tower once: pixels (B, 3, H, W) -> ``Groups``.

    Rows and columns of pixels beyond the last whole patch are ignored, as in the original, whose
    patches are a convolution without padding.
    """
    pixel_values = _checked_pixels(pixel_values)
    height, width = ops.shape(pixel_values)[2:]
    patch = model.config.vision_config.patch_height_width
    rows, columns = height // patch[0], width // patch[1]
    whole = pixel_values[:, :, : rows * patch[0], : columns * patch[1]]
    vision = model.vision_model(whole, output_attentions=True, training=False)
    stages = vision.attentions or ()
    maps = tuple(group_maps(stages[: i + 1], rows, columns) for i in range(len(stages)))
    if not maps:
        group_maps((), rows, columns)  # says why there are none
    # Groups and image go through the projection together: for a single image the time goes into
    # reading the weights, not into the sums.
    features = ops.concatenate(
        [vision["last_hidden_state"], vision["pooler_output"][:, None]], axis=1
    )
    embeds = normalize(model.visual_projection(features, training=False))  # (B, G + 1, D)
    return Groups(
        maps=maps,
        group_embeds=embeds[:, :-1],
        image_embeds=embeds[:, -1],
        scale=ops.exp(ops.cast(model.logit_scale, "float32")),
    )


def _checked_pixels(pixel_values: Tensor) -> Tensor:
    pixel_values = ops.convert_to_tensor(accept("pixel_values", pixel_values))
    if len(pixel_values.shape) != 4:
        raise InputError(
            f"pixel_values have shape {tuple(pixel_values.shape)}: expected (B, 3, H, W)."
        )
    return pixel_values


def paper_scores(
    model: TFGroupViTModel,
    pixel_values: Tensor | np.ndarray,
    text_embeds: Tensor | np.ndarray,
    background: float | None = None,
) -> Tensor:
    """Score one window as published: pixels (B, 3, H, W), texts (N, D) -> (B, N [+ 1], H, W).

    Every pixel belongs to one group, and takes that group's affinity to the classes. With
    ``background`` a first class is added, with score 1 where no class reaches the threshold.
    Source: Xu et al. 2022, section 4, and the published evaluation (top-5 filter, product of two
    softmaxes, ``min(threshold, highest affinity)``).

    Raises:
        InputError: shapes that do not go together, or a model without grouping.
    """
    check_protocol("paper", background)
    text_embeds = model.checked_text_embeds(accept("text_embeds", text_embeds))
    if text_embeds.shape[0] == 0:
        raise InputError("text_embeds are empty: give at least one text.")
    scores = image_scores(model, pixel_values, text_embeds, "paper", background)
    return ops.transpose(scores, (0, 3, 1, 2))


def image_scores(
    model: TFGroupViTModel,
    pixel_values: Tensor | np.ndarray,
    text_embeds: Tensor,
    protocol: str,
    background: Thresholds = None,
) -> Tensor:
    """Score pixels (B, 3, H, W) against texts (N, D): -> (B, H, W, K), classes last.

    Protocols are "paper", and "hf" for transformers' ``segmentation_logits``, which has no
    background.
    """
    pixel_values = _checked_pixels(pixel_values)
    height, width = ops.shape(pixel_values)[2:]
    groups = encode_image(model, pixel_values)
    return pixel_scores(groups, text_embeds, height, width, protocol, background)


def pixel_scores(
    groups: Groups,
    text_embeds: Tensor,
    height: Tensor | int,
    width: Tensor | int,
    protocol: str,
    background: Thresholds = None,
) -> Tensor:
    """Score every pixel of images whose groups are known: texts (N, D) -> (B, height, width, K)."""
    if protocol == "paper":
        affinity = with_background(class_affinity(groups, text_embeds), background)
        return scatter_groups(groups["maps"][-1], affinity, height, width)
    maps = resize_maps(groups["maps"][-1], height, width)
    return weighted_sum(maps, group_logits(groups, text_embeds))


def compact_scores(
    groups: Groups,
    text_embeds: Tensor,
    height: Tensor | int,
    width: Tensor | int,
    protocol: str,
    background: Thresholds = None,
) -> dict[str, Tensor]:
    """``pixel_scores`` before they are spread over pixels: rows of groups or of patches.

    Of protocol "paper", ``rows`` of the groups (B, G, K) and the ``owner`` of each pixel (B,
    height, width), of "hf" the ``rows`` of the patches (B, r, c, K): interpolating a group's share
    of a pixel and interpolating the scores themselves is the same. They are the fields of
    ``upsampling.LowResScores``.
    """
    maps = groups["maps"][-1]
    if protocol == "paper":
        rows = with_background(class_affinity(groups, text_embeds), background)
        return {"rows": rows, "owner": group_of_pixel(maps, height, width)}
    return {"rows": weighted_sum(maps, group_logits(groups, text_embeds))}


def group_logits(groups: Groups, text_embeds: Tensor) -> Tensor:
    """How much each group resembles each class in transformers' segmentation logits, (B, G, N)."""
    affinity = segmentation_affinity(groups["group_embeds"], text_embeds, groups["scale"])
    return ops.transpose(affinity, (0, 2, 1))


def class_affinity(groups: Groups, text_embeds: Tensor) -> Tensor:
    """How well each group fits each class (N, D): -> (B, G, N).

    It is a softmax over the image's top classes times one over all classes.
    """
    across = ops.transpose(text_embeds)[None]  # (1, D, N)
    affinity = ops.matmul(groups["group_embeds"], across) * ops.minimum(
        groups["scale"], HIGHEST_SCALE
    )  # (B, G, N)
    whole = ops.matmul(groups["image_embeds"][:, None], across)[:, 0]  # (B, N)
    kept = ops.where(_top(whole)[:, None], affinity, LOWEST)
    return _softmax(kept) * _softmax(affinity)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the classes, without Keras' warning where a user asks for a single one."""
    return ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


def _top(scores: Tensor, count: int = TOP_CLASSES) -> Tensor:
    """True for the ``count`` highest of scores (B, N), the first ones on ties."""
    index = ops.arange(ops.shape(scores)[1])
    mine, other = ops.expand_dims(scores, 2), ops.expand_dims(scores, 1)  # sizes may be unknown
    ahead = ops.logical_or(
        other > mine, ops.logical_and(ops.equal(other, mine), index[None, :] < index[:, None])
    )
    return ops.sum(ops.cast(ahead, "int32"), axis=-1) < count


def with_background(affinity: Tensor, threshold: Thresholds) -> Tensor:
    """Put the background before the classes: (B, G, N) -> (B, G, N + 1); None leaves it out.

    It scores 1 in groups of which no class reaches the threshold. The threshold is lowered to the
    image's highest affinity, so that an image is never background alone. Several thresholds, a
    sequence or a tensor of any length, give a background each, in their order.
    """
    if threshold is None:
        return affinity
    best = ops.max(affinity, axis=-1, keepdims=True)  # (B, G, 1)
    wanted = ops.reshape(ops.convert_to_tensor(threshold, dtype="float32"), (1, 1, -1))
    reach = ops.minimum(wanted, ops.max(best, axis=1, keepdims=True))  # (B, 1, backgrounds)
    return ops.concatenate([ops.cast(best < reach, "float32"), affinity], axis=-1)


def group_of_pixel(maps: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """The one group that every pixel belongs to: (B, G, h, w) -> int32 (B, height, width)."""
    return ops.cast(first_argmax(resize_maps(maps, height, width), axis=1)[:, 0], "int32")


def scatter_groups(
    maps: Tensor, affinity: Tensor, height: Tensor | int, width: Tensor | int
) -> Tensor:
    """Give every pixel the row of its group: (B, G, h, w), (B, G, K) -> (B, height, width, K)."""
    owner = group_of_pixel(maps, height, width)
    images, groups, classes = ops.shape(affinity)
    start = groups * ops.arange(images, dtype=owner.dtype)  # of each image's groups among all
    rows = ops.take(ops.reshape(affinity, (-1, classes)), owner + start[:, None, None], axis=0)
    return ops.reshape(rows, (-1, height, width, classes))


def weighted_sum(maps: Tensor, affinity: Tensor) -> Tensor:
    """Weight the groups' rows by their maps: (B, G, h, w), (B, G, K) -> (B, h, w, K)."""
    height, width = ops.shape(maps)[2:]
    flat = ops.reshape(maps, (-1, ops.shape(maps)[1], height * width))
    scores = ops.matmul(
        ops.transpose(flat, (0, 2, 1)), affinity
    )  # (B, h * w, K) <- (B, h * w, G) @ (B, G, K)
    return ops.reshape(scores, (-1, height, width, ops.shape(affinity)[2]))


def class_probabilities(image_embeds: Tensor, scale: Tensor, text_embeds: Tensor) -> Tensor:
    """Classify whole images: softmax over the texts (N, D) of image_embeds (B, D) -> (B, N)."""
    return _softmax(ops.matmul(image_embeds, ops.transpose(text_embeds)) * scale)
