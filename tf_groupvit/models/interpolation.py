"""Sizes in, interpolation matrices (out, in) out: resizing as two matrix products, for sizes known or unknown.

``resize(x)`` along one axis is ``matrix @ x``. The conventions are PyTorch's with ``align_corners=False``: output pixel
i looks at ``(i + 0.5) * in / out - 0.5``, without antialiasing.
"""

from typing import Any

from keras import ops

CUBIC_A = -0.75  # Parity: PyTorch's bicubic; tf.image.resize and Pillow use -0.5.


def _source_positions(out_size: Any, in_size: Any) -> Any:
    """Where output pixel i lies on the input axis, (out,)."""
    scale = ops.cast(in_size, "float32") / ops.cast(out_size, "float32")
    return (ops.cast(ops.arange(out_size), "float32") + 0.5) * scale - 0.5


def bilinear_matrix(out_size: Any, in_size: Any) -> Any:
    """Weights (out, in) of bilinear interpolation; positions beyond the border take the border's value."""
    last = ops.cast(in_size, "float32") - 1.0
    position = ops.clip(_source_positions(out_size, in_size), 0.0, last)
    pixel = ops.cast(ops.arange(in_size), "float32")
    return ops.relu(1.0 - ops.abs(position[:, None] - pixel[None, :]))


def bicubic_matrix(out_size: Any, in_size: Any) -> Any:
    """Weights (out, in) of bicubic interpolation over four taps; taps beyond the border fall on the border."""
    position = _source_positions(out_size, in_size)
    left = ops.floor(position)
    fraction = position - left
    pixel = ops.cast(ops.arange(in_size), "float32")
    last = ops.cast(in_size, "float32") - 1.0
    matrix = 0.0
    for tap in (-1.0, 0.0, 1.0, 2.0):
        here = ops.clip(left + tap, 0.0, last)
        hit = ops.cast(ops.equal(here[:, None], pixel[None, :]), "float32")
        matrix = matrix + _cubic(ops.abs(fraction - tap))[:, None] * hit
    return matrix


def _cubic(distance: Any) -> Any:
    """Keys' kernel at a distance in [0, 2)."""
    a = CUBIC_A
    near = ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
    far = ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a
    return ops.where(distance <= 1.0, near, far)


def resize_maps(maps: Any, height: Any, width: Any) -> Any:
    """Bilinear: maps (..., h, w) -> (..., height, width), float32."""
    rows, columns = ops.shape(maps)[-2:]
    tall = ops.matmul(bilinear_matrix(height, rows), ops.cast(maps, "float32"))  # (..., height, w)
    return ops.matmul(tall, ops.transpose(bilinear_matrix(width, columns)))


def resize_grid(embeddings: Any, grid: tuple[int, int], rows: Any, columns: Any) -> Any:
    """Bicubic: one embedding a patch, (1, P, C) over ``grid``, -> (1, rows * columns, C), float32."""
    channels = embeddings.shape[-1]
    table = ops.reshape(ops.cast(embeddings, "float32"), (*grid, channels))
    table = ops.tensordot(bicubic_matrix(rows, grid[0]), table, axes=1)  # (rows, grid columns, C)
    table = ops.matmul(bicubic_matrix(columns, grid[1]), table)  # (rows, columns, C)
    return ops.reshape(table, (1, -1, channels))
