"""Encoded images to PNG masks, scores and areas, row by row, as a graph for exported signatures.

Between decoding and PNG everything is ``segmentation/pipeline.py``.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_groupvit.export.input_checks import some_row_valid
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image_graph import (
    encode_mask,
    read_header,
    read_pixels,
    rows_come_first,
)
from tf_groupvit.preprocessing.image_graph_bytes import Header, upright
from tf_groupvit.preprocessing.image_graph_formats import JPEG
from tf_groupvit.segmentation.pipeline import (
    AT_ONCE,
    PICTURE,
    class_areas,
    encode_pixels,
    encode_values,
    for_each,
    label_batch,
    resize_to_square,
    score_squares,
    score_windows,
    thresholds_of,
)
from tf_groupvit.segmentation.protocol import Groups
from tf_groupvit.segmentation.settings import Settings
from tf_groupvit.segmentation.upsampling import SIDE, LowResScores, highest_scores, label_map
from tf_groupvit.types import Tensor

# Pixels from which on images take turns: of the largest that are read, each takes 270 MB as bytes.
LARGE = 2**24
TextsOf = Callable[[Tensor], Tensor]  # number of an image -> embeddings of its classes (N, D)
Labeled = tuple[Tensor, Tensor]  # labels uint8 (H, W), and the highest score of each class (K)
Row = tuple[Tensor, Tensor, Tensor, Tensor]  # of an answer: mask, scores, areas, words


class SegmentGraph:
    """One model under one setting, from encoded images on; each part is traced once, for all
    signatures.

    width: D, that of class embeddings.
    """

    def __init__(self, model: TFGroupViTModel, settings: Settings, width: int) -> None:
        self._model, self.settings = model, settings
        self.square = tf.TensorSpec((*settings.size, 3), tf.uint8)
        squares, texts = (
            tf.TensorSpec((None, *settings.size, 3), tf.uint8),
            tf.TensorSpec([None, width], tf.float32),
        )
        strings = tf.TensorSpec([None], tf.string)

        def image_tower(pixels: Tensor) -> Groups:
            return _last_stage(encode_pixels(model, settings, pixels))

        self.groups_of = tf.function(image_tower, input_signature=[squares], autograph=False)
        groups = self.groups_of.get_concrete_function().structured_outputs
        groups = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), groups)
        self._read = tf.function(
            self._read_squares, input_signature=[strings, strings], autograph=False
        )
        self._whole = tf.function(
            self._label_square,
            input_signature=[groups, squares, texts, SIDE, SIDE],
            autograph=False,
        )
        self._window = tf.function(
            self._label_windows, input_signature=[PICTURE, texts], autograph=False
        )

    def groups_of_values(self, pixel_values: Tensor) -> Groups:
        """Normalized pixels (B, 3, H, W) -> their groups, of the last stage."""
        return _last_stage(encode_values(self._model, None, pixel_values))

    def see(self, image_bytes: Tensor, words: Tensor) -> tuple[Groups, Tensor, Tensor, Tensor]:
        """Decode images (B) and look at them whole.

        -> their groups, the squares uint8 (B, S, S, 3), (H, W) of each image, int32 (B, 2), and
        words (B).

        The request is refused here and in no function that this calls: a refusal inside cancels
        what else the request runs, and the caller could be told of that in place of the reason.

        Args:
            words: what is wrong with a row already, "" where nothing is; such an image is not
                decoded. The result adds why an image cannot be read. Where something is wrong, (H,
                W) is (0, 0).
        """
        squares, sizes, words = self._read(image_bytes, words)
        squares = some_row_valid(words, squares)
        return self.groups_of(squares), squares, sizes, words

    def _read_squares(self, image_bytes: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Squares, sizes and words, as ``see`` gives them."""

        def one(given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            head = header_of(*given)

            def look() -> tuple[Tensor, Tensor, Tensor]:
                halvings = _halvings(head, self.settings.size)
                said, pixels = read_pixels(head, halvings)
                nothing = (tf.zeros(self.square.shape, tf.uint8), tf.zeros([2], tf.int32))
                found = tf.cond(
                    said == "",
                    lambda: turned_square(self.settings.size, head, pixels, halvings),
                    lambda: nothing,
                )
                return *found, said

            return in_turn(pixels_to_decode(head), look)

        signature = (self.square, tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.string))
        return tf.map_fn(
            one,
            (image_bytes, words),
            fn_output_signature=signature,
            parallel_iterations=AT_ONCE,
        )

    def _label_square(
        self, groups: Groups, squares: Tensor, texts: Tensor, height: Tensor, width: Tensor
    ) -> Labeled:
        """Groups and square of one image, each (1, ...), to labels (height, width)."""
        thresholds = thresholds_of(self.settings)
        scores = score_squares(groups, self.settings, squares, texts, thresholds)
        return _labeled(scores.of_image(0), height, width)

    def _label_windows(self, pixels: Tensor, texts: Tensor) -> Labeled:
        """An image (H, W, 3) to labels (H, W), by windows."""
        height, width = tf.unstack(tf.shape(pixels)[:2])
        thresholds = thresholds_of(self.settings)
        rows = score_windows(self._model, self.settings, pixels, texts, thresholds)
        return _labeled(LowResScores(rows), height, width)

    def pixels(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """Label pixels uint8 (B, H, W, 3): -> uint8 (B, H, W)."""
        return label_batch(self._model, self.settings, pixels, texts)

    def images(
        self, image_bytes: Tensor, texts_of: TextsOf, longest: Tensor | int, words: Tensor
    ) -> dict[str, Tensor]:
        """Label encoded images (B).

        -> ``mask_bytes`` and ``error`` (B), ``class_scores`` and ``class_areas`` (B, longest).

        Args:
            words: (B) what is wrong with a row already; ``error`` has these, and why an image
                cannot be read.
        """
        if self.settings.mode == "window":
            at_once = 1

            def one(i: Tensor) -> Row:
                head = header_of(image_bytes[i], words[i])

                def read_and_label() -> Row:
                    said, pixels = read_pixels(head)
                    return _answered(
                        said,
                        lambda: self._window(upright(pixels, head.orientation), texts_of(i)),
                        longest,
                    )

                return in_turn(pixels_to_decode(head), read_and_label)

        else:
            at_once = AT_ONCE
            groups, squares, sizes, said = self.see(image_bytes, words)

            def one(i: Tensor) -> Row:
                def label() -> Labeled:
                    given = _row(groups, i), squares[i : i + 1], texts_of(i)
                    return self._whole(*given, sizes[i, 0], sizes[i, 1])

                pixels = tf.reduce_prod(tf.cast(sizes[i], tf.int64))
                return in_turn(pixels, lambda: _answered(said[i], label, longest))

        row = tf.TensorSpec([longest if isinstance(longest, int) else None], tf.float32)
        kinds = (tf.TensorSpec([], tf.string), row, row, tf.TensorSpec([], tf.string))
        no_words, no_rows = tf.constant([], tf.string), tf.zeros([0, longest])
        none = (no_words, no_rows, no_rows, no_words)
        found = for_each(tf.shape(image_bytes)[0], one, kinds, none, at_once)
        answer = dict(
            zip(("mask_bytes", "class_scores", "class_areas", "error"), found, strict=True)
        )
        return answer | {"error": some_row_valid(answer["error"], answer["error"])}


def _last_stage(groups: Groups) -> Groups:
    return Groups.of(**{**groups, "maps": groups["maps"][-1:]})


def _labeled(scores: LowResScores, height: Tensor, width: Tensor) -> Labeled:
    return label_map(scores, height, width), highest_scores(scores, height, width)


def _halvings(head: Header, size: tuple[int, int]) -> Tensor:
    """How many times a large JPEG is halved while it is decoded.

    It is still four times as high and wide then as what is seen.
    """
    is_large = (tf.reduce_prod(head.size) > LARGE) & (head.format == JPEG)
    spare = tf.reduce_min(head.size) // (4 * max(size))
    return tf.where(is_large, tf.reduce_sum(tf.cast(spare >= [2, 4, 8], tf.int32)), 0)


def turned_square(
    size: tuple[int, int], head: Header, pixels: Tensor, halvings: Tensor
) -> tuple[Tensor, Tensor]:
    """Resize pixels (H, W, 3) as they are stored, then turn the small result.

    -> the square that the model sees, uint8 (S, S, 3), and (H, W) of the turned image.
    """
    H, W = tf.unstack(tf.cast(head.size, tf.int32))
    swapped = head.orientation > 4  # rows are columns then; passes keep the turned image's order
    height, width = size
    first = tf.where(
        swapped, ~rows_come_first(W, H, height, width), rows_come_first(H, W, height, width)
    )
    covered = tf.cast(head.size, tf.float32) / tf.cast(2**halvings, tf.float32)
    small = resize_to_square(pixels, size, swapped, covered=covered, rows_first=first)
    square = tf.ensure_shape(upright(small, head.orientation), (height, width, 3))
    return square, tf.where(swapped, tf.stack([W, H]), tf.stack([H, W]))


def header_of(contents: Tensor, words: Tensor) -> Header:
    """The header of one image, both scalar strings; words that are there already stay."""
    head = read_header(contents)
    return head._replace(error=tf.where(words == "", head.error, words))


def pixels_to_decode(head: Header) -> Tensor:
    """How many pixels will be decoded, int64 scalar."""
    return tf.where(head.error == "", tf.reduce_prod(head.size), 0)


def in_turn(pixels: Tensor, make: Callable[[], Any]) -> Any:
    """``make()``; images of more than ``LARGE`` pixels (int64 scalar) are made one at a time in
    the whole model, by whichever request.
    """

    def lock() -> Tensor:
        return tf.raw_ops.MutexLock(mutex=tf.raw_ops.MutexV2(shared_name="large_images"))

    def no_lock() -> Tensor:
        return tf.raw_ops.EmptyTensorList(
            element_shape=tf.constant(-1), max_num_elements=0, element_dtype=tf.int32
        )

    def free() -> Tensor:
        with tf.control_dependencies([tf.raw_ops.ConsumeMutexLock(mutex_lock=held)]):
            return tf.constant(True)

    held = tf.cond(pixels > LARGE, lock, no_lock)
    with tf.control_dependencies([held]):
        made = make()
    with tf.control_dependencies(tf.nest.flatten(made)):
        freed = tf.cond(pixels > LARGE, free, lambda: tf.constant(True))
    with tf.control_dependencies([freed]):
        return tf.nest.map_structure(tf.identity, made)


def _answered(words: Tensor, label: Callable[[], Labeled], longest: Tensor | int) -> Row:
    """The row of one image: its mask, scores and areas, padded, or words and nothing else."""

    def padded(values: Tensor) -> Tensor:
        return tf.pad(values, [[0, longest - tf.size(values)]])

    def well() -> Row:
        labels, best = label()
        areas = class_areas(labels, tf.size(best))
        return encode_mask(labels), padded(best), padded(areas), words

    nothing = tf.zeros([longest])
    return tf.cond(words == "", well, lambda: (tf.constant(""), nothing, nothing, words))


def _row(groups: Groups, i: Tensor) -> Groups:
    """The groups of one image, its leading dimension kept; the scale has none."""
    return tf.nest.map_structure(lambda t: t[i : i + 1] if t.shape.rank else t, groups)
