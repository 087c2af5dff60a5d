"""Images (B), encoded or as pixels, in; what the vision tower says of each, and its size, out: in the graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_groupvit.export.arriving import some_well
from tf_groupvit.preprocessing.image_graph import (
    read_header,
    read_pixels,
    resize_bicubic,
    rows_come_first,
    to_pixel_values,
)
from tf_groupvit.preprocessing.image_graph_bytes import KINDS, Header
from tf_groupvit.preprocessing.image_graph_exif import upright
from tf_groupvit.segmentation.pixels import squares
from tf_groupvit.segmentation.protocol import Groups, read_groups
from tf_groupvit.segmentation.settings import Settings

AT_ONCE = 4  # images of a request that are decoded side by side
LARGE = 2**24  # pixels from which on images take turns: of the largest that are read, each takes 270 MB as bytes


class Looking:
    """The vision side of one model under one setting; each part is traced once, for all signatures."""

    def __init__(self, model: Any, settings: Settings) -> None:
        self.settings = settings
        specs = {
            "groups": tf.TensorSpec([None, model.config.vision_config.num_channels, None, None], tf.float32),
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
        """Encoded images (B) as mode whole sees them -> groups, (H, W) of each image, int32 (B, 2), and words (B).

        Args:
            words: what is wrong with a row already, "" where nothing is; such an image is not decoded. The result
                adds why an image cannot be read. Where something is wrong, (H, W) is (0, 0).
        """

        def one(given: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            head = header_of(*given)

            def look() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                halvings = _halvings(head, self.settings.size)
                said, pixels = read_pixels(head, halvings)
                nothing = (tf.zeros(self._square.shape, tf.uint8), tf.zeros([2], tf.int32))
                found = tf.cond(
                    said == "", lambda: _turned_square(head, pixels, halvings, self._square), lambda: nothing
                )
                return *found, said

            return in_turn(to_decode(head), look)

        signature = (self._square, tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.string))
        given = (image_bytes, words)
        small, sizes, words = tf.map_fn(one, given, fn_output_signature=signature, parallel_iterations=AT_ONCE)
        return self.groups(self.pixel_values(some_well(words, small))), sizes, words


def _halvings(head: Header, size: tuple[int, int]) -> tf.Tensor:
    """How many times a large JPEG is halved while it is decoded: still four times as high and wide as what is seen."""
    is_large = (tf.reduce_prod(head.size) > LARGE) & (head.kind == list(KINDS).index("JPEG"))
    spare = tf.reduce_min(head.size) // (4 * max(size))
    return tf.where(is_large, tf.reduce_sum(tf.cast(spare >= [2, 4, 8], tf.int32)), 0)


def _turned_square(
    head: Header, pixels: tf.Tensor, halvings: tf.Tensor, square: tf.TensorSpec
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels as they are stored -> what the model sees, and (H, W) of the image; what is small is turned, not all."""
    height, width, _ = square.shape
    H, W = tf.unstack(tf.cast(head.size, tf.int32))
    swapped = head.orientation > 4  # rows are columns then, and the order of the passes is that of the turned image
    wanted = tf.where(swapped, tf.constant([width, height]), [height, width])
    first = tf.where(swapped, ~rows_come_first(W, H, height, width), rows_come_first(H, W, height, width))
    covered = tf.cast(head.size, tf.float32) / tf.cast(2**halvings, tf.float32)
    small = upright(resize_bicubic(pixels, wanted[0], wanted[1], covered, first), head.orientation)
    return tf.ensure_shape(small, square.shape), tf.where(swapped, tf.stack([W, H]), tf.stack([H, W]))


def header_of(contents: tf.Tensor, words: tf.Tensor) -> Header:
    """The header of one image; its words are those that are there already, if there are any."""
    head = read_header(contents)
    return head._replace(words=tf.where(words == "", head.words, words))


def to_decode(head: Header) -> tf.Tensor:
    """How many pixels will be decoded, int64."""
    return tf.where(head.words == "", tf.reduce_prod(head.size), 0)


def in_turn(pixels: tf.Tensor, make: Callable[[], Any]) -> Any:
    """``make()``; of images of more than ``LARGE`` pixels, one at a time in the whole model, whoever asks."""

    def lock() -> tf.Tensor:
        return tf.raw_ops.MutexLock(mutex=tf.raw_ops.MutexV2(shared_name="large_images"))

    def no_lock() -> tf.Tensor:
        return tf.raw_ops.EmptyTensorList(element_shape=tf.constant(-1), max_num_elements=0, element_dtype=tf.int32)

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
