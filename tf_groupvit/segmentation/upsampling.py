"""Enlarge the scores of a small picture to labels, highest scores and score maps of the whole
image.

Bilinear, then arg max, first on ties. The enlarged scores never exist all at once: those of a
12-megapixel photo in 171 classes would take 8 GB. The same TensorFlow functions run in Python and
inside exported graphs, so both give the same labels.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_groupvit.models.base_model import check_process
from tf_groupvit.types import Tensor

STRIP = 1 << 20  # scores worked on at a time: 4 MB, which stays near the caches
BAND = 2**22  # pixels that are labeled at a time: while labels are found each takes some int32
OPEN = -1  # stands for a label that is not known yet
ROUNDING = 1e-6  # by how much of itself a score must be higher than another to count as higher
MOST_OPEN = 0.25  # the share of open pixels from which on it is cheaper to interpolate whole rows
SIDE = tf.TensorSpec([], tf.int32)
Taps = tuple[Tensor, Tensor, Tensor]


class LowResScores(NamedTuple):
    """Scores of the pixels of a small picture, in the smallest form that holds them.

    rows: float32 (h, w, K), one for each pixel; or, with ``owner`` int32 (h, w), (G, K), one for
        each group: pixel (y, x) has ``rows[owner[y, x]]``; or, with ``shares`` float32 (h, w, G)
        of the groups in each pixel, ``shares[y, x] @ rows``; or, with ``size`` (h, w) alone,
        (r, c, K), one for each patch, between which pixels are interpolated.

    They are tensors, or arrays; the methods that give arrays run functions of this module as
    graphs, traced once for every size.
    """

    rows: Tensor | np.ndarray
    owner: Tensor | np.ndarray | None = None
    size: Tensor | tuple[int, int] | None = None
    shares: Tensor | np.ndarray | None = None

    def of_image(self, number: Tensor | int) -> "LowResScores":
        """One image's of those of a batch; all but the size have a leading dimension (B)."""
        owner, shares = (
            None if part is None else part[number] for part in (self.owner, self.shares)
        )
        return LowResScores(self.rows[number], owner, self.size, shares)

    def of_classes(self, numbers: Sequence[int]) -> "LowResScores":
        """Of the same pixels the scores of some classes, in that order."""
        return self._replace(rows=self.rows[..., list(numbers)])

    def labels(self, height: int, width: int) -> np.ndarray:
        """Labels (height, width), uint8 where they fit."""
        wide = self.rows.shape[-1] > 256
        return self._run(label_map_wide if wide else label_map, height, width)

    def highest(self, height: int, width: int) -> np.ndarray:
        """Each class's highest score among the pixels of (height, width), (K)."""
        return self._run(highest_scores, height, width)

    def margins(self, height: int, width: int, logits: bool = False) -> np.ndarray:
        """By how much the best class of each pixel is ahead of the second, (height, width).

        Each pixel has the margin of the one of the small picture that it lies in.
        """
        small = self._run(logit_margins if logits else score_margins, height, width)
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new)
            for old, new in zip(small.shape, (height, width), strict=True)
        )
        return small[rows][:, columns]

    def enlarged(self, height: int, width: int) -> np.ndarray:
        """Scores (K, height, width)."""
        return self._run(score_map, height, width).transpose(2, 0, 1)

    def _run(self, function: Callable[..., Tensor], height: int, width: int) -> np.ndarray:
        check_process()
        parts = {
            name: np.asarray(part, KINDS[name].as_numpy_dtype)
            for name, part in self._asdict().items()
            if part is not None
        }
        graph = _graph_of(function, tuple((name, np.ndim(parts[name])) for name in parts))
        return graph(parts, height, width).numpy()


@cache
def _graph_of(
    function: Callable[..., Tensor], ranks: tuple[tuple[str, int], ...]
) -> Callable[..., Tensor]:
    """A function of ``LowResScores`` of one form, height and width as a graph for all sizes."""
    specs = {
        name: tf.TensorSpec([2] if name == "size" else [None] * rank, KINDS[name])
        for name, rank in ranks
    }
    return tf.function(
        lambda parts, *sides: function(LowResScores(**parts), *sides),
        input_signature=[specs, SIDE, SIDE],
        autograph=False,
    ).get_concrete_function()


KINDS = {"rows": tf.float32, "owner": tf.int32, "size": tf.int32, "shares": tf.float32}


