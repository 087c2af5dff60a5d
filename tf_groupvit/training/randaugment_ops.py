"""Pixels uint8 (H, W, 3) and a strength in; changed pixels uint8 (H, W, 3), by Pillow's arithmetic, out: graph ops."""

from collections.abc import Sequence

import tensorflow as tf

# Where a moved picture leaves nothing: the mean of ImageNet's pixels.
FILL = (124, 116, 104)


def _levels(values: tf.Tensor) -> tf.Tensor:
    """Floats to uint8 as Pillow's arithmetic does: cut to 0..255, the fraction dropped."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


def _through(table: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Look each channel's levels up in its column: (256, 3), (H, W, 3) -> (H, W, 3)."""
    column = tf.range(3)[None, None]
    return tf.gather(tf.reshape(table, [-1]), tf.cast(pixels, tf.int32) * 3 + column)


def autocontrast(pixels: tf.Tensor) -> tf.Tensor:
    """Stretch each channel from its lowest level to its highest over 0..255; a flat channel stays."""
    values = tf.cast(pixels, tf.float64)  # as Pillow: floats of 32 bits fall short of whole numbers
    low, high = (reduce(values, axis=[0, 1], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = 255.0 / tf.where(high > low, high - low, 1.0)
    stretched = tf.cast(tf.clip_by_value(values * scale - low * scale, 0.0, 255.0), tf.uint8)
    return tf.where(high > low, stretched, pixels)


def equalize(pixels: tf.Tensor) -> tf.Tensor:
    """Level out each channel's histogram."""
    flat = tf.cast(tf.reshape(pixels, [-1, 3]), tf.int32) + tf.constant([0, 256, 512])
    counts = tf.reshape(tf.math.bincount(tf.reshape(flat, [-1]), minlength=768, maxlength=768), [3, 256])
    highest = 255 - tf.argmax(tf.cast(counts[:, ::-1] > 0, tf.int32), axis=1, output_type=tf.int32)  # (3)
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, highest, batch_dims=1)) // 255  # (3)
    divisor = tf.maximum(step, 1)[:, None]
    table = (divisor // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // divisor  # (3, 256)
    table = tf.where(step[:, None] > 0, table, tf.range(256)[None])
    return _through(tf.cast(tf.transpose(tf.minimum(table, 255)), tf.uint8), pixels)


def invert(pixels: tf.Tensor) -> tf.Tensor:
    """Turn dark into bright and back."""
    return 255 - pixels


def posterize(pixels: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the upper ``bits`` (int32 scalar, 0 to 8) of each level."""
    dropped = tf.cast(8 - bits, tf.int32)
    values = tf.cast(pixels, tf.int32)
    return tf.cast(tf.bitwise.left_shift(tf.bitwise.right_shift(values, dropped), dropped), tf.uint8)


def solarize(pixels: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert the levels from ``threshold`` (int32 scalar, 0 to 256) on."""
    return tf.where(tf.cast(pixels, tf.int32) < threshold, pixels, 255 - pixels)


def solarize_add(pixels: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Add ``amount`` (int32 scalar) to the levels below 128."""
    values = tf.cast(pixels, tf.int32)
    return tf.where(values < 128, tf.cast(tf.minimum(values + amount, 255), tf.uint8), pixels)


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    """Brightness (H, W, 1) in whole levels, as Pillow weighs the channels."""
    weighed = tf.reduce_sum(tf.cast(pixels, tf.int32) * tf.constant([19595, 38470, 7471]), axis=-1, keepdims=True)
    return tf.cast(tf.bitwise.right_shift(weighed + 0x8000, 16), tf.float32)


def _blend(degenerate: tf.Tensor, pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Nothing of the picture at factor 0, the picture at 1, and beyond it above."""
    return _levels(degenerate + factor * (tf.cast(pixels, tf.float32) - degenerate))


def colour(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Less colour, or more: between the picture and its grey."""
    return _blend(_grey(pixels), pixels, factor)


def contrast(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Less contrast, or more: between the picture and its mean grey."""
    return _blend(tf.floor(tf.reduce_mean(_grey(pixels)) + 0.5), pixels, factor)


def brightness(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Darker, or brighter: between the picture and black."""
    return _blend(tf.constant(0.0), pixels, factor)


def sharpness(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Softer, or sharper: between the picture and a smoothed one; the border stays."""
    values = tf.cast(pixels, tf.float32)[None]
    kernel = tf.constant([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13.0
    kernel = tf.tile(kernel[..., None, None], [1, 1, 3, 1])
    smooth = tf.floor(tf.nn.depthwise_conv2d(values, kernel, [1, 1, 1, 1], "VALID") + 0.5)
    inner = tf.pad(tf.ones_like(smooth), [[0, 0], [1, 1], [1, 1], [0, 0]])
    smooth = tf.where(inner > 0, tf.pad(smooth, [[0, 0], [1, 1], [1, 1], [0, 0]]), values)
    return _blend(smooth[0], pixels, factor)


def _move(pixels: tf.Tensor, matrix: Sequence[Sequence[tf.Tensor | float]]) -> tf.Tensor:
    """Where each pixel comes from, [[a, b, c], [d, e, f]] over (x, y, 1) with pixel centres at halves: bilinear."""
    fill = tf.constant(FILL, tf.float32)
    rows: list[tf.Tensor | float] = []
    for x, y, shift in matrix:
        x, y = tf.cast(x, tf.float32), tf.cast(y, tf.float32)
        rows += [x, y, tf.cast(shift, tf.float32) + (x + y - 1.0) / 2]  # TensorFlow's centres lie at whole numbers
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=(tf.cast(pixels, tf.float32) - fill)[None],
        transforms=tf.stack([*rows, 0.0, 0.0])[None],
        output_shape=tf.shape(pixels)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return _levels(moved[0] + fill + 0.5)


def shear_x(pixels: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Push rows sideways, by ``amount`` pixels for each row."""
    return _move(pixels, [[1.0, amount, 0.0], [0.0, 1.0, 0.0]])


def shear_y(pixels: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Push columns up or down, by ``amount`` pixels for each column."""
    return _move(pixels, [[1.0, 0.0, 0.0], [amount, 1.0, 0.0]])


def translate_x(pixels: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Move the picture to the left by a share of its width."""
    return _move(pixels, [[1.0, 0.0, share * tf.cast(tf.shape(pixels)[1], tf.float32)], [0.0, 1.0, 0.0]])


def translate_y(pixels: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Move the picture up by a share of its height."""
    return _move(pixels, [[1.0, 0.0, 0.0], [0.0, 1.0, share * tf.cast(tf.shape(pixels)[0], tf.float32)]])


def rotate(pixels: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turn the picture about its middle, against the clock."""
    y, x = tf.unstack(tf.cast(tf.shape(pixels)[:2], tf.float32) / 2)
    angle = degrees * (3.141592653589793 / 180)
    sine, cosine = tf.sin(angle), tf.cos(angle)
    return _move(pixels, [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]])
