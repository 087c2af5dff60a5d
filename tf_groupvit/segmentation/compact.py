"""What ``protocol.compact_scores`` finds in an image in, labels out: rows that pixels share, or patches that they lie
between, which are fewer than pixels. In TensorFlow, in Python and inside exported graphs alike.
"""

from typing import Any

import tensorflow as tf

from tf_groupvit.segmentation.labelling import ROUNDING, between, label_map, next_along, taps


def compact_label_map(
    found: dict[str, tf.Tensor], size: tuple[Any, Any], height: Any, width: Any, wanted: tf.Tensor | None = None
) -> tf.Tensor:
    """Labels int32 (height, width) of what ``protocol.compact_scores`` found in one image, for pixels of ``size``;
    of the ``wanted`` rows alone, int32 (rows), where these are given.
    """
    if "owner" in found:
        return label_map(found["rows"], height, width, found["owner"], wanted=wanted)
    return label_map_of_patches(found["rows"], size, height, width, wanted)


def small_picture(found: dict[str, tf.Tensor], size: tuple[Any, Any]) -> tf.Tensor:
    """The same as scores of the small picture's pixels, (*size, K)."""
    if "owner" in found:
        return tf.gather(found["rows"], found["owner"])
    return scores_between_patches(found["rows"], *size)


def label_map_of_patches(
    scores: tf.Tensor, size: tuple[Any, Any], height: tf.Tensor, width: tf.Tensor, wanted: tf.Tensor | None = None
) -> tf.Tensor:
    """``label_map`` of a small picture of ``size``, whose scores lie between those of patches (r, c, K): the same
    labels, while pixels of the small picture are worked out for classes alone that can be the best somewhere.
    """
    some = contenders(scores)
    small = scores_between_patches(tf.gather(scores, some, axis=-1), *size)
    return label_map(small, height, width, numbers=some, wanted=wanted)


def scores_between_patches(scores: tf.Tensor, height: Any, width: Any) -> tf.Tensor:
    """Scores of patches (r, c, K) -> of the pixels of a small picture (height, width, K)."""
    rows, columns, classes = tf.unstack(tf.shape(scores))
    left, right, share = taps(tf.range(width), columns, width)
    wide = between(tf.gather(scores, left, axis=1), tf.gather(scores, right, axis=1), share[None, :, None])
    # What is large now is gone through once, by a product.
    upper, lower, low = taps(tf.range(height), rows, height)
    tall = between(tf.one_hot(upper, rows), tf.one_hot(lower, rows), low[:, None]) @ tf.reshape(wide, [rows, -1])
    return tf.reshape(tall, [height, width, classes])


def contenders(scores: tf.Tensor) -> tf.Tensor:
    """The classes, in their order, that can be the best between some of the patches (r, c, K): int32 (n).

    Between four patches a class scores no more than in the best of the four, and no less than in the worst. So it never
    is the best there if another's worst is above its best.
    """
    best = worst = scores
    for axis in (0, 1):
        best, worst = tf.maximum(best, next_along(best, axis)), tf.minimum(worst, next_along(worst, axis))
    reached = tf.reduce_max(worst, axis=-1, keepdims=True)
    can = best >= reached - 2 * ROUNDING * tf.abs(reached)  # it is interpolated twice
    return tf.cast(tf.where(tf.reduce_any(can, axis=[0, 1]))[:, 0], tf.int32)
