"""Scores of a small picture to labels, highest scores and score maps of the whole image, in
TensorFlow.

Bilinear, then arg max, first on ties. The enlarged scores are never there all at once: those of a
12-megapixel photo in 171 classes would take 8 GB. The same functions serve in Python and inside
exported graphs, so both give the same labels. Scores may also be those of rows that pixels share,
or of patches that pixels lie between (``protocol.compact_scores``), which are fewer than pixels.
The last functions are compiled once for every size, and take and give arrays.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_groupvit.models.base_model import check_process

STRIP = 1 << 20  # scores worked on at a time: 4 MB, which stays near the caches
OPEN = -1  # stands for a label that is not known yet
ROUNDING = 1e-6  # by how much of itself a score must be higher than another to count as higher
MOST_OPEN = 0.25  # the share of open pixels from which on it is cheaper to interpolate whole rows


def label_map(
    scores: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    owner: tf.Tensor | None = None,
    numbers: tf.Tensor | None = None,
    wanted: tf.Tensor | None = None,
) -> tf.Tensor:
    """Scores (h, w, K) -> labels int32 (height, width), or of the ``wanted`` rows of them alone,
    int32 (rows).

    With ``owner`` int32 (h, w) scores are rows (G, K) that pixels share: pixel (y, x) has row
    ``owner[y, x]``. With ``numbers`` int32 (K) labels are these instead of 0 to K - 1.

    A pixel lies between four of the small picture. A class that is the best of all four is the best
    between them, too, and rounding does not change the order. So only pixels along the borders of
    classes have to be interpolated.
    """

    def numbered(best: tf.Tensor) -> tf.Tensor:
        return best if numbers is None else tf.gather(numbers, best)

    best = numbered(_best(scores))
    best = best if owner is None else tf.gather(best, owner)
    rows, columns = tf.unstack(tf.shape(best))
    wanted = tf.range(height) if wanted is None else wanted
    down, across = taps(wanted, rows, height), taps(tf.range(width), columns, width)
    labels = tf.gather(
        tf.gather(_same_in_four(best), across[0], axis=1), down[0]
    )  # whole rows are copied sooner
    still_open = tf.cast(tf.where(tf.reshape(labels, [-1]) == OPEN), tf.int32)  # (pixels, 1)
    crowded = tf.cast(tf.size(still_open), tf.float32) > MOST_OPEN * tf.cast(
        tf.size(labels), tf.float32
    )
    return tf.cond(
        crowded,
        lambda: numbered(
            _labels_by_strips(
                scores if owner is None else tf.gather(scores, owner), wanted, height, across
            )
        ),
        lambda: _fill(
            labels,
            still_open,
            numbered(_labels_of(still_open[:, 0], scores, owner, columns, down, across)),
        ),
    )


def highest_scores(scores: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Scores (h, w, K) -> the highest that each class has in any pixel of (height, width), (K),
    within rounding.

    Between four pixels of the small picture scores are linear along rows and along columns, so that
    the highest lies in the first or in the last row there, and in the first or in the last column.
    No row is above the two small ones that it lies between: those that cannot be above what was
    found around the small picture's highest are left out, too.
    """
    rows, columns = _ends(tf.shape(scores)[0], height), _ends(tf.shape(scores)[1], width)
    across = taps(columns, tf.shape(scores)[1], width)
    upper, lower, _ = taps(rows, tf.shape(scores)[0], height)
    most = tf.reduce_max(scores, axis=1)  # (h, K)
    bound = tf.maximum(tf.gather(most, upper), tf.gather(most, lower))  # (rows, K)
    below = tf.searchsorted(
        upper, tf.argmax(most, axis=0, output_type=tf.int32)
    )  # of each class, (K)
    around = tf.clip_by_value(tf.concat([below - 1, below], axis=0), 0, tf.size(rows) - 1)
    found = _highest_of(scores, tf.gather(rows, tf.unique(around)[0]), height, across)
    promising = tf.reduce_any(bound - found > ROUNDING * tf.abs(bound), axis=1)
    return tf.maximum(found, _highest_of(scores, tf.boolean_mask(rows, promising), height, across))


