"""Images (B) and the classes of each in; a mask, scores and areas for each out: in the graph.

Images are labelled one by one, each with its own classes and at its own size, so that nothing in a batch depends on
its neighbours; only the vision tower sees them together.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_groupvit.export.arriving import some_well
from tf_groupvit.export.looking import AT_ONCE, Looking, header_of, in_turn, to_decode
from tf_groupvit.preprocessing.image_graph import encode_mask, read_pixels
from tf_groupvit.preprocessing.image_graph_exif import upright
from tf_groupvit.segmentation.pixels import window_scores
from tf_groupvit.segmentation.protocol import Groups, compact_scores, group_scores
from tf_groupvit.segmentation.settings import Settings
from tf_groupvit.segmentation.upsampling import compact_label_map, highest_scores, label_map, small_picture

TextsOf = Callable[[tf.Tensor], tf.Tensor]  # number of an image -> embeddings of its classes (N, D)
Labelled = tuple[tf.Tensor, tf.Tensor]  # labels uint8 (H, W), and the highest score of each class (K)
Row = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]  # of an answer: mask, scores, areas, words
PIXELS = tf.TensorSpec([None, None, 3], tf.uint8)
SIDE = tf.TensorSpec([], tf.int32)
BAND = 2**22  # pixels that are labelled at a time


class Labelling:
    """From groups and classes to labels, under one setting; each part is traced once, for all signatures."""

    def __init__(self, looking: Looking, settings: Settings, width: int) -> None:
        self.looking, self.settings = looking, settings
        self.texts = tf.TensorSpec([None, width], tf.float32)
        groups = looking.groups.get_concrete_function().structured_outputs
        one = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), groups)
        self._whole = tf.function(self._label_whole, input_signature=[one, self.texts, SIDE, SIDE], autograph=False)
        self._window = tf.function(self._label_window, input_signature=[PIXELS, self.texts], autograph=False)

    def _label_whole(self, groups: Groups, texts: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> Labelled:
        """Groups of one image, (1, ...), to labels (height, width)."""
        size = self.settings.size
        found = compact_scores(groups, texts, *size, self.settings.protocol, self.settings.background)
        one = {name: values[0] for name, values in found.items()}
        labels = _by_bands(lambda rows: compact_label_map(one, size, height, width, rows), height, width)
        return labels, highest_scores(small_picture(one, size), height, width)

    def _label_window(self, pixels: tf.Tensor, texts: tf.Tensor) -> Labelled:
        def score(cut: tf.Tensor) -> tf.Tensor:
            groups, shape = self.looking.groups(self.looking.pixel_values(cut)), tf.shape(cut)
            return group_scores(groups, texts, shape[1], shape[2], self.settings.protocol, self.settings.background)

        scores, (height, width) = window_scores(score, pixels, self.settings), tf.unstack(tf.shape(pixels)[:2])
        labels = _by_bands(lambda rows: label_map(scores, height, width, wanted=rows), height, width)
        return labels, highest_scores(scores, height, width)

    def images(self, image_bytes: tf.Tensor, texts_of: TextsOf, longest: Any, words: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encoded images (B) -> ``mask_bytes`` and ``error`` (B), ``class_scores`` and ``class_areas`` (B, longest).

        Args:
            words: (B) what is wrong with a row already; ``error`` has these, and why an image cannot be read.
        """
        if self.settings.mode == "window":
            at_once = 1

            def one(i: tf.Tensor) -> Row:
                head = header_of(image_bytes[i], words[i])

                def read_and_label() -> Row:
                    said, pixels = read_pixels(head)
                    return _answered(
                        said, lambda: self._window(upright(pixels, head.orientation), texts_of(i)), longest
                    )

                return in_turn(to_decode(head), read_and_label)

        else:
            at_once = AT_ONCE
            groups, sizes, said = self.looking.see(image_bytes, words)

            def one(i: tf.Tensor) -> Row:
                def label() -> Labelled:
                    return self._whole(_row(groups, i), texts_of(i), sizes[i, 0], sizes[i, 1])

                pixels = tf.reduce_prod(tf.cast(sizes[i], tf.int64))
                return in_turn(pixels, lambda: _answered(said[i], label, longest))

        row = tf.TensorSpec([longest if isinstance(longest, int) else None], tf.float32)
        kinds = (tf.TensorSpec([], tf.string), row, row, tf.TensorSpec([], tf.string))
        none = (tf.constant([], tf.string), tf.zeros([0, longest]), tf.zeros([0, longest]), tf.constant([], tf.string))
        found = _each(tf.shape(image_bytes)[0], one, kinds, none, at_once)
        answer = dict(zip(("mask_bytes", "class_scores", "class_areas", "error"), found, strict=True))
        return answer | {"error": some_well(answer["error"], answer["error"])}

    def pixels(self, pixels: tf.Tensor, texts: tf.Tensor) -> tf.Tensor:
        """uint8 (B, H, W, 3) -> labels uint8 (B, H, W)."""
        height, width = tf.shape(pixels)[1], tf.shape(pixels)[2]
        if self.settings.mode == "window":
            one, at_once = (lambda i: self._window(pixels[i], texts)[0]), 1
        else:
            groups, at_once = self.looking.whole(pixels), AT_ONCE
            one = lambda i: self._whole(_row(groups, i), texts, height, width)[0]  # noqa: E731
        kind, none = tf.TensorSpec([None, None], tf.uint8), tf.zeros([0, height, width], tf.uint8)
        return _each(tf.shape(pixels)[0], one, kind, none, at_once)


