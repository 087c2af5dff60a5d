"""uint8 pixels (B, H, W, 3) of one size in, labels (B, H, W) out, as a Keras model and inside
exported graphs.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_groupvit.errors import ImageError, InputError
from tf_groupvit.models.base_model import BaseModel
from tf_groupvit.preprocessing.image_graph import resize_bicubic, resize_bilinear, to_pixel_values
from tf_groupvit.preprocessing.image_reading import eight_bits, read_image, several, three_channels
from tf_groupvit.segmentation.inference import TEXTS, Inference, LiveGraph
from tf_groupvit.segmentation.protocol import compact_scores, image_scores, read_groups
from tf_groupvit.segmentation.settings import Settings
from tf_groupvit.segmentation.sliding_window import LONGEST, cut_windows, merge_windows
from tf_groupvit.segmentation.upsampling import compact_label_map, label_map


def squares(pixels: tf.Tensor, settings: Settings) -> tf.Tensor:
    """Mode whole: pixels (H, W, 3) -> the one size that all images share, uint8 (S, S, 3)."""
    small = resize_bicubic(pixels, *settings.size)
    return tf.ensure_shape(small, (*settings.size, 3))


def window_scores(
    score: Callable[[tf.Tensor], tf.Tensor], pixels: tf.Tensor, settings: Settings
) -> tf.Tensor:
    """Mode window: pixels uint8 (H, W, 3) -> scores (h, w, K) of the resized image.

    ``score`` turns windows, uint8 (n, tall, wide, 3), into their scores (n, tall, wide, K).
    """
    height, width = window_size(tf.shape(pixels)[0], tf.shape(pixels)[1], settings)
    small = resize_bilinear(pixels, height, width)
    rows, columns = starts(height, settings.window), starts(width, settings.window)
    corners = tf.stack(
        [tf.repeat(rows, tf.size(columns)), tf.tile(columns, [tf.size(rows)])], axis=1
    )
    tall, wide = tf.minimum(height, settings.window), tf.minimum(width, settings.window)
    cut = cut_windows(small, corners, tall, wide)
    return merge_windows(score(cut), corners, height, width)


def window_size(
    height: tf.Tensor, width: tf.Tensor, settings: Settings
) -> tuple[tf.Tensor, tf.Tensor]:
    """(H, W) that window mode resizes to: the graph's twin of ``sliding_window.resized``, in
    float64 as there.
    """
    sides = tf.cast(tf.stack([height, width]), tf.float64)
    short, long = tf.reduce_min(sides), tf.reduce_max(sides)
    scale = tf.minimum(2.0 * settings.image_size / short, LONGEST * settings.image_size / long)
    new = tf.maximum(tf.cast(sides * scale + 0.5, tf.int32), tf.constant(settings.patch))
    return new[0], new[1]


def starts(length: tf.Tensor, window: int) -> tf.Tensor:
    """Where windows begin along one side: the graph's twin of ``sliding_window.starts``, the stride
    half a window.
    """
    last = tf.maximum(length - window, 0)
    return tf.concat([tf.range(0, last, window // 2), last[None]], axis=0)


def pixel_labels(model: Any, pixels: tf.Tensor, texts: tf.Tensor, settings: Settings) -> tf.Tensor:
    """uint8 (B, H, W, 3) -> labels int32 (B, H, W)."""
    height, width = tf.shape(pixels)[1], tf.shape(pixels)[2]
    how, kind = (settings.protocol, settings.background), tf.TensorSpec([None, None], tf.int32)

    def values(some: tf.Tensor) -> tf.Tensor:
        return to_pixel_values(some, settings.mean, settings.std)

    if settings.mode == "window":

        def by_windows(image: tf.Tensor) -> tf.Tensor:
            scores = window_scores(
                lambda cut: image_scores(model, values(cut), texts, *how), image, settings
            )
            return label_map(scores, height, width)

        return tf.map_fn(by_windows, pixels, fn_output_signature=kind)
    groups = read_groups(model, values(tf.map_fn(lambda image: squares(image, settings), pixels)))
    found = compact_scores(groups, texts, *settings.size, *how)
    return tf.map_fn(
        lambda one: compact_label_map(one, settings.size, height, width),
        found,
        fn_output_signature=kind,
    )


class PixelLabeler(BaseModel):
    """``pixel_labels`` under Keras' ``predict``, one graph for every size. Needs the TensorFlow
    backend.
    """

    def __init__(self, inference: Inference, texts: Any) -> None:
        if keras.backend.backend() != "tensorflow":
            raise InputError(
                "Segmenter.predict runs on Keras' TensorFlow backend: call the segmenter itself"
                " instead."
            )
        super().__init__()
        self.model, self.settings, self.texts = inference.model, inference.settings, texts
        self.built = True

        def label(model: Any, pixels: tf.Tensor, texts: tf.Tensor) -> tf.Tensor:
            return pixel_labels(model, pixels, texts, inference.settings)

        self._label = LiveGraph(
            self.model, label, tf.TensorSpec([None, None, None, 3], tf.uint8), TEXTS
        )

    def call(self, pixels: Any) -> Any:
        if len(pixels.shape) != 4 or pixels.shape[-1] != 3 or pixels.dtype != tf.uint8:
            raise InputError(
                f"pixels are {pixels.dtype} {tuple(pixels.shape)}: expected uint8 (B, H, W, 3)."
            )
        return self._label(pixels, self.texts)

    def predict(self, pixels: Any, *arguments: Any, **keywords: Any) -> np.ndarray:
        """Labels (B, H, W) of pixels, or images of one size, of every kind that
        ``Segmenter.predict`` names.
        """
        dtype = (
            "uint8" if len(self.texts) + (self.settings.background is not None) <= 256 else "int32"
        )
        if not isinstance(pixels, tf.data.Dataset):
            batch = _batch_of(pixels, keywords.get("steps"))
            return super().predict(batch, *arguments, **keywords).astype(dtype)
        refused: list[ImageError] = []
        if pixels.cardinality() == 0:
            raise InputError(EMPTY)
        if len(_images_of(pixels).shape) == 3:
            keywords = {"batch_size": 32, **keywords}
            pixels = pixels.batch(keywords.pop("batch_size") or 32)
        try:
            return super().predict(_as_bytes(pixels, refused), *arguments, **keywords).astype(dtype)
        except (tf.errors.OpError, ValueError, UnboundLocalError) as error:
            if refused:
                raise refused[0] from None
            if isinstance(
                error, UnboundLocalError
            ):  # Keras' word for a dataset that turned out to be empty
                raise InputError(EMPTY) from None
            if "different shapes" in str(error) or "concatenation axis" in str(error):
                raise InputError(OF_SEVERAL_SIZES) from error
            raise


EMPTY = "pixels are empty: expected at least one image, of at least one pixel."
OF_SEVERAL_SIZES = (
    "The images are of several sizes: resize them to one, or call the segmenter itself with a list."
)


def _batch_of(pixels: Any, steps: int | None = None) -> np.ndarray:
    """Pixels, or images of one size, as one uint8 array (B, H, W, 3). Raises ``InputError`` saying
    how to convert.
    """
    if isinstance(pixels, keras.utils.PyDataset):
        source = pixels
        pixels = (source[index] for index in range(source.num_batches))
    listed = several(pixels)
    if listed is not None:
        parts = [_part_of(item) for item in islice(listed, steps)]
        if len({part.shape[1:] for part in parts}) != 1:
            raise InputError(OF_SEVERAL_SIZES if parts else EMPTY)
        return np.concatenate(parts)
    if not hasattr(pixels, "__array__"):
        what = type(pixels).__name__
        raise InputError(
            f"pixels are {what}: expected numbers (B, H, W, 3); for one image call the segmenter"
            " itself."
        )
    array = np.asarray(pixels)
    if array.ndim != 4 or array.shape[-1] not in (1, 3, 4):
        hints = {
            2: "; give pixels[None, ..., None]",
            3: "; for one image give pixels[None], for gray pixels[..., None]",
        }
        raise InputError(
            f"pixels are {array.dtype} {array.shape}: expected uint8 (B, H, W,"
            f" 3){hints.get(array.ndim, '')}."
        )
    if not array.size:
        raise InputError(EMPTY)
    return three_channels(eight_bits(array, "pixels"))


def _part_of(item: Any) -> np.ndarray:
    """What a list or a generator holds, as uint8 (B, H, W, 3): an image, or a batch, maybe with
    what belongs to it.
    """
    item = item[0] if isinstance(item, tuple) else item
    batch = hasattr(item, "__array__") and np.ndim(item) == 4
    return _batch_of(item) if batch else read_image(item)[None]


def _images_of(dataset: tf.data.Dataset) -> tf.TensorSpec:
    """What stands for the images in a dataset: its elements, or the first of each."""
    spec = dataset.element_spec
    spec = spec[0] if isinstance(spec, tuple) else spec
    if (
        not isinstance(spec, tf.TensorSpec)
        or spec.shape.rank not in (3, 4)
        or spec.shape[-1] not in (1, 3, 4)
    ):
        raise InputError(
            f"The dataset gives {spec}: map it to images (H, W, 3), or batches of them (B, H,"
            " W, 3)."
        )
    return spec


def _as_bytes(dataset: tf.data.Dataset, refused: list[ImageError]) -> tf.data.Dataset:
    """Batches as uint8 (B, H, W, 3); the reason against one is left in ``refused``."""
    spec = _images_of(dataset)

    def check(batch: np.ndarray) -> np.ndarray:
        try:
            return three_channels(eight_bits(batch, "pixels"))
        except ImageError as error:
            refused.append(error)
            raise

    def convert(*element: Any) -> tf.Tensor:
        return tf.ensure_shape(
            tf.numpy_function(check, element[:1], tf.uint8), [*spec.shape[:3], 3]
        )

    return dataset.map(convert)
