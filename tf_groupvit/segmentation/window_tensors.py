"""A picture in, its windows out, and the scores of windows in, those of the picture out: in TensorFlow."""

from typing import Any

import tensorflow as tf


def merge_windows(scores: tf.Tensor, corners: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Average what overlapping windows (n, h, w, K), with corners (n, 2), say of each pixel: (height, width, K)."""
    size = tf.shape(scores)

    def step(index: Any, total: Any, count: Any) -> tuple[Any, Any, Any]:
        y, x = corners[index, 0], corners[index, 1]
        around = [[y, height - y - size[1]], [x, width - x - size[2]], [0, 0]]
        total = total + tf.pad(scores[index], around)
        return index + 1, total, count + tf.pad(tf.ones([size[1], size[2], 1], scores.dtype), around)

    start = (0, tf.zeros([height, width, size[3]], scores.dtype), tf.zeros([height, width, 1], scores.dtype))
    _, total, count = tf.while_loop(lambda index, *_: index < size[0], step, start, parallel_iterations=1)
    return total / count


def cut_windows(pixels: tf.Tensor, corners: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Windows (n, height, width, C) of pixels (H, W, C) at corners (n, 2)."""
    rows = corners[:, 0, None] + tf.range(height)  # (n, height)
    columns = corners[:, 1, None] + tf.range(width)
    bands = tf.gather(pixels, rows)  # (n, height, W, C)
    return tf.gather(bands, columns, axis=2, batch_dims=1)
