"""Scores of a small picture (h, w, K) in, a class number for every pixel of the image (H, W) out, in TensorFlow.

Bilinear, then arg max, first on ties; done strip by strip, since the scores of a 12-megapixel photo in 171 classes
would take 8 GB. The same functions serve in Python and inside exported graphs, so both give the same labels.
"""

from typing import Any

import tensorflow as tf

STRIP = 1 << 20  # scores worked on at a time: 4 MB, which stays near the caches


def label_map(scores: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores (h, w, K) -> labels int32 (height, width), and the highest score of each class (K)."""
    classes = tf.shape(scores)[2]
    rows = tf.maximum(STRIP // (width * classes), 1)
    strips = (height + rows - 1) // rows
    across = _taps(tf.range(width), tf.shape(scores)[1], width)
    labels = tf.TensorArray(tf.int32, size=strips, infer_shape=False, element_shape=[None, None])

    def step(index: Any, labels: Any, best: Any) -> tuple[Any, Any, Any]:
        wanted = tf.range(index * rows, tf.minimum((index + 1) * rows, height))
        strip = _resample(scores, wanted, height, across)
        winner, highest = _winner(strip)
        return index + 1, labels.write(index, winner), tf.maximum(best, highest)

    start = (0, labels, tf.fill([classes], scores.dtype.min))
    _, labels, best = tf.while_loop(lambda index, *_: index < strips, step, start, parallel_iterations=1)
    return labels.concat(), best


def score_map(scores: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Scores (h, w, K) -> (height, width, K), all at once: for whoever wants to see them."""
    return _resample(scores, tf.range(height), height, _taps(tf.range(width), tf.shape(scores)[1], width))


def _taps(wanted: tf.Tensor, old: tf.Tensor, new: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For each wanted new pixel its two old neighbours and the weight of the second; PyTorch's align_corners=False."""
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    place = tf.maximum((tf.cast(wanted, tf.float32) + 0.5) * scale - 0.5, 0.0)
    first = tf.minimum(tf.cast(place, tf.int32), old - 1)
    return first, tf.minimum(first + 1, old - 1), place - tf.cast(first, tf.float32)


def _resample(scores: tf.Tensor, wanted: tf.Tensor, height: tf.Tensor, across: Any) -> tf.Tensor:
    """The wanted rows of the resized scores, (rows, width, K)."""
    upper, lower, down = _taps(wanted, tf.shape(scores)[0], height)
    down = down[:, None, None]
    rows = tf.gather(scores, upper) * (1 - down) + tf.gather(scores, lower) * down
    left, right, share = across
    share = share[None, :, None]
    return tf.gather(rows, left, axis=1) * (1 - share) + tf.gather(rows, right, axis=1) * share


def _winner(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The first best class of every pixel, (rows, width); and the highest score of each class, (K).

    TensorFlow leaves open which of equals its argmax gives, but its kernel takes the first, and a test sees to it. To
    look for the first among the highest would take two passes more over the scores.
    """
    return tf.argmax(scores, axis=2, output_type=tf.int32), tf.reduce_max(scores, axis=[0, 1])


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