def _highest_of(scores: tf.Tensor, rows: tf.Tensor, height: tf.Tensor, across: Any) -> tf.Tensor:
    """The highest that each class has in some rows of the enlarged scores, (K)."""
    count, strip = _strips(scores, rows, height, across)

    def step(index: Any, highest: Any) -> tuple[Any, Any]:
        return index + 1, tf.maximum(highest, tf.reduce_max(strip(index), axis=[0, 1]))

    start = (0, tf.fill([tf.shape(scores)[2]], scores.dtype.min))
    return tf.while_loop(lambda index, _: index < count, step, start, parallel_iterations=1)[1]


def _best(scores: tf.Tensor) -> tf.Tensor:
    """The first best class, (..., K) -> (...).

    TensorFlow leaves open which of equals its argmax gives, but its kernel takes the first, and a
    test sees to it. To look for the first among the highest would take two passes more over the
    scores.
    """
    return tf.argmax(scores, axis=-1, output_type=tf.int32)


def _same_in_four(best: tf.Tensor) -> tf.Tensor:
    """Where a pixel and its three neighbours to the right and below have the same class, that
    class; else ``OPEN``.
    """
    right, below = next_along(best, 1), next_along(best, 0)
    return tf.where((best == right) & (best == below) & (best == next_along(below, 1)), best, OPEN)


def next_along(values: tf.Tensor, axis: int) -> tf.Tensor:
    """Each place has what the next one has; the last keeps its own."""
    rest, last = (values[1:], values[-1:]) if axis == 0 else (values[:, 1:], values[:, -1:])
    return tf.concat([rest, last], axis)


