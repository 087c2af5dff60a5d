"""Bytes of an image in, pixels (H, W, 3), pixel values (B, 3, H, W) and PNG masks out: the graph twin of reading.

Core TensorFlow operations alone, of version 2.19 and later, with every size unknown, to be exported.
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bmp import decode_bmp
from tf_groupvit.preprocessing.image_graph_bytes import (
    KINDS,
    big,
    bytes_of,
    kind_of,
    matches,
    only_if,
    within_limit,
)
from tf_groupvit.preprocessing.image_graph_exif import orientation_of, upright
from tf_groupvit.preprocessing.image_graph_gif import decode_gif
from tf_groupvit.preprocessing.image_graph_webp import decode_webp
from tf_groupvit.preprocessing.image_reading import MAX_PIXELS


def decode(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decode one image, a scalar string, as image_reading.read_image does: uint8 (H, W, 3).

    JPEG, PNG, GIF (first frame), BMP (uncompressed) and WebP, where the runtime reads it (TensorFlow 2.21
    does, 2.19 does not). Turned as EXIF says; alpha dropped; the upper eight of sixteen bits. What cannot
    be decoded, and an image of more than ``max_pixels`` pixels by its header, is INVALID_ARGUMENT; the
    latter before anything is decoded. The pixels are Pillow's, to the bit where the file is sound (one
    level off in some CMYK). Orientation that stands in XMP alone, which Pillow also reads, is not looked for.
    """
    return _decoder(max_pixels)(contents)


@functools.cache
def _decoder(max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Make the decoder a function of the graph, so that signatures share its 3,000 nodes, traced once."""

    def decode_by_kind(contents: tf.Tensor) -> tf.Tensor:
        data = bytes_of(contents)
        by_kind = {
            "JPEG": lambda: _decode_jpeg(contents, data, max_pixels),
            "PNG": lambda: _decode_png(contents, data, max_pixels),
            "GIF": lambda: decode_gif(contents, data, max_pixels),
            "BMP": lambda: decode_bmp(data, max_pixels),
            "WebP": lambda: upright(decode_webp(contents, data, max_pixels), orientation_of(data, "WebP")),
        }
        pixels = tf.switch_case(kind_of(data), [*(by_kind[kind] for kind in KINDS), lambda: _refuse(contents)])
        return tf.ensure_shape(pixels, [None, None, 3])

    return tf.function(decode_by_kind, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def _decode_jpeg(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Parity: the accurate DCT gives Pillow's pixels to the bit; TensorFlow's default is up to 12 levels off."""
    height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(contents, output_type=tf.int32), 3)
    checked = within_limit(tf.cast(height, tf.int64), tf.cast(width, tf.int64), max_pixels, contents)
    pixels = tf.io.decode_jpeg(checked, channels=3, dct_method="INTEGER_ACCURATE")
    return upright(pixels, orientation_of(data, "JPEG"))


def _decode_png(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> tf.Tensor:
    checked = only_if(
        matches(data, 12, b"IHDR"), ["Expected a PNG that begins with IHDR, came a broken one."], contents
    )
    checked = within_limit(big(data, 20, 4), big(data, 16, 4), max_pixels, checked)
    return upright(tf.io.decode_png(checked, channels=3), orientation_of(data, "PNG"))


def _refuse(contents: tf.Tensor) -> tf.Tensor:
    length = tf.strings.length(contents)
    words = [f"Expected an image of kind {', '.join(KINDS)}, came ", length, " bytes of another kind."]
    return only_if(False, words, tf.zeros([0, 0, 3], tf.uint8))


def resize_bicubic(pixels: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resize uint8 (H, W, 3) to (height, width, 3) as image_resize.resize_bicubic does, within 2 grey levels.

    Pillow rounds to 8 bits after each of its two passes, and which one comes first shows; so it is done here.
    """
    H, W = tf.unstack(tf.shape(pixels)[:2])
    height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
    rows_first = H - height > tf.maximum(0, 2 * (W - width))
    first = tf.where(rows_first, tf.stack([height, W]), tf.stack([H, width]))
    for size in (first, tf.stack([height, width])):
        pixels = _resize_once(pixels, size)
    return pixels


def _resize_once(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(pixels)[:2], tf.float32)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None], size=size, scale=scale, translation=[0.0, 0.0], kernel_type="keyscubic", antialias=True
    )
    return _round(resized[0])


def resize_bilinear(pixels: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resize uint8 (H, W, 3) to (height, width, 3) as image_resize.resize_bilinear does: no antialiasing."""
    size = tf.stack([tf.cast(height, tf.int32), tf.cast(width, tf.int32)])
    return _round(tf.raw_ops.ResizeBilinear(images=pixels[None], size=size, half_pixel_centers=True)[0])


def _round(levels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.floor(levels + 0.5), 0.0, 255.0), tf.uint8)


def to_pixel_values(pixels: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """(pixels / 255 - mean) / std, as image_statistics.normalise: uint8 (B, H, W, 3) -> float32 (B, 3, H, W)."""
    levels = tf.cast(tf.transpose(pixels, [0, 3, 1, 2]), tf.float32) / 255.0
    shift, scale = (tf.reshape(tf.cast(numbers, tf.float32), [3, 1, 1]) for numbers in (mean, std))
    return (levels - shift) / scale


def encode_mask(labels: tf.Tensor) -> tf.Tensor:
    """Write labels uint8 (H, W) as a grey PNG, one byte a pixel: scalar string."""
    return tf.io.encode_png(labels[..., None])
