"""What the models compute and Keras lacks: arg max, resizing, composed assignments, segmentation
logits, loss.

``first_argmax`` takes the first of equal scores, as PyTorch does; TensorFlow leaves ties undefined.
Resizing is two matrix products with interpolation matrices (out, in), for sizes known or unknown:
``resize(x)`` along one axis is ``matrix @ x``. Its conventions are PyTorch's with
``align_corners=False``: output pixel i looks at ``(i + 0.5) * in / out - 0.5``, without
antialiasing.
"""

import keras
import numpy as np
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.types import Tensor


def times_transposed(x: Tensor, y: Tensor) -> Tensor:
    """(..., M, C) and (..., N, C) -> the products of their rows, (..., M, N)."""
    if keras.backend.backend() == "tensorflow":  # whose product reads y as it lies
        import tensorflow as tf

        return tf.matmul(x, y, transpose_b=True)
    return ops.matmul(x, ops.swapaxes(y, -1, -2))


def first_argmax(x: Tensor, axis: int) -> Tensor:
    """The index of the first maximum of x (..., M, ...) along an axis -> int32 (..., 1, ...)."""
    if 0 in x.shape:  # Keras on PyTorch answers with the bare ``initial``
        return ops.zeros_like(ops.take(x, [0], axis=axis), dtype="int32")
    index, size = _index_along(x, axis)
    # A lowest value to begin with: Keras refuses the maximum of an empty batch, and puts that check
    # into graphs.
    best = ops.equal(x, ops.max(x, axis=axis, keepdims=True, initial=_lowest(x)))
    return ops.min(ops.where(best, index, size - 1), axis=axis, keepdims=True, initial=size - 1)


def one_hot_max(x: Tensor, axis: int) -> Tensor:
    """1.0 at the first maximum along an axis, 0.0 elsewhere; float32, the shape of x."""
    index, _ = _index_along(x, axis)
    return ops.cast(ops.equal(index, first_argmax(x, axis)), "float32")


def _lowest(x: Tensor) -> float:
    dtype = keras.backend.standardize_dtype(x.dtype)
    return float("-inf") if "float" in dtype else int(np.iinfo(dtype).min)


def _index_along(x: Tensor, axis: int) -> tuple[Tensor, int | Tensor]:
    """0, 1, 2, ... along ``axis``, shaped to go with ``x``; and how many there are."""
    shape = [1] * len(x.shape)
    shape[axis] = -1
    size = ops.shape(x)[axis]
    return ops.reshape(ops.arange(size, dtype="int32"), shape), size


CUBIC_A = -0.75  # Parity: PyTorch's bicubic; tf.image.resize and Pillow use -0.5.


def _source_positions(out_size: int | Tensor, in_size: int | Tensor) -> Tensor:
    """Where output pixel i lies on the input axis, (out,)."""
    scale = ops.cast(in_size, "float32") / ops.cast(out_size, "float32")
    return (ops.cast(ops.arange(out_size), "float32") + 0.5) * scale - 0.5


def bilinear_matrix(out_size: int | Tensor, in_size: int | Tensor) -> Tensor:
    """Bilinear interpolation as a matrix (out, in); beyond the border the border's value counts."""
    last = ops.cast(in_size, "float32") - 1.0
    position = ops.clip(_source_positions(out_size, in_size), 0.0, last)
    pixel = ops.cast(ops.arange(in_size), "float32")
    return ops.relu(1.0 - ops.abs(position[:, None] - pixel[None, :]))


