"""Encoded images or pixels (B) to masks, scores and areas, with what the vision tower says of each:
in the graph.

Images are labelled one by one, each with its own classes and at its own size, so that nothing in a
batch depends on its neighbours; only the vision tower sees them together.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_groupvit.export.input_checks import some_row_valid
from tf_groupvit.preprocessing.image_graph import (
    encode_mask,
    read_header,
    read_pixels,
    resize_bicubic,
    rows_come_first,
    to_pixel_values,
)
from tf_groupvit.preprocessing.image_graph_bytes import Header, upright
from tf_groupvit.preprocessing.image_graph_formats import JPEG
from tf_groupvit.segmentation.pixels import squares, window_scores
from tf_groupvit.segmentation.protocol import Groups, compact_scores, group_scores, read_groups
from tf_groupvit.segmentation.settings import Settings
from tf_groupvit.segmentation.upsampling import (
    compact_label_map,
    highest_scores,
    label_map,
    small_picture,
)

AT_ONCE = 4  # images of a request that are decoded side by side
LARGE = (
    2**24
    # pixels from which on images take turns: of the largest that are read, each takes 270 MB as
    # bytes
)


class Looking:
    """The vision side of one model under one setting; each part is traced once, for all signatures."""

    def __init__(self, model: Any, settings: Settings) -> None:
        self.settings = settings
        specs = {
            "groups": tf.TensorSpec(
                [None, model.config.vision_config.num_channels, None, None], tf.float32
            ),
            "squares_of": tf.TensorSpec([None, None, None, 3], tf.uint8),
            "see": (tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.string)),
        }

        def groups(pixel_values: tf.Tensor) -> Groups:
            found = read_groups(model, pixel_values)
            return Groups.of(**{**found, "maps": found["maps"][-1:]})

        def squares_of(pixels: tf.Tensor) -> Groups:
            small = tf.map_fn(
                lambda image: squares(image, settings),
                pixels,
                fn_output_signature=self._square,
                parallel_iterations=AT_ONCE,
            )
            return self.groups(self.pixel_values(small))

        self.groups = tf.function(groups, input_signature=[specs["groups"]], autograph=False)
        self.whole = tf.function(squares_of, input_signature=[specs["squares_of"]], autograph=False)
        self.see = tf.function(self._see, input_signature=specs["see"], autograph=False)

    @property
    def _square(self) -> tf.TensorSpec:
        return tf.TensorSpec((*self.settings.size, 3), tf.uint8)

    def pixel_values(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 (B, H, W, 3) -> (B, 3, H, W)."""
        return to_pixel_values(pixels, self.settings.mean, self.settings.std)

    def _see(self, image_bytes: tf.Tensor, words: tf.Tensor) -> tuple[Groups, tf.Tensor, tf.Tensor]:
        """Encoded images (B) as mode whole sees them -> groups, (H, W) of each image, int32 (B, 2),
        and words (B).

        Args:
            words: what is wrong with a row already, "" where nothing is; such an image is not
                decoded. The result adds why an image cannot be read. Where something is wrong, (H,
                W) is (0, 0).
        """

        def one(given: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            head = header_of(*given)

            def look() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                halvings = _halvings(head, self.settings.size)
                said, pixels = read_pixels(head, halvings)
                nothing = (tf.zeros(self._square.shape, tf.uint8), tf.zeros([2], tf.int32))
                found = tf.cond(
                    said == "",
                    lambda: _turned_square(head, pixels, halvings, self._square),
                    lambda: nothing,
                )
                return *found, said

            return in_turn(to_decode(head), look)

        signature = (self._square, tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.string))
        given = (image_bytes, words)
        small, sizes, words = tf.map_fn(
            one, given, fn_output_signature=signature, parallel_iterations=AT_ONCE
        )
        return self.groups(self.pixel_values(some_row_valid(words, small))), sizes, words


