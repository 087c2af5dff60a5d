"""Label batches of pixels under Keras' own ``predict``: uint8 (B, H, W, 3) -> labels (B, H, W)."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tf_groupvit.errors import ImageError, InputError
from tf_groupvit.models.base_model import BaseModel
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image_reading import (
    ImageLike,
    eight_bits,
    read_image,
    several,
    three_channels,
)
from tf_groupvit.segmentation.pipeline import PICTURES, TEXTS, label_batch, live, on_tensorflow
from tf_groupvit.segmentation.settings import Settings
from tf_groupvit.segmentation.upsampling import label_map_wide
from tf_groupvit.types import Tensor

EMPTY = "pixels are empty: expected at least one image, of at least one pixel."
OF_SEVERAL_SIZES = (
    "The images are of several sizes: resize them to one, or call the segmenter itself with a list."
)
# What ``predict`` takes: one array or tensor, or several images or batches.
Pixels: TypeAlias = np.ndarray | Tensor | Iterable[Any] | tf.data.Dataset | keras.utils.PyDataset


@live(PICTURES, TEXTS)
def _label(model: TFGroupViTModel, settings: Settings, pixels: Tensor, texts: Tensor) -> Tensor:
    return label_batch(model, settings, pixels, texts, label_map_wide)


class PixelLabeler(BaseModel):
    """The pipeline under Keras' ``predict``, one graph for every size. Needs the TensorFlow
    backend.

    texts: class embeddings (N, D).
    """

    def __init__(self, model: TFGroupViTModel, settings: Settings, texts: np.ndarray) -> None:
        if not on_tensorflow():
            raise InputError(
                "Segmenter.predict runs on Keras' TensorFlow backend: call the segmenter itself"
                " instead."
            )
        super().__init__()
        self.model, self.settings, self.texts = model, settings, texts
        self.built = True

    def call(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 (B, H, W, 3) -> labels (B, H, W)."""
        if len(pixels.shape) != 4 or pixels.shape[-1] != 3 or pixels.dtype != tf.uint8:
            raise InputError(
                f"pixels are {pixels.dtype} {tuple(pixels.shape)}: expected uint8 (B, H, W, 3)."
            )
        return _label(self.model, self.settings, pixels, self.texts)

    def predict(self, pixels: Pixels, *arguments: Any, **keywords: Any) -> np.ndarray:  # type: ignore[override]
        """Label pixels, or images of one size, of every kind that ``Segmenter.predict`` names.

        -> (B, H, W), uint8, or int32 for more than 256 labels.
        """
        labels = len(self.texts) + (self.settings.background is not None)
        dtype = "uint8" if labels <= 256 else "int32"
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


def _batch_of(pixels: Pixels, steps: int | None = None) -> np.ndarray:
    """Pixels, or images of one size, as one uint8 array (B, H, W, 3).

    Raises:
        InputError: what they cannot be used for, and how to convert them.
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
    array: np.ndarray = np.asarray(pixels)
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


def _part_of(item: ImageLike | tuple[Any, ...]) -> np.ndarray:
    """An item of a list or a generator as uint8 (B, H, W, 3): an image, or a batch.

    It may be a tuple with labels or the like behind it.
    """
    item = item[0] if isinstance(item, tuple) else item
    batch = hasattr(item, "__array__") and np.ndim(item) == 4  # type: ignore[arg-type]
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
