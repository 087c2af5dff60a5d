"""What the image tests share: Python and graph behind one set of names, and drawn images."""

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_groupvit.errors import ImageError
from tf_groupvit.preprocessing import image_arrays, image_graph, image_reading


@dataclass(frozen=True)
class Side:
    """Python or graph: the same steps on NumPy arrays, and the error that bad input gets."""

    name: str
    read: Any
    resize_bicubic: Any
    normalize: Any
    error: type[Exception]


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _decode(contents):
    return image_graph.decode(contents)


_SIZES = [
    tf.TensorSpec([None, None, 3], tf.uint8),
    tf.TensorSpec([], tf.int32),
    tf.TensorSpec([], tf.int32),
]
_bicubic = tf.function(image_graph.resize_bicubic, input_signature=_SIZES)


@functools.cache
def _normalize(mean, std):
    return tf.function(
        lambda pixels: image_graph.to_pixel_values(pixels, mean, std), autograph=False
    )


def _read_in_graph(data: bytes, max_pixels: int | None = None) -> np.ndarray:
    try:
        return (
            _decode(data) if max_pixels is None else image_graph.decode(data, max_pixels)
        ).numpy()
    except tf.errors.InvalidArgumentError:
        if data[8:12] == b"WEBP" and not _reads_webp():
            pytest.skip(
                f"TensorFlow {tf.__version__} has no WebP, and refuses it as an invalid argument"
            )
        raise


@functools.cache
def _reads_webp() -> bool:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "WEBP")
    try:
        tf.io.decode_image(file.getvalue())
    except tf.errors.InvalidArgumentError:
        return False
    return True


SIDES = {
    "python": Side(
        "python",
        image_reading.read_image,
        image_arrays.resize_bicubic,
        image_arrays.normalize,
        ImageError,
    ),
    "graph": Side(
        "graph",
        _read_in_graph,
        lambda *arguments: _bicubic(*arguments).numpy(),
        lambda pixels, *statistics: _normalize(*statistics)(pixels).numpy(),
        tf.errors.InvalidArgumentError,
    ),
}


def draw(H: int = 13, W: int = 22, C: int = 3, seed: int = 0) -> np.ndarray:
    """Slopes with a hard edge and noise: uint8 (H, W, C)."""
    rows, columns = np.mgrid[0:H, 0:W]
    slopes = np.stack(
        [columns * 200 / W, rows * 200 / H, (rows + columns) * 100 / (H + W), columns * 9], -1
    )[..., :C]
    slopes[:, W // 2 :, 0] = 255 - slopes[:, W // 2 :, 0]
    return np.clip(
        slopes + np.random.default_rng(seed).integers(0, 30, slopes.shape), 0, 255
    ).astype(np.uint8)


def write(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Save an image in memory."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def words(error: BaseException) -> str:
    """The line of an error that is ours; TensorFlow puts where the operation was made around it."""
    lines = str(error).splitlines()
    return next((line for line in lines if "assertion failed" in line), lines[0])
