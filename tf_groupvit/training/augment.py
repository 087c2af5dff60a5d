"""Pixels uint8 (H, W, 3) of any size and a seed in; pixels uint8 (S, S, 3), cropped, flipped and
changed, out.

Paper: section 4.1; the published models were trained with timm's RandomResizedCrop, flip,
    RandAugment ``rand-m9-mstd0.5-inc1`` and random erasing. Here the same draws are made in graph
    ops, and RandAugment's operations follow Pillow's arithmetic. All numbers hang on the seed of
    the image alone, so that a run can be repeated, and resumed in its middle.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.image_graph import resize_bicubic

ATTEMPTS = 10  # to find a rectangle that fits
RATIOS = (3 / 4, 4 / 3)  # width to height of a crop
ERASED_AREA, ERASED_RATIOS = (0.02, 1 / 3), (0.3, 1 / 0.3)
APPLIED = 0.5  # how likely a drawn operation of RandAugment is applied
TOP_LEVEL = 10.0
# Where a moved picture leaves nothing: the mean of ImageNet's pixels.
FILL = (124, 116, 104)


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed; the defaults are the published ones, ``PLAIN`` changes
    nothing.

    Attributes:
        crop: the smallest and the largest share of the image's area that is cut out; None: the
            whole image.
        flip: how likely an image is mirrored.
        operations: how many operations of RandAugment are drawn for an image.
        level, level_spread: their strength out of 10, mean and standard deviation.
        erasing: how likely a rectangle is replaced by noise.
    """

    crop: tuple[float, float] | None = (0.08, 1.0)
    flip: float = 0.5
    operations: int = 2
    level: float = 9.0
    level_spread: float = 0.5
    erasing: float = 0.25

    def __post_init__(self) -> None:
        low, high = self.crop or (1.0, 1.0)
        if not 0 < low <= high <= 1:
            raise InputError(
                f"crop should be two shares of the area, 0 < low <= high <= 1, got {self.crop}."
            )
        for name in ("flip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"{name} should be a probability from 0 to 1, got {getattr(self, name)}."
                )
        if self.operations < 0 or not 0 <= self.level <= TOP_LEVEL or self.level_spread < 0:
            raise InputError("operations and level_spread should be 0 or more, level from 0 to 10.")


PUBLISHED = Augmentation()
PLAIN = Augmentation(crop=None, flip=0.0, operations=0, erasing=0.0)