def _halvings(head: Header, size: tuple[int, int]) -> tf.Tensor:
    """How many times a large JPEG is halved while it is decoded: still four times as high and wide
    as what is seen.
    """
    is_large = (tf.reduce_prod(head.size) > LARGE) & (head.format == JPEG)
    spare = tf.reduce_min(head.size) // (4 * max(size))
    return tf.where(is_large, tf.reduce_sum(tf.cast(spare >= [2, 4, 8], tf.int32)), 0)


def _turned_square(
    head: Header, pixels: tf.Tensor, halvings: tf.Tensor, square: tf.TensorSpec
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels as they are stored -> what the model sees, and (H, W) of the image; what is small is
    turned, not all.
    """
    height, width, _ = square.shape
    H, W = tf.unstack(tf.cast(head.size, tf.int32))
    swapped = (
        head.orientation > 4
    )  # rows are columns then, and the order of the passes is that of the turned image
    wanted = tf.where(swapped, tf.constant([width, height]), [height, width])
    first = tf.where(
        swapped, ~rows_come_first(W, H, height, width), rows_come_first(H, W, height, width)
    )
    covered = tf.cast(head.size, tf.float32) / tf.cast(2**halvings, tf.float32)
    small = upright(resize_bicubic(pixels, wanted[0], wanted[1], covered, first), head.orientation)
    return tf.ensure_shape(small, square.shape), tf.where(
        swapped, tf.stack([W, H]), tf.stack([H, W])
    )


def header_of(contents: tf.Tensor, words: tf.Tensor) -> Header:
    """The header of one image; its words are those that are there already, if there are any."""
    head = read_header(contents)
    return head._replace(error=tf.where(words == "", head.error, words))


def to_decode(head: Header) -> tf.Tensor:
    """How many pixels will be decoded, int64."""
    return tf.where(head.error == "", tf.reduce_prod(head.size), 0)


def in_turn(pixels: tf.Tensor, make: Callable[[], Any]) -> Any:
    """``make()``; of images of more than ``LARGE`` pixels, one at a time in the whole model,
    whoever asks.
    """

    def lock() -> tf.Tensor:
        return tf.raw_ops.MutexLock(mutex=tf.raw_ops.MutexV2(shared_name="large_images"))

    def no_lock() -> tf.Tensor:
        return tf.raw_ops.EmptyTensorList(
            element_shape=tf.constant(-1), max_num_elements=0, element_dtype=tf.int32
        )

    def free() -> tf.Tensor:
        with tf.control_dependencies([tf.raw_ops.ConsumeMutexLock(mutex_lock=held)]):
            return tf.constant(True)

    held = tf.cond(pixels > LARGE, lock, no_lock)
    with tf.control_dependencies([held]):
        made = make()
    with tf.control_dependencies(tf.nest.flatten(made)):
        freed = tf.cond(pixels > LARGE, free, lambda: tf.constant(True))
    with tf.control_dependencies([freed]):
        return tf.nest.map_structure(tf.identity, made)


TextsOf = Callable[[tf.Tensor], tf.Tensor]  # number of an image -> embeddings of its classes (N, D)
Labelled = tuple[
    tf.Tensor, tf.Tensor
]  # labels uint8 (H, W), and the highest score of each class (K)
Row = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]  # of an answer: mask, scores, areas, words
PIXELS = tf.TensorSpec([None, None, 3], tf.uint8)
SIDE = tf.TensorSpec([], tf.int32)
BAND = 2**22  # pixels that are labelled at a time


class Labelling:
    """From groups and classes to labels, under one setting; each part is traced once, for all
    signatures.
    """

    def __init__(self, looking: Looking, settings: Settings, width: int) -> None:
        self.looking, self.settings = looking, settings
        self.texts = tf.TensorSpec([None, width], tf.float32)
        groups = looking.groups.get_concrete_function().structured_outputs
        one = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), groups)
        self._whole = tf.function(
            self._label_whole, input_signature=[one, self.texts, SIDE, SIDE], autograph=False
        )
        self._window = tf.function(
            self._label_window, input_signature=[PIXELS, self.texts], autograph=False
        )

    def _label_whole(
        self, groups: Groups, texts: tf.Tensor, height: tf.Tensor, width: tf.Tensor
    ) -> Labelled:
        """Groups of one image, (1, ...), to labels (height, width)."""
        size = self.settings.size
        found = compact_scores(
            groups, texts, *size, self.settings.protocol, self.settings.background
        )
        one = {name: values[0] for name, values in found.items()}
        labels = _by_bands(
            lambda rows: compact_label_map(one, size, height, width, rows), height, width
        )
        return labels, highest_scores(small_picture(one, size), height, width)

    def _label_window(self, pixels: tf.Tensor, texts: tf.Tensor) -> Labelled:
        def score(cut: tf.Tensor) -> tf.Tensor:
            groups, shape = self.looking.groups(self.looking.pixel_values(cut)), tf.shape(cut)
            return group_scores(
                groups, texts, shape[1], shape[2], self.settings.protocol, self.settings.background
            )

        scores, (height, width) = (
            window_scores(score, pixels, self.settings),
            tf.unstack(tf.shape(pixels)[:2]),
        )
        labels = _by_bands(
            lambda rows: label_map(scores, height, width, wanted=rows), height, width
        )
        return labels, highest_scores(scores, height, width)

    def images(
        self, image_bytes: tf.Tensor, texts_of: TextsOf, longest: Any, words: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Encoded images (B) -> ``mask_bytes`` and ``error`` (B), ``class_scores`` and
        ``class_areas`` (B, longest).

        Args:
            words: (B) what is wrong with a row already; ``error`` has these, and why an image
                cannot be read.
        """
        if self.settings.mode == "window":
            at_once = 1

            def one(i: tf.Tensor) -> Row:
                head = header_of(image_bytes[i], words[i])

                def read_and_label() -> Row:
                    said, pixels = read_pixels(head)
                    return _answered(
                        said,
                        lambda: self._window(upright(pixels, head.orientation), texts_of(i)),
                        longest,
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
        none = (
            tf.constant([], tf.string),
            tf.zeros([0, longest]),
            tf.zeros([0, longest]),
            tf.constant([], tf.string),
        )
        found = _each(tf.shape(image_bytes)[0], one, kinds, none, at_once)
        answer = dict(
            zip(("mask_bytes", "class_scores", "class_areas", "error"), found, strict=True)
        )
        return answer | {"error": some_row_valid(answer["error"], answer["error"])}

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
        return (
            encode_mask(labels),
            _padded(best, longest),
            _padded(_areas(labels, tf.size(best)), longest),
            words,
        )

    return tf.cond(
        words == "",
        well,
        lambda: (tf.constant(""), tf.zeros([longest]), tf.zeros([longest]), words),
    )


def _by_bands(
    label: Callable[[tf.Tensor], tf.Tensor], height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Labels uint8 (height, width), of ``label(rows)`` int32 (rows, width): a band of rows after
    the other.

    While labels are found they take several times four bytes a pixel.
    """
    rows = tf.maximum(BAND // width, 1)
    count = (height + rows - 1) // rows

    def step(i: tf.Tensor, bands: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        wanted = tf.range(i * rows, tf.minimum((i + 1) * rows, height))
        return i + 1, bands.write(i, tf.cast(label(wanted), tf.uint8))

    bands = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None])
    return tf.while_loop(lambda i, _: i < count, step, (0, bands), parallel_iterations=1)[
        1
    ].concat()


def _areas(labels: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The fraction of the pixels (H, W) that each class has, (K); counted in whole numbers, then
    divided.
    """
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


def _each(
    count: tf.Tensor, one: Callable[[tf.Tensor], Any], kinds: Any, none: Any, at_once: int
) -> Any:
    """``one(i)`` for every number below ``count``, stacked; ``none`` where there is not one, and so
    no size known.
    """
    return tf.cond(
        count > 0,
        lambda: tf.map_fn(
            one, tf.range(count), fn_output_signature=kinds, parallel_iterations=at_once
        ),
        lambda: none,
    )
