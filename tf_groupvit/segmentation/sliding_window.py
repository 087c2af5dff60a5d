"""Slide windows over a picture: its size, where they begin, cutting, and averaging their scores.

Window mode is how the published numbers were made: short side to 448, long side at most 2048,
windows of 448 at a stride of 224, for a model of 224; the last window of a row or column is moved
in. Source: the published evaluation. Everything runs eagerly and inside graphs.
"""

import tensorflow as tf

from tf_groupvit.types import Tensor

LONGEST = 2048 / 224  # the longest side, in units of the model's image size


def resized(
    height: Tensor | int, width: Tensor | int, image_size: int, patch: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """(H, W) in pixels of the picture that windows are cut from: ratio kept, at least one patch."""
    sides = tf.cast(tf.stack([height, width]), tf.float64)
    scale = tf.minimum(
        2.0 * image_size / tf.reduce_min(sides), LONGEST * image_size / tf.reduce_max(sides)
    )
    new = tf.maximum(tf.cast(sides * scale + 0.5, tf.int32), tf.constant(patch))
    return new[0], new[1]


def starts(length: Tensor | int, window: int) -> Tensor:
    """Where windows begin along one side, int32 (n), half a window apart.

    The last one ends at the border. There is one window if the side is no longer.
    """
    last = tf.maximum(tf.convert_to_tensor(length) - window, 0)
    return tf.concat([tf.range(0, last, window // 2), last[None]], axis=0)


def corners_of(height: Tensor | int, width: Tensor | int, window: int) -> Tensor:
    """Top left corners (y, x) of the windows over a picture, row by row: int32 (n, 2)."""
    rows, columns = starts(height, window), starts(width, window)
    return tf.stack([tf.repeat(rows, tf.size(columns)), tf.tile(columns, [tf.size(rows)])], axis=1)


def cut_windows(pixels: Tensor, corners: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Windows (n, height, width, C) of pixels (H, W, C) at corners (n, 2)."""
    rows = corners[:, 0, None] + tf.range(height)  # (n, height)
    columns = corners[:, 1, None] + tf.range(width)
    bands = tf.gather(pixels, rows)  # (n, height, W, C)
    return tf.gather(bands, columns, axis=2, batch_dims=1)


def merge_windows(scores: Tensor, corners: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Average the scores (n, h, w, K) of windows at corners (n, 2): -> (height, width, K)."""
    count, tall, wide, classes = tf.unstack(tf.shape(scores))

    def step(index: Tensor, total: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, x = corners[index, 0], corners[index, 1]
        around = [[y, height - y - tall], [x, width - x - wide], [0, 0]]
        ones = tf.ones([tall, wide, 1], scores.dtype)
        return index + 1, total + tf.pad(scores[index], around), times + tf.pad(ones, around)

    start = (
        0,
        tf.zeros([height, width, classes], scores.dtype),
        tf.zeros([height, width, 1], scores.dtype),
    )
    _, total, times = tf.while_loop(
        lambda index, *_: index < count, step, start, parallel_iterations=1
    )
    return total / times