def augment(pixels: tf.Tensor, size: int, how: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Crop, resize, flip and RandAugment: uint8 (H, W, 3), seed int32 (2) -> uint8 (size, size, 3)."""
    of_crop, of_flip, of_operations = tf.unstack(tf.random.split(seed, 3, alg="philox"))
    areas = how.crop
    # An image that is not cut is resized as the segmenter does in mode "whole".
    pixels = (
        resize(crop(pixels, areas, of_crop), size) if areas else resize_bicubic(pixels, size, size)
    )
    pixels = tf.ensure_shape(pixels, [size, size, 3])
    if how.flip:
        pixels = flip(pixels, how.flip, of_flip)
    if how.operations:
        pixels = randaugment(pixels, how, of_operations)
    return pixels


@functools.cache
def augmenter(size: int, how: Augmentation) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Make ``augment`` a function of the graph, so that its operations are traced once."""
    signature = [tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    return tf.function(
        lambda pixels, seed: augment(pixels, size, how, seed),
        input_signature=signature,
        autograph=False,
    )


def uniform(seed: tf.Tensor, count: int) -> tf.Tensor:
    """Draw (count) numbers from [0, 1) that hang on the seed alone, whatever the machine."""
    return tf.random.stateless_uniform([count], seed, alg="philox")


def crop(pixels: tf.Tensor, areas: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """Cut a random rectangle out: (H, W, 3) -> (h, w, 3); where none fits, the largest in the
    middle.
    """
    sides = tf.shape(pixels)[:2]
    draws = uniform(seed, 2 * ATTEMPTS + 2)
    heights, widths = _rectangles(sides, areas, RATIOS, draws[:-2])
    fits = (heights >= 1) & (widths >= 1) & (heights <= sides[0]) & (widths <= sides[1])
    found, first = tf.reduce_any(fits), tf.argmax(tf.cast(fits, tf.int32))
    H, W = tf.unstack(tf.cast(sides, tf.float32))
    middle = tf.round(tf.stack([tf.minimum(H, W / RATIOS[0]), tf.minimum(W, H * RATIOS[1])]))
    cut = tf.where(found, tf.stack([heights[first], widths[first]]), tf.cast(middle, tf.int32))
    room = tf.cast(sides - cut + 1, tf.float32)
    corner = tf.where(found, tf.cast(draws[-2:] * room, tf.int32), (sides - cut) // 2)
    corner = tf.minimum(corner, sides - cut)  # a draw just below 1 may round up
    return pixels[corner[0] : corner[0] + cut[0], corner[1] : corner[1] + cut[1]]


def _rectangles(
    sides: tf.Tensor, areas: tuple[float, float], ratios: tuple[float, float], draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Heights and widths, int32 (attempts), of shares of the area; the logarithm of the ratio is
    uniform.
    """
    of_area, of_ratio = tf.split(draws, 2)
    area = tf.cast(tf.reduce_prod(sides), tf.float32) * (areas[0] + of_area * (areas[1] - areas[0]))
    low, high = map(math.log, ratios)
    ratio = tf.exp(low + of_ratio * (high - low))
    return tuple(
        tf.cast(tf.round(tf.sqrt(product)), tf.int32) for product in (area / ratio, area * ratio)
    )


def resize(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Resize to a square, bilinear with antialiasing as Pillow's: uint8 (h, w, 3) -> (size, size,
    3).
    """
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(pixels)[:2], tf.float32)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=[size, size],
        scale=scale,
        translation=[0.0, 0.0],
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.cast(tf.clip_by_value(tf.floor(resized + 0.5), 0.0, 255.0), tf.uint8)


def flip(pixels: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """Mirror the picture, left to right."""
    return tf.cond(uniform(seed, 1)[0] < probability, lambda: pixels[:, ::-1], lambda: pixels)


def erase(values: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """Put normal noise in the place of a rectangle: normalised values float32 (S, S, 3) again."""
    of_place, of_noise = tf.unstack(tf.random.split(seed, 2, alg="philox"))
    draws = uniform(of_place, 2 * ATTEMPTS + 3)
    sides = tf.shape(values)[:2]
    heights, widths = _rectangles(sides, ERASED_AREA, ERASED_RATIOS, draws[:-3])
    fits = (heights < sides[0]) & (widths < sides[1])
    wanted = (draws[-1] < probability) & tf.reduce_any(fits)
    first = tf.argmax(tf.cast(fits, tf.int32))
    cut = tf.stack([heights[first], widths[first]])
    corner = tf.cast(draws[-3:-1] * tf.cast(sides - cut + 1, tf.float32), tf.int32)
    rows, columns = (
        (tf.range(sides[i]) >= corner[i]) & (tf.range(sides[i]) < corner[i] + cut[i])
        for i in range(2)
    )
    inside = (rows[:, None] & columns[None])[..., None]
    return tf.cond(
        wanted,
        lambda: tf.where(
            inside, tf.random.stateless_normal(tf.shape(values), of_noise, alg="philox"), values
        ),
        lambda: values,
    )


def randaugment(pixels: tf.Tensor, how: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Apply as many random operations one after the other: uint8 (S, S, 3) again."""
    of_choice, of_level = tf.unstack(tf.random.split(seed, 2, alg="philox"))
    draws = tf.reshape(uniform(of_choice, 3 * how.operations), [how.operations, 3])
    noise = tf.random.stateless_normal([how.operations], of_level, alg="philox")
    levels = tf.clip_by_value(how.level + how.level_spread * noise, 0.0, TOP_LEVEL)
    for draw, level in zip(tf.unstack(draws), tf.unstack(levels), strict=True):
        choice, sign, applied = tf.unstack(draw)
        index = tf.minimum(tf.cast(choice * len(OPERATIONS), tf.int32), len(OPERATIONS) - 1)
        index = tf.where(applied < APPLIED, index, len(OPERATIONS))
        pixels = apply(pixels, index, level, tf.where(sign < 0.5, -1.0, 1.0))
    return pixels


def apply(pixels: tf.Tensor, index: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Apply one operation of the table at a level from 0 to 10, to one side or the other; none
    beyond its end.
    """
    share = level / TOP_LEVEL
    branches = [lambda act=act: act(pixels, share, sign) for act in OPERATIONS.values()]
    return tf.switch_case(index, [*branches, lambda: pixels])


def _whole(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.int32)  # towards zero


def _factor(share: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """The further from 1, the stronger."""
    return tf.maximum(0.1, 1.0 + sign * 0.9 * share)


# What each operation makes of a level (as a share of 10) and a side; all grow stronger with it
# ("inc1").
OPERATIONS = {
    "autocontrast": lambda x, share, sign: autocontrast(x),
    "equalize": lambda x, share, sign: equalize(x),
    "invert": lambda x, share, sign: invert(x),
    "rotate": lambda x, share, sign: rotate(x, 30.0 * share * sign),
    "posterize": lambda x, share, sign: posterize(x, 4 - _whole(4 * share)),
    "solarize": lambda x, share, sign: solarize(x, 256 - _whole(256 * share)),
    "solarize_add": lambda x, share, sign: solarize_add(x, _whole(110 * share)),
    "colour": lambda x, share, sign: colour(x, _factor(share, sign)),
    "contrast": lambda x, share, sign: contrast(x, _factor(share, sign)),
    "brightness": lambda x, share, sign: brightness(x, _factor(share, sign)),
    "sharpness": lambda x, share, sign: sharpness(x, _factor(share, sign)),
    "shear_x": lambda x, share, sign: shear_x(x, 0.3 * share * sign),
    "shear_y": lambda x, share, sign: shear_y(x, 0.3 * share * sign),
    "translate_x": lambda x, share, sign: translate_x(x, 0.45 * share * sign),
    "translate_y": lambda x, share, sign: translate_y(x, 0.45 * share * sign),
}


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
    low, high = (
        reduce(values, axis=[0, 1], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max)
    )
    scale = 255.0 / tf.where(high > low, high - low, 1.0)
    stretched = tf.cast(tf.clip_by_value(values * scale - low * scale, 0.0, 255.0), tf.uint8)
    return tf.where(high > low, stretched, pixels)


def equalize(pixels: tf.Tensor) -> tf.Tensor:
    """Level out each channel's histogram."""
    flat = tf.cast(tf.reshape(pixels, [-1, 3]), tf.int32) + tf.constant([0, 256, 512])
    counts = tf.reshape(
        tf.math.bincount(tf.reshape(flat, [-1]), minlength=768, maxlength=768), [3, 256]
    )
    highest = 255 - tf.argmax(
        tf.cast(counts[:, ::-1] > 0, tf.int32), axis=1, output_type=tf.int32
    )  # (3)
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
    return tf.cast(
        tf.bitwise.left_shift(tf.bitwise.right_shift(values, dropped), dropped), tf.uint8
    )


def solarize(pixels: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert the levels from ``threshold`` (int32 scalar, 0 to 256) on."""
    return tf.where(tf.cast(pixels, tf.int32) < threshold, pixels, 255 - pixels)


def solarize_add(pixels: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Add ``amount`` (int32 scalar) to the levels below 128."""
    values = tf.cast(pixels, tf.int32)
    return tf.where(values < 128, tf.cast(tf.minimum(values + amount, 255), tf.uint8), pixels)


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    """Brightness (H, W, 1) in whole levels, as Pillow weighs the channels."""
    weighed = tf.reduce_sum(
        tf.cast(pixels, tf.int32) * tf.constant([19595, 38470, 7471]), axis=-1, keepdims=True
    )
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
    """Where each pixel comes from, [[a, b, c], [d, e, f]] over (x, y, 1) with pixel centres at
    halves: bilinear.
    """
    fill = tf.constant(FILL, tf.float32)
    rows: list[tf.Tensor | float] = []
    for x, y, shift in matrix:
        x, y = tf.cast(x, tf.float32), tf.cast(y, tf.float32)
        rows += [
            x,
            y,
            tf.cast(shift, tf.float32) + (x + y - 1.0) / 2,
        ]  # TensorFlow's centres lie at whole numbers
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
    return _move(
        pixels, [[1.0, 0.0, share * tf.cast(tf.shape(pixels)[1], tf.float32)], [0.0, 1.0, 0.0]]
    )


def translate_y(pixels: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Move the picture up by a share of its height."""
    return _move(
        pixels, [[1.0, 0.0, 0.0], [0.0, 1.0, share * tf.cast(tf.shape(pixels)[0], tf.float32)]]
    )


def rotate(pixels: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turn the picture about its middle, against the clock."""
    y, x = tf.unstack(tf.cast(tf.shape(pixels)[:2], tf.float32) / 2)
    angle = degrees * (3.141592653589793 / 180)
    sine, cosine = tf.sin(angle), tf.cos(angle)
    return _move(
        pixels,
        [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]],
    )