def _labels_of(
    pixels: tf.Tensor,
    scores: tf.Tensor,
    owner: tf.Tensor | None,
    columns: tf.Tensor,
    down: Any,
    across: Any,
) -> tf.Tensor:
    """The labels of some pixels, given by number (n) row after row; the small picture has
    ``columns``.
    """
    width, classes = tf.size(across[0]), tf.shape(scores)[-1]
    flat, rows = tf.reshape(scores, [-1, classes]), tf.maximum(STRIP // classes, 1)
    owners = None if owner is None else tf.reshape(owner, [-1])
    count = (
        tf.size(pixels) // rows + 1
    )  # the last may be empty; at least one, since nothing cannot be joined

    def part(index: Any) -> tf.Tensor:
        some = pixels[index * rows : (index + 1) * rows]
        upper, lower, low = (tf.gather(tap, some // width) for tap in down)
        left, right, share = (tf.gather(tap, some % width) for tap in across)

        def small(place: Any) -> Any:
            return tf.gather(flat, place if owners is None else tf.gather(owners, place))

        def column(x: Any) -> Any:
            return between(small(upper * columns + x), small(lower * columns + x), low[:, None])

        return _best(between(column(left), column(right), share[:, None]))

    return _joined(count, part)


def _fill(labels: tf.Tensor, places: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Labels (H, W) with values (n) at the places (n, 1), counted row after row."""
    filled = tf.tensor_scatter_nd_update(tf.reshape(labels, [-1]), places, values)
    return tf.reshape(filled, tf.shape(labels))


def _labels_by_strips(
    scores: tf.Tensor, wanted: tf.Tensor, height: tf.Tensor, across: Any
) -> tf.Tensor:
    """The labels of all pixels of the wanted rows, each interpolated."""
    count, strip = _strips(scores, wanted, height, across)
    return tf.reshape(
        _joined(count, lambda index: tf.reshape(_best(strip(index)), [-1])), [tf.size(wanted), -1]
    )


def _joined(count: tf.Tensor, part: Callable[[Any], tf.Tensor]) -> tf.Tensor:
    """The int32 vectors ``part(0)``, ``part(1)``, ... made one after the other, as one."""
    parts = tf.TensorArray(tf.int32, size=count, infer_shape=False, element_shape=[None])
    parts = tf.while_loop(
        lambda index, _: index < count,
        lambda index, parts: (index + 1, parts.write(index, part(index))),
        (0, parts),
        parallel_iterations=1,
    )[1]
    return parts.concat()


def _strips(
    scores: tf.Tensor, rows: tf.Tensor, height: tf.Tensor, across: Any
) -> tuple[tf.Tensor, Callable[[Any], tf.Tensor]]:
    """How many strips the wanted rows come in, and a function that makes one of them, (rows of it,
    columns, K).
    """
    at_once = tf.maximum(STRIP // (tf.size(across[0]) * tf.shape(scores)[2]), 1)
    count = (tf.size(rows) + at_once - 1) // at_once
    return count, lambda i: _resample(scores, rows[i * at_once : (i + 1) * at_once], height, across)


def score_map(scores: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Scores (h, w, K) -> (height, width, K), all at once: for whoever wants to see them."""
    return _resample(
        scores, tf.range(height), height, taps(tf.range(width), tf.shape(scores)[1], width)
    )


def taps(
    wanted: tf.Tensor, old: tf.Tensor, new: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For each wanted new pixel its two old neighbours and the weight of the second; PyTorch's
    align_corners=False.
    """
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    place = tf.maximum((tf.cast(wanted, tf.float32) + 0.5) * scale - 0.5, 0.0)
    first = tf.minimum(tf.cast(place, tf.int32), old - 1)
    return first, tf.minimum(first + 1, old - 1), place - tf.cast(first, tf.float32)


def _ends(old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Of the new pixels that lie between the same two old ones, the first and the last."""
    every = tf.range(new)
    first = taps(every, old, new)[0]
    parted = first[1:] != first[:-1]
    return tf.boolean_mask(
        every,
        tf.pad(parted, [[1, 0]], constant_values=True)
        | tf.pad(parted, [[0, 1]], constant_values=True),
    )


def _resample(scores: tf.Tensor, wanted: tf.Tensor, height: tf.Tensor, across: Any) -> tf.Tensor:
    """The wanted rows of the resized scores, (rows, width, K)."""
    upper, lower, low = taps(wanted, tf.shape(scores)[0], height)
    rows = between(tf.gather(scores, upper), tf.gather(scores, lower), low[:, None, None])
    left, right, share = across
    return between(
        tf.gather(rows, left, axis=1), tf.gather(rows, right, axis=1), share[None, :, None]
    )


def between(first: tf.Tensor, second: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Linear, ``share`` of the second. Written so that what is larger at both ends never comes out
    smaller.
    """
    return first * (1 - share) + second * share


def compact_label_map(
    found: dict[str, tf.Tensor],
    size: tuple[Any, Any],
    height: Any,
    width: Any,
    wanted: tf.Tensor | None = None,
) -> tf.Tensor:
    """Labels int32 (height, width) of what ``protocol.compact_scores`` found in one image, for
    pixels of ``size``; of the ``wanted`` rows alone, int32 (rows), where these are given.
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
    scores: tf.Tensor,
    size: tuple[Any, Any],
    height: tf.Tensor,
    width: tf.Tensor,
    wanted: tf.Tensor | None = None,
) -> tf.Tensor:
    """``label_map`` of a small picture of ``size``, whose scores lie between those of patches (r,
    c, K): the same labels, while pixels of the small picture are worked out for classes alone that
    can be the best somewhere.
    """
    some = contenders(scores)
    small = scores_between_patches(tf.gather(scores, some, axis=-1), *size)
    return label_map(small, height, width, numbers=some, wanted=wanted)


def scores_between_patches(scores: tf.Tensor, height: Any, width: Any) -> tf.Tensor:
    """Scores of patches (r, c, K) -> of the pixels of a small picture (height, width, K)."""
    rows, columns, classes = tf.unstack(tf.shape(scores))
    left, right, share = taps(tf.range(width), columns, width)
    wide = between(
        tf.gather(scores, left, axis=1), tf.gather(scores, right, axis=1), share[None, :, None]
    )
    # What is large now is gone through once, by a product.
    upper, lower, low = taps(tf.range(height), rows, height)
    tall = between(tf.one_hot(upper, rows), tf.one_hot(lower, rows), low[:, None]) @ tf.reshape(
        wide, [rows, -1]
    )
    return tf.reshape(tall, [height, width, classes])


def contenders(scores: tf.Tensor) -> tf.Tensor:
    """The classes, in their order, that can be the best between some of the patches (r, c, K):
    int32 (n).

    Between four patches a class scores no more than in the best of the four, and no less than in
    the worst. So it never is the best there if another's worst is above its best.
    """
    best = worst = scores
    for axis in (0, 1):
        best, worst = (
            tf.maximum(best, next_along(best, axis)),
            tf.minimum(worst, next_along(worst, axis)),
        )
    reached = tf.reduce_max(worst, axis=-1, keepdims=True)
    can = best >= reached - 2 * ROUNDING * tf.abs(reached)  # it is interpolated twice
    return tf.cast(tf.where(tf.reduce_any(can, axis=[0, 1]))[:, 0], tf.int32)


SCORES = tf.TensorSpec([None, None, None], tf.float32)
ROWS = tf.TensorSpec([None, None], tf.float32)
OWNER = tf.TensorSpec([None, None], tf.int32)
SIDE = tf.TensorSpec([], tf.int32)

_label = tf.function(label_map, input_signature=[SCORES, SIDE, SIDE], autograph=False)
_label_owned = tf.function(label_map, input_signature=[ROWS, SIDE, SIDE, OWNER], autograph=False)
_label_patches = tf.function(
    lambda scores, h, w, height, width: label_map_of_patches(scores, (h, w), height, width),
    input_signature=[SCORES, *[SIDE] * 4],
    autograph=False,
)
_highest = tf.function(highest_scores, input_signature=[SCORES, SIDE, SIDE], autograph=False)
_between_patches = tf.function(
    scores_between_patches, input_signature=[SCORES, SIDE, SIDE], autograph=False
)
_enlarge = tf.function(score_map, input_signature=[SCORES, SIDE, SIDE], autograph=False)


class SmallScores(NamedTuple):
    """Scores of the pixels of a small picture, in the smallest form that holds them.

    rows: (h, w, K), one for each pixel; or, with ``owner`` int32 (h, w), (G, K), one for each
        group: pixel (y, x) has ``rows[owner[y, x]]``; or, with ``size`` (h, w) alone, (r, c, K),
        one for each patch, between which pixels lie.
    """

    rows: np.ndarray
    owner: np.ndarray | None = None
    size: tuple[int, int] | None = None

    def of_pixels(self) -> np.ndarray:
        """(h, w, K)."""
        check_process()
        if self.owner is not None:
            return self.rows[self.owner]
        return self.rows if self.size is None else _between_patches(self.rows, *self.size).numpy()

    def of_classes(self, numbers: Sequence[int]) -> "SmallScores":
        """Of the same pixels the scores of some classes, in that order."""
        return self._replace(rows=self.rows[..., list(numbers)])

    def labels(self, height: int, width: int) -> np.ndarray:
        """(height, width), uint8 where they fit."""
        check_process()
        if self.owner is not None:
            found = _label_owned(self.rows, height, width, self.owner)
        elif self.size is not None:
            found = _label_patches(self.rows, *self.size, height, width)
        else:
            found = _label(self.rows, height, width)
        return found.numpy().astype("uint8" if self.rows.shape[-1] <= 256 else "int32")

    def highest(self, height: int, width: int) -> np.ndarray:
        """Each class's highest among the pixels of (height, width), (K)."""
        return _highest(self.of_pixels(), height, width).numpy()

    def enlarged(self, height: int, width: int) -> np.ndarray:
        """(K, height, width)."""
        return _enlarge(self.of_pixels(), height, width).numpy().transpose(2, 0, 1)