def bicubic_matrix(out_size: int | Tensor, in_size: int | Tensor) -> Tensor:
    """Bicubic interpolation as a matrix (out, in); taps beyond the border fall on it."""
    position = _source_positions(out_size, in_size)[:, None]
    left, taps = ops.floor(position), np.array([[-1.0, 0.0, 1.0, 2.0]], "float32")
    pixel = ops.cast(ops.arange(in_size), "float32")
    last = ops.cast(in_size, "float32") - 1.0
    hit = ops.equal(ops.clip(left + taps, 0.0, last)[:, :, None], pixel)  # (out, taps, in)
    weights = _cubic(ops.abs(position - left - taps))  # (out, taps)
    return ops.sum(weights[:, :, None] * ops.cast(hit, "float32"), axis=1)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel at a distance in [0, 2)."""
    a = CUBIC_A
    near = ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
    far = ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a
    return ops.where(distance <= 1.0, near, far)


def resize_maps(maps: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Bilinear: maps (..., h, w) -> (..., height, width), float32."""
    rows, columns = ops.shape(maps)[-2:]
    tall = ops.matmul(bilinear_matrix(height, rows), ops.cast(maps, "float32"))  # (..., height, w)
    return ops.matmul(tall, ops.transpose(bilinear_matrix(width, columns)))


def resize_grid(
    embeddings: Tensor, grid: tuple[int, int], rows: int | Tensor, columns: int | Tensor
) -> Tensor:
    """Bicubic: embeddings of patches (1, P, C) over ``grid`` -> (1, rows * columns, C), float32."""
    channels = embeddings.shape[-1]
    table = ops.reshape(ops.cast(embeddings, "float32"), (*grid, channels))
    table = ops.tensordot(bicubic_matrix(rows, grid[0]), table, axes=1)  # (rows, grid columns, C)
    table = ops.matmul(bicubic_matrix(columns, grid[1]), table)  # (rows, columns, C)
    return ops.reshape(table, (1, -1, channels))


def normalize(x: Tensor) -> Tensor:
    """Vectors (..., D) scaled to length one, float32."""
    x = ops.cast(x, "float32")
    return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))


def contrastive_loss(logits_per_text: Tensor) -> Tensor:
    """Symmetric cross-entropy of pairs: logits (B, B), whose diagonal holds the true pairs ->
    scalar.
    """
    logits = ops.cast(logits_per_text, "float32")
    both_ways = ops.logsumexp(logits, axis=1) + ops.logsumexp(logits, axis=0)
    return ops.mean(both_ways / 2 - ops.diagonal(logits))


def group_maps(
    assignments: tuple[Tensor, ...], rows: int | Tensor, columns: int | Tensor
) -> Tensor:
    """How much each patch belongs to each final group, in place -> (B, G, rows, columns). Raises as
    ``compose_assignments``.
    """
    maps = compose_assignments(assignments)
    return ops.reshape(maps, (-1, maps.shape[1], rows, columns))


def compose_assignments(assignments: tuple[Tensor, ...]) -> Tensor:
    """How much each patch belongs to each final group: product of the stages' soft assignments ->
    (B, G, P).

    Raises:
        InputError: the model has no grouping stage.
    """
    if not assignments:
        raise InputError(
            "This model has no grouping stage (num_group_tokens are all 0): it cannot segment."
        )
    maps = assignments[0]  # (B, G, P)
    for assignment in assignments[1:]:
        maps = ops.matmul(assignment, maps)  # (B, G', P) <- (B, G', G) @ (B, G, P)
    return maps


def segmentation_affinity(groups: Tensor, text_embeds: Tensor, scale: Tensor) -> Tensor:
    """(B, N, G): how much each group resembles each text.

    Shapes: groups (B, G, D), text_embeds (N, D) or (B, N, D), both of length one.
    """
    # Parity: transformers multiplies by the scale twice.
    return times_transposed(text_embeds, groups) * ops.square(scale)


def segmentation_logits(
    maps: Tensor,
    groups: Tensor,
    text_embeds: Tensor,
    scale: Tensor,
    height: int | Tensor,
    width: int | Tensor,
) -> Tensor:
    """(B, N, height, width): each group's similarity to each text, spread over the group's pixels.

    Shapes: maps (B, G, rows, columns); the others are those of ``segmentation_affinity``.
    """
    affinity = segmentation_affinity(groups, text_embeds, scale)
    flat = ops.reshape(resize_maps(maps, height, width), (-1, maps.shape[1], height * width))
    logits = ops.matmul(affinity, flat)
    return ops.reshape(logits, (ops.shape(maps)[0], ops.shape(text_embeds)[-2], height, width))
