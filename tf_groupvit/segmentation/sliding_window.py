"""Windows that slide over a picture: its size, where they begin, cutting them, and averaging their
scores.

Window mode is how the published numbers were made: short side to 448, long side at most 2048,
windows of 448 at a stride of 224, for a model of 224; the last window of a row or column is moved
in. Source: the published evaluation.
"""

from typing import Any

import tensorflow as tf

LONGEST = 2048 / 224  # the longest side, in units of the model's image size


def window_scale(height: int, width: int, image_size: int) -> float:
    """The factor by which window mode resizes an image of ``height`` x ``width``."""
    short, long = min(height, width), max(height, width)
    return min(2 * image_size / short, LONGEST * image_size / long)


def resized(height: int, width: int, image_size: int, patch: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the image that windows are cut from: ratio kept, rounded, and at least one patch."""
    scale = window_scale(height, width, image_size)
    return max(int(height * scale + 0.5), patch[0]), max(int(width * scale + 0.5), patch[1])


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side; the last one ends at the border. One window if the side
    is no longer.
    """
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def boxes(height: int, width: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Top left corners (y, x) of the windows over an image, row by row."""
    return [(y, x) for y in starts(height, window, stride) for x in starts(width, window, stride)]


def merge_windows(
    scores: tf.Tensor, corners: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Average what overlapping windows (n, h, w, K), with corners (n, 2), say of each pixel:
    (height, width, K).
    """
    size = tf.shape(scores)

    def step(index: Any, total: Any, count: Any) -> tuple[Any, Any, Any]:
        y, x = corners[index, 0], corners[index, 1]
        around = [[y, height - y - size[1]], [x, width - x - size[2]], [0, 0]]
        total = total + tf.pad(scores[index], around)
        return (
            index + 1,
            total,
            count + tf.pad(tf.ones([size[1], size[2], 1], scores.dtype), around),
        )

    start = (
        0,
        tf.zeros([height, width, size[3]], scores.dtype),
        tf.zeros([height, width, 1], scores.dtype),
    )
    _, total, count = tf.while_loop(
        lambda index, *_: index < size[0], step, start, parallel_iterations=1
    )
    return total / count


def cut_windows(
    pixels: tf.Tensor, corners: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Windows (n, height, width, C) of pixels (H, W, C) at corners (n, 2)."""
    rows = corners[:, 0, None] + tf.range(height)  # (n, height)
    columns = corners[:, 1, None] + tf.range(width)
    bands = tf.gather(pixels, rows)  # (n, height, W, C)
    return tf.gather(bands, columns, axis=2, batch_dims=1)