def _answered(words: tf.Tensor, label: Callable[[], Labelled], longest: Any) -> Row:
    """The row of one image: its mask, scores and areas, padded, or words and nothing else."""

    def well() -> Row:
        labels, best = label()
        return encode_mask(labels), _padded(best, longest), _padded(_areas(labels, tf.size(best)), longest), words

    return tf.cond(words == "", well, lambda: (tf.constant(""), tf.zeros([longest]), tf.zeros([longest]), words))


def _by_bands(label: Callable[[tf.Tensor], tf.Tensor], height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Labels uint8 (height, width), of ``label(rows)`` int32 (rows, width): a band of rows after the other.

    While labels are found they take several times four bytes a pixel.
    """
    rows = tf.maximum(BAND // width, 1)
    count = (height + rows - 1) // rows

    def step(i: tf.Tensor, bands: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        wanted = tf.range(i * rows, tf.minimum((i + 1) * rows, height))
        return i + 1, bands.write(i, tf.cast(label(wanted), tf.uint8))

    bands = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None])
    return tf.while_loop(lambda i, _: i < count, step, (0, bands), parallel_iterations=1)[1].concat()


def _areas(labels: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The fraction of the pixels (H, W) that each class has, (K); counted in whole numbers, then divided."""
    flat = tf.reshape(labels, [-1])

    def step(at: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        some = tf.cast(flat[at : at + BAND], tf.int32)
        return at + BAND, found + tf.math.bincount(some, minlength=count, maxlength=count)

    start = (0, tf.zeros([count], tf.int32))
    pixels = tf.while_loop(lambda at, _: at < tf.size(flat), step, start, parallel_iterations=1)[1]
    return tf.cast(tf.cast(pixels, tf.float64) / tf.cast(tf.size(labels), tf.float64), tf.float32)


def _padded(values: tf.Tensor, longest: Any) -> tf.Tensor:
    return tf.pad(values, [[0, longest - tf.size(values)]])


def _row(groups: Groups, i: tf.Tensor) -> Groups:
    """The groups of one image, its leading dimension kept; the scale has none."""
    return tf.nest.map_structure(lambda t: t[i : i + 1] if t.shape.rank else t, groups)


def _each(count: tf.Tensor, one: Callable[[tf.Tensor], Any], kinds: Any, none: Any, at_once: int) -> Any:
    """``one(i)`` for every number below ``count``, stacked; ``none`` where there is not one, and so no size known."""
    return tf.cond(
        count > 0,
        lambda: tf.map_fn(one, tf.range(count), fn_output_signature=kinds, parallel_iterations=at_once),
        lambda: none,
    )
