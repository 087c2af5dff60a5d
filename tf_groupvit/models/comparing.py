"""Features and assignments in; embeddings, segmentation logits and the loss out: pure functions of the joint model."""

from typing import Any

from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.interpolation import resize_maps


def normalise(x: Any) -> Any:
    """Vectors (..., D) scaled to length one, float32."""
    x = ops.cast(x, "float32")
    return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))


def contrastive_loss(logits_per_text: Any) -> Any:
    """Symmetric cross-entropy of pairs: logits (B, B), whose diagonal holds the true pairs -> scalar."""
    logits = ops.cast(logits_per_text, "float32")
    both_ways = ops.logsumexp(logits, axis=1) + ops.logsumexp(logits, axis=0)
    return ops.mean(both_ways / 2 - ops.diagonal(logits))


def group_maps(assignments: tuple[Any, ...], rows: Any, columns: Any) -> Any:
    """How much each patch belongs to each final group, in place -> (B, G, rows, columns). Raises as ``belonging``."""
    maps = belonging(assignments)
    return ops.reshape(maps, (-1, maps.shape[1], rows, columns))


def belonging(assignments: tuple[Any, ...]) -> Any:
    """How much each patch belongs to each final group: product of the stages' soft assignments -> (B, G, P).

    Raises:
        InputError: the model has no grouping stage.
    """
    if not assignments:
        raise InputError("This model has no grouping stage (num_group_tokens are all 0): it cannot segment.")
    maps = assignments[0]  # (B, G, P)
    for assignment in assignments[1:]:
        maps = ops.matmul(assignment, maps)  # (B, G', P) <- (B, G', G) @ (B, G, P)
    return maps


def segmentation_affinity(groups: Any, text_embeds: Any, scale: Any) -> Any:
    """(B, N, G): how much each group resembles each text.

    Shapes: groups (B, G, D), text_embeds (N, D) or (B, N, D), both of length one.
    """
    # Parity: transformers multiplies by the scale twice.
    return ops.matmul(text_embeds, ops.transpose(groups, (0, 2, 1))) * ops.square(scale)


def segmentation_logits(maps: Any, groups: Any, text_embeds: Any, scale: Any, height: Any, width: Any) -> Any:
    """(B, N, height, width): each group's similarity to each text, spread over the group's pixels.

    Shapes: maps (B, G, rows, columns); the others are those of ``segmentation_affinity``.
    """
    affinity = segmentation_affinity(groups, text_embeds, scale)
    flat = ops.reshape(resize_maps(maps, height, width), (-1, maps.shape[1], height * width))
    logits = ops.matmul(affinity, flat)
    return ops.reshape(logits, (ops.shape(maps)[0], ops.shape(text_embeds)[-2], height, width))