def pixel_rows(scores: LowResScores) -> Tensor:
    """Scores of every pixel of the small picture, (h, w, K)."""
    if scores.owner is not None:
        return tf.gather(scores.rows, scores.owner)
    if scores.shares is not None:
        return scores.shares @ scores.rows
    return scores.rows if scores.size is None else between_patches(scores.rows, scores.size)


def score_margins(scores: LowResScores, *_: Tensor) -> Tensor:
    """Differences of the two highest scores, or of the only one to 0, of the pixels of the small
    picture, (h, w), at most 1.

    Where the next pixel to the right, or one of the two below these, has another best class, it is
    0: between the two their scores are equal.
    """
    if scores.owner is None:
        return _margins(pixel_rows(scores))
    return _margins(scores.rows, scores.owner)


def logit_margins(scores: LowResScores, *_: Tensor) -> Tensor:
    """``score_margins`` of the softmax of what are logits."""
    return _margins(tf.nn.softmax(pixel_rows(scores)))


def _margins(rows: Tensor, owner: Tensor | None = None) -> Tensor:
    best = _best(rows)
    highest = tf.one_hot(best, tf.shape(rows)[-1], on_value=True, off_value=False)
    second = tf.reduce_max(tf.where(highest, tf.zeros([]), rows), axis=-1)
    margins = tf.minimum(tf.reduce_max(rows, axis=-1) - second, 1.0)  # refined ones overshoot
    if owner is not None:
        best, margins = tf.gather(best, owner), tf.gather(margins, owner)
    return tf.where(_same_in_four(best) == OPEN, tf.zeros([]), margins)


def score_map(scores: LowResScores, height: Tensor, width: Tensor) -> Tensor:
    """Scores (height, width, K) of all pixels at once, to be shown."""
    small = pixel_rows(scores)
    across = interpolation_taps(tf.range(width), tf.shape(small)[1], width)
    return _resample(small, tf.range(height), height, across)


def label_map_wide(scores: LowResScores, height: Tensor, width: Tensor) -> Tensor:
    """``label_map`` for more than 256 classes: int32 (height, width)."""
    return label_map(scores, height, width, tf.int32)


def label_map(
    scores: LowResScores, height: Tensor, width: Tensor, dtype: tf.DType = tf.uint8
) -> Tensor:
    """Labels (height, width), one band of rows after the other.

    A pixel lies between four of the small picture. A class that is the best of all four is the best
    between them, too, and rounding does not change the order. So only pixels along the borders of
    classes have to be interpolated. Of scores of patches, pixels of the small picture are worked
    out for those classes alone that can be the best somewhere.
    """
    rows, owner, classes = scores.rows, scores.owner, None
    if scores.shares is not None:
        rows = pixel_rows(scores)
    if scores.size is not None:
        classes = candidate_classes(rows)
        rows = between_patches(tf.gather(rows, classes, axis=-1), scores.size)

    def numbered(best: Tensor) -> Tensor:
        return best if classes is None else tf.gather(classes, best)

    best = numbered(_best(rows))
    same = _same_in_four(best if owner is None else tf.gather(best, owner))
    small_height, small_width = tf.unstack(tf.shape(same))
    across = interpolation_taps(tf.range(width), small_width, width)

    def band(wanted: Tensor) -> Tensor:
        down = interpolation_taps(wanted, small_height, height)
        labels = tf.gather(tf.gather(same, across[0], axis=1), down[0])  # faster than by pixel
        still_open = tf.cast(tf.where(tf.reshape(labels, [-1]) == OPEN), tf.int32)  # (pixels, 1)
        share = tf.cast(tf.size(still_open), tf.float32) / tf.cast(tf.size(labels), tf.float32)

        def whole_rows() -> Tensor:
            small = rows if owner is None else tf.gather(rows, owner)
            return numbered(_labels_by_strips(small, wanted, height, across))

        def borders() -> Tensor:
            found = _labels_of(still_open[:, 0], rows, owner, small_width, down, across)
            flat = tf.reshape(labels, [-1])
            filled = tf.tensor_scatter_nd_update(flat, still_open, numbered(found))
            return tf.reshape(filled, tf.shape(labels))

        return tf.cast(tf.cond(share > MOST_OPEN, whole_rows, borders), dtype)

    return by_bands(band, height, width, dtype)


