"""Pixels (B, 3, H, W) and text embeddings in, a score for every class and pixel (B, K, H, W) out.

Two ways to read the same model: the published inference, and transformers' ``segmentation_logits``. Pure functions in
keras.ops, for any batch and any sizes, eager or traced.
"""

from typing import Any

from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.argmax import first_argmax, one_hot_max
from tf_groupvit.models.groupvit import TFGroupViTModel, group_maps, normalise
from tf_groupvit.models.interpolation import resize_maps
from tf_groupvit.models.outputs import ModelOutput

PROTOCOLS = ("paper", "hf")
TOP_CLASSES = 5  # classes of the whole image that stay in the running
HIGHEST_SCALE = 100.0
LOWEST = -3.0e38  # stands for minus infinity: a row without any class stays finite


class Groups(ModelOutput):
    """What the vision side says of an image, before any text.

    maps: tuple, one a grouping stage: how much each patch belongs to each group (B, G, rows, columns).
    group_embeds (B, G, D) and image_embeds (B, D): of length one. scale: scalar, the clamped logit scale.
    """

    fields = ("maps", "group_embeds", "image_embeds", "scale")


def read_groups(model: TFGroupViTModel, pixel_values: Any) -> Groups:
    """Run the vision tower once: pixels (B, 3, H, W) -> ``Groups``.

    Rows and columns of pixels beyond the last whole patch are not looked at, as in the original, whose patches are a
    convolution without padding.
    """
    pixel_values = ops.convert_to_tensor(pixel_values)
    height, width = ops.shape(pixel_values)[2:]
    patch = model.config.vision_config.patch_height_width
    rows, columns = height // patch[0], width // patch[1]
    whole = pixel_values[:, :, : rows * patch[0], : columns * patch[1]]
    vision = model.vision_model(whole, output_attentions=True, training=False)
    stages = vision.attentions or ()
    maps = tuple(group_maps(stages[: i + 1], rows, columns) for i in range(len(stages)))
    if not maps:
        group_maps((), rows, columns)  # says why there are none
    project = model.visual_projection
    scale = ops.minimum(ops.exp(ops.cast(model.logit_scale, "float32")), HIGHEST_SCALE)
    return Groups(
        maps=maps,
        group_embeds=normalise(project(vision["last_hidden_state"], training=False)),
        image_embeds=normalise(project(vision["pooler_output"], training=False)),
        scale=scale,
    )


def paper_scores(model: TFGroupViTModel, pixel_values: Any, text_embeds: Any, background: float | None = None) -> Any:
    """The published inference for one window: pixels (B, 3, H, W), texts (N, D) -> (B, N, H, W), or N + 1.

    Every pixel belongs to one group, and takes that group's affinity to the classes. With ``background`` a first
    class is added, with score 1 where no class reaches the threshold. Source: Xu et al. 2022, section 4, and the
    published evaluation (top-5 filter, product of two softmaxes, ``min(threshold, highest affinity)``).

    Raises:
        InputError: shapes that do not go together, or a model without grouping.
    """
    height, width = ops.shape(pixel_values)[2:]
    groups = read_groups(model, pixel_values)
    return spread(groups, class_affinity(groups, model._checked_embeds(text_embeds)), height, width, background)


def hf_scores(model: TFGroupViTModel, pixel_values: Any, text_embeds: Any) -> Any:
    """transformers' ``segmentation_logits`` (B, N, H, W) for pixels (B, 3, H, W) and texts (N, D)."""
    result = model(
        pixel_values=pixel_values,
        text_embeds=text_embeds,
        output_segmentation=True,
        output_attentions=False,
        output_hidden_states=False,
        training=False,
    )
    return result["segmentation_logits"]


def class_affinity(groups: Groups, text_embeds: Any, valid: Any = None) -> Any:
    """How well each group fits each class, (B, G, N): product of a softmax over the image's top classes and one over all.

    Args:
        text_embeds: (N, D), or (B, N, D) where each image has classes of its own.
        valid: bool (B, N); classes that are only padding take no part, and get 0.
    """
    texts = text_embeds if len(text_embeds.shape) == 3 else text_embeds[None]  # (B or 1, N, D)
    across = ops.transpose(texts, (0, 2, 1))
    affinity = ops.matmul(groups["group_embeds"], across) * groups["scale"]  # (B, G, N)
    whole = ops.matmul(groups["image_embeds"][:, None], across)[:, 0]  # (B, N)
    if valid is not None:
        affinity = ops.where(valid[:, None], affinity, LOWEST)
        whole = ops.where(valid, whole, LOWEST)
    kept = ops.where(_top(whole)[:, None], affinity, LOWEST)
    product = ops.softmax(kept, axis=-1) * ops.softmax(affinity, axis=-1)
    return product if valid is None else ops.where(valid[:, None], product, 0.0)


def _top(scores: Any, count: int = TOP_CLASSES) -> Any:
    """True for the ``count`` highest of scores (B, N), the first ones on ties."""
    index = ops.arange(ops.shape(scores)[1])
    mine, other = scores[:, :, None], scores[:, None, :]
    ahead = ops.logical_or(other > mine, ops.logical_and(ops.equal(other, mine), index[None, :] < index[:, None]))
    return ops.sum(ops.cast(ahead, "int32"), axis=-1) < count


def spread(groups: Groups, affinity: Any, height: Any, width: Any, background: float | None = None) -> Any:
    """Give every pixel the affinity of its group: (B, G, N) -> (B, N, height, width), with background N + 1."""
    owner = one_hot_max(resize_maps(groups["maps"][-1], height, width), axis=1)  # (B, G, H, W)
    table = ops.transpose(affinity, (0, 2, 1))  # (B, N, G)
    if background is not None:
        table = ops.concatenate([_background(affinity, background), table], axis=1)
    flat = ops.reshape(owner, (-1, owner.shape[1], height * width))
    return ops.reshape(ops.matmul(table, flat), (-1, ops.shape(table)[1], height, width))


def _background(affinity: Any, threshold: float) -> Any:
    """1 for the groups that are background, (B, 1, G): no class of theirs reaches the threshold.

    The threshold is lowered to the image's highest affinity, so that an image is never background alone.
    """
    best = ops.max(affinity, axis=-1)  # (B, G)
    reach = ops.minimum(threshold, ops.max(best, axis=-1, keepdims=True))
    return ops.cast(best < reach, "float32")[:, None]


def group_labels(maps: Any, height: Any, width: Any) -> Any:
    """The group of every pixel: maps (B, G, rows, columns) -> int32 (B, height, width)."""
    return first_argmax(resize_maps(maps, height, width), axis=1)[:, 0]


def check_protocol(protocol: str, background: float | None) -> None:
    """Refuse an unknown protocol, and a background that it cannot have."""
    if protocol not in PROTOCOLS:
        raise InputError(f"There is no protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}.")
    if background is None:
        return
    if protocol == "hf":
        raise InputError(
            "protocol='hf' gives logits, not probabilities: a background threshold needs protocol='paper'."
        )
    if isinstance(background, bool) or not isinstance(background, int | float) or not 0 <= background <= 1:
        raise InputError(f"background is {background!r}: expected a threshold from 0 to 1, or None.")
