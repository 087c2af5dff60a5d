"""Images (B), encoded or as pixels, in; what the vision tower says of each, and its size, out: in the graph."""

from typing import Any

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph import decode, to_pixel_values
from tf_groupvit.segmentation.pixels import squares
from tf_groupvit.segmentation.protocol import Groups, read_groups
from tf_groupvit.segmentation.settings import Settings

AT_ONCE = 4  # images that are decoded side by side: of the largest, each takes 270 MB as bytes, more while resized


class Looking:
    """The vision side of one model under one setting; each part is traced once, for all signatures."""

    def __init__(self, model: Any, settings: Settings) -> None:
        self.settings = settings
        specs = {
            "groups": tf.TensorSpec([None, model.config.vision_config.num_channels, None, None], tf.float32),
            "squares_of": tf.TensorSpec([None, None, None, 3], tf.uint8),
            "see": tf.TensorSpec([None], tf.string),
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
        self.see = tf.function(self._see, input_signature=[specs["see"]], autograph=False)

    @property
    def _square(self) -> tf.TensorSpec:
        return tf.TensorSpec((*self.settings.size, 3), tf.uint8)

    def pixel_values(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 (B, H, W, 3) -> (B, 3, H, W)."""
        return to_pixel_values(pixels, self.settings.mean, self.settings.std)

    def _see(self, image_bytes: tf.Tensor) -> tuple[Groups, tf.Tensor]:
        """Encoded images (B) as mode whole sees them -> groups, and (H, W) of each image, int32 (B, 2)."""

        def one(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pixels = decode(contents)
            return squares(pixels, self.settings), tf.shape(pixels)[:2]

        signature = (self._square, tf.TensorSpec([2], tf.int32))
        small, sizes = tf.map_fn(one, image_bytes, fn_output_signature=signature, parallel_iterations=AT_ONCE)
        return self.groups(self.pixel_values(small)), sizes