def by_bands(
    label: Callable[[Tensor], Tensor], height: Tensor, width: Tensor, dtype: tf.DType
) -> Tensor:
    """Labels (height, width) of ``label(rows)``, int32 (n) -> (n, width), band by band."""
    rows = tf.maximum(BAND // width, 1)
    count = (height + rows - 1) // rows

    def step(i: Tensor, bands: tf.TensorArray) -> tuple[Tensor, tf.TensorArray]:
        return i + 1, bands.write(i, label(tf.range(i * rows, tf.minimum((i + 1) * rows, height))))

    bands = tf.TensorArray(dtype, count, infer_shape=False, element_shape=[None, None])
    done = tf.while_loop(lambda i, _: i < count, step, (0, bands), parallel_iterations=1)
    return done[1].concat()


def highest_scores(scores: LowResScores, height: Tensor, width: Tensor) -> Tensor:
    """The highest score that each class has in any pixel of (height, width), (K), within rounding.

    Between four pixels of the small picture scores are linear along rows and along columns, so that
    the highest lies in the first or in the last row there, and in the first or in the last column.
    No row is above the two small ones that it lies between: those that cannot be above what was
    found around the small picture's highest are left out, too.
    """
    small = pixel_rows(scores)
    small_height, small_width = tf.unstack(tf.shape(small)[:2])
    rows, columns = _ends(small_height, height), _ends(small_width, width)
    across = interpolation_taps(columns, small_width, width)
    upper, lower, _ = interpolation_taps(rows, small_height, height)
    most = tf.reduce_max(small, axis=1)  # (h, K)
    bound = tf.maximum(tf.gather(most, upper), tf.gather(most, lower))  # (rows, K)
    below = tf.searchsorted(
        upper, tf.argmax(most, axis=0, output_type=tf.int32)
    )  # of each class, (K)
    around = tf.clip_by_value(tf.concat([below - 1, below], axis=0), 0, tf.size(rows) - 1)
    found = _highest_of(small, tf.gather(rows, tf.unique(around)[0]), height, across)
    promising = tf.reduce_any(bound - found > ROUNDING * tf.abs(bound), axis=1)
    others = tf.gather(rows, _where(promising))
    return tf.maximum(found, _highest_of(small, others, height, across))


def _highest_of(small: Tensor, rows: Tensor, height: Tensor, across: Taps) -> Tensor:
    """The highest that each class has in some rows of the enlarged scores, (K)."""
    count, strip = _strips(small, rows, height, across)

    def step(index: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        return index + 1, tf.maximum(highest, tf.reduce_max(strip(index), axis=[0, 1]))

    start = (0, tf.fill([tf.shape(small)[2]], small.dtype.min))
    return tf.while_loop(lambda index, _: index < count, step, start, parallel_iterations=1)[1]


def _best(scores: Tensor) -> Tensor:
    """The first best class, (..., K) -> int32 (...).

    TensorFlow does not say which of equals its argmax gives, but its kernel takes the first, and a
    test checks that. To look for the first among the highest would take two more passes over the
    scores.
    """
    return tf.argmax(scores, axis=-1, output_type=tf.int32)


def _same_in_four(best: Tensor) -> Tensor:
    """Where a pixel and its neighbors right and below have one class (h, w): it; else ``OPEN``."""
    right, below = shift(best, 1), shift(best, 0)
    return tf.where((best == right) & (best == below) & (best == shift(below, 1)), best, OPEN)


def shift(values: Tensor, axis: int) -> Tensor:
    """Move (h, w, ...) by one place along axis 0 or 1; the last place keeps its value."""
    rest, last = (values[1:], values[-1:]) if axis == 0 else (values[:, 1:], values[:, -1:])
    return tf.concat([rest, last], axis)


def _labels_of(
    pixels: Tensor, rows: Tensor, owner: Tensor | None, columns: Tensor, down: Taps, across: Taps
) -> Tensor:
    """The labels of pixels given by number (n), row by row; the small picture has ``columns``."""
    width, classes = tf.size(across[0]), tf.shape(rows)[-1]
    flat, at_once = tf.reshape(rows, [-1, classes]), tf.maximum(STRIP // classes, 1)
    owners = None if owner is None else tf.reshape(owner, [-1])
    count = (
        tf.size(pixels) // at_once + 1
    )  # the last may be empty; at least one, since nothing cannot be joined

    def part(index: Tensor) -> Tensor:
        some = pixels[index * at_once : (index + 1) * at_once]
        upper, lower, low = (tf.gather(tap, some // width) for tap in down)
        left, right, share = (tf.gather(tap, some % width) for tap in across)

        def small(place: Tensor) -> Tensor:
            return tf.gather(flat, place if owners is None else tf.gather(owners, place))

        def column(x: Tensor) -> Tensor:
            return lerp(small(upper * columns + x), small(lower * columns + x), low[:, None])

        return _best(lerp(column(left), column(right), share[:, None]))

    return _joined(count, part)


def _labels_by_strips(small: Tensor, wanted: Tensor, height: Tensor, across: Taps) -> Tensor:
    """The labels of all pixels of the wanted rows, each interpolated: int32 (rows, width)."""
    count, strip = _strips(small, wanted, height, across)
    flat = _joined(count, lambda index: tf.reshape(_best(strip(index)), [-1]))
    return tf.reshape(flat, [tf.size(wanted), -1])


def _joined(count: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
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
    small: Tensor, rows: Tensor, height: Tensor, across: Taps
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """How many strips the wanted rows take, and a function that makes one, (rows, columns, K)."""
    at_once = tf.maximum(STRIP // (tf.size(across[0]) * tf.shape(small)[2]), 1)
    count = (tf.size(rows) + at_once - 1) // at_once
    return count, lambda i: _resample(small, rows[i * at_once : (i + 1) * at_once], height, across)


def _resample(small: Tensor, wanted: Tensor, height: Tensor, across: Taps) -> Tensor:
    """The wanted rows of the resized scores, (rows, columns, K)."""
    upper, lower, low = interpolation_taps(wanted, tf.shape(small)[0], height)
    rows = lerp(tf.gather(small, upper), tf.gather(small, lower), low[:, None, None])
    left, right, share = across
    return lerp(tf.gather(rows, left, axis=1), tf.gather(rows, right, axis=1), share[None, :, None])


def interpolation_taps(wanted: Tensor, old: Tensor, new: Tensor) -> Taps:
    """For each wanted new pixel (n) its two old neighbors and the weight of the second, (n) each.

    Source: PyTorch's interpolate with align_corners=False.
    """
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    place = tf.maximum((tf.cast(wanted, tf.float32) + 0.5) * scale - 0.5, 0.0)
    first = tf.minimum(tf.cast(place, tf.int32), old - 1)
    return first, tf.minimum(first + 1, old - 1), place - tf.cast(first, tf.float32)


def _ends(old: Tensor, new: Tensor) -> Tensor:
    """Of the new pixels that lie between the same two old ones, the first and the last."""
    first = interpolation_taps(tf.range(new), old, new)[0]
    parted = first[1:] != first[:-1]
    return _where(
        tf.pad(parted, [[1, 0]], constant_values=True)
        | tf.pad(parted, [[0, 1]], constant_values=True)
    )


def _where(mask: Tensor) -> Tensor:
    """The numbers of places (n) where there is True, int32; ``boolean_mask`` is ten operations."""
    return tf.cast(tf.where(mask)[:, 0], tf.int32)


def lerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Interpolate linearly, ``share`` of the second; all of one shape, or broadcast.

    Written so that what is larger at both ends never comes out smaller.
    """
    return first * (1 - share) + second * share


def between_patches(scores: Tensor, size: Tensor | tuple[int, int]) -> Tensor:
    """Scores of patches (r, c, K) -> of the pixels of a small picture of ``size``, (h, w, K)."""
    (rows, columns, classes), (height, width) = tf.unstack(tf.shape(scores)), tf.unstack(size)
    left, right, share = interpolation_taps(tf.range(width), columns, width)
    wide = lerp(
        tf.gather(scores, left, axis=1), tf.gather(scores, right, axis=1), share[None, :, None]
    )
    # By a matrix product, which passes once over what is large by now.
    upper, lower, low = interpolation_taps(tf.range(height), rows, height)
    tall = lerp(tf.one_hot(upper, rows), tf.one_hot(lower, rows), low[:, None])
    return tf.reshape(tall @ tf.reshape(wide, [rows, -1]), [height, width, classes])


def candidate_classes(scores: Tensor) -> Tensor:
    """The classes that can be the best between some of the patches (r, c, K): int32 (n), in order.

    Between four patches a class scores no more than in the best of the four, and no less than in
    the worst. So it never is the best there if another's worst is above its best.
    """
    best = worst = scores
    for axis in (0, 1):
        best, worst = tf.maximum(best, shift(best, axis)), tf.minimum(worst, shift(worst, axis))
    reached = tf.reduce_max(worst, axis=-1, keepdims=True)
    can = best >= reached - 2 * ROUNDING * tf.abs(reached)  # it is interpolated twice
    return _where(tf.reduce_any(can, axis=[0, 1]))
