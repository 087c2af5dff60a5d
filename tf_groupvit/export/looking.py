"""Images (B), encoded or as pixels, in; what the vision tower says of each, and its size, out: in the graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_groupvit.export.arriving import some_well
from tf_groupvit.preprocessing.image_graph import read_header, read_pixels, to_pixel_values
from tf_groupvit.preprocessing.image_graph_bytes import Header
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
                said, pixels = read_pixels(head)
                nothing = tf.zeros(self._square.shape, tf.uint8)
                small = tf.cond(said == "", lambda: squares(pixels, self.settings), lambda: nothing)
                return small, tf.shape(pixels)[:2], said

            return in_turn(tf.reduce_prod(head.size), look)

        signature = (self._square, tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.string))
        given = (image_bytes, words)
        small, sizes, words = tf.map_fn(one, given, fn_output_signature=signature, parallel_iterations=AT_ONCE)
        return self.groups(self.pixel_values(some_well(words, small))), sizes, words


def header_of(contents: tf.Tensor, words: tf.Tensor) -> Header:
    """The header of one image; its words are those that are there already, if there are any."""
    head = read_header(contents)
    return head._replace(words=tf.where(words == "", head.words, words))


def in_turn(pixels: tf.Tensor, make: Callable[[], Any]) -> Any:
    """``make()``; of images of more than ``LARGE`` pixels, one at a time in the whole model, whoever asks."""

    def alone() -> Any:
        lock = tf.raw_ops.MutexLock(mutex=tf.raw_ops.MutexV2(shared_name="large_images"))
        with tf.control_dependencies([lock]):
            made = make()
        with tf.control_dependencies(tf.nest.flatten(made)):
            free = tf.raw_ops.ConsumeMutexLock(mutex_lock=lock)
        with tf.control_dependencies([free]):
            return tf.nest.map_structure(tf.identity, made)

    return tf.cond(pixels > LARGE, alone, make)
