"""Random changes of training images in graph ops: crop, flip, RandAugment, erasing.

Paper: section 4.1; the published models were trained with timm's RandomResizedCrop, flip,
    RandAugment ``rand-m9-mstd0.5-inc1`` and random erasing. The same draws are made here, and the
    operations follow Pillow's arithmetic. All of them depend on the seed of the image alone, so
    that a run can be repeated, and resumed in its middle.

Keras' RandAugment and RandomErasing cannot be seeded for each image: their draws depend on the
order of calls. Measured: 64 images to 224 x 224 in ``tf.data`` on two cores, 20 images/s against
150 here, because RandAugment computes all its operations for every image; with two calls in
parallel, none of 16 images was the same in a second run.
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
FILL = (124, 116, 104)  # where a moved image leaves nothing: the mean of ImageNet's pixels


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed; the defaults are the published ones.

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
    """Crop, resize, flip, RandAugment: uint8 (H, W, 3), seed int32 (2) -> uint8 (size, size, 3)."""
    of_crop, of_flip, of_operations = tf.unstack(tf.random.split(seed, 3, alg="philox"))
    areas = how.crop
    # An image that is not cut is resized as the segmenter does in mode "whole".
    cut = crop(pixels, areas, of_crop) if areas else pixels
    pixels = resize(cut, size) if areas else resize_bicubic(cut, size, size)
    pixels = tf.ensure_shape(pixels, [size, size, 3])
    if how.flip:
        pixels = flip(pixels, how.flip, of_flip)
    if how.operations:
        pixels = randaugment(pixels, how, of_operations)
    return pixels


@functools.cache
def augmenter(size: int, how: Augmentation) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """``augment`` as a function of pixels (H, W, 3) and seed (2), which is traced once."""
    signature = [tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    return tf.function(
        lambda pixels, seed: augment(pixels, size, how, seed),
        input_signature=signature,
        autograph=False,
    )


def uniform(seed: tf.Tensor, count: int) -> tf.Tensor:
    """Numbers (N,) from [0, 1) that depend on the seed alone, on any machine."""
    return tf.random.stateless_uniform([count], seed, alg="philox")


def crop(pixels: tf.Tensor, areas: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """A random rectangle: (H, W, 3) -> (h, w, 3); where none fits, the largest in the middle."""
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
    """Heights and widths, int32 (attempts), of shares of the area; log of the ratio is uniform."""
    of_area, of_ratio = tf.split(draws, 2)
    area = tf.cast(tf.reduce_prod(sides), tf.float32) * (areas[0] + of_area * (areas[1] - areas[0]))
    low, high = map(math.log, ratios)
    ratio = tf.exp(low + of_ratio * (high - low))
    heights, widths = tf.sqrt(area / ratio), tf.sqrt(area * ratio)
    return tf.cast(tf.round(heights), tf.int32), tf.cast(tf.round(widths), tf.int32)


def resize(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Resize uint8 (H, W, 3) to (S, S, 3), bilinear with antialiasing as Pillow does."""
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
    """Mirror an image (H, W, 3) left to right, with this probability."""
    return tf.cond(uniform(seed, 1)[0] < probability, lambda: pixels[:, ::-1], lambda: pixels)


def erase(values: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """Replace a random rectangle of normalized values, float32 (S, S, 3), by normal noise."""
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

    def erased() -> tf.Tensor:
        noise = tf.random.stateless_normal(tf.shape(values), of_noise, alg="philox")
        return tf.where(inside, noise, values)

    return tf.cond(wanted, erased, lambda: values)


def randaugment(pixels: tf.Tensor, how: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Apply random operations of the table one after the other: uint8 (S, S, 3) again."""
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
    """Apply an operation of the table to uint8 (H, W, 3); an index beyond its end changes nothing.

    ``index``, ``level`` from 0 to 10 and ``sign``, -1 or 1, are scalars.
    """
    share = level / TOP_LEVEL
    branches = [lambda act=act: act(pixels, share, sign) for act in OPERATIONS.values()]
    return tf.switch_case(index, [*branches, lambda: pixels])


def _steps(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.int32)  # towards zero


def _factor(share: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Of a blend: the further from 1, the stronger."""
    return tf.maximum(0.1, 1.0 + sign * 0.9 * share)


# Pixels (H, W, 3), level as a share of 10, and sign -> pixels; all grow stronger with the level
# ("inc1"). Matrices: see ``move``.
OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "autocontrast": lambda x, share, sign: autocontrast(x),
    "equalize": lambda x, share, sign: equalize(x),
    "invert": lambda x, share, sign: 255 - x,
    "rotate": lambda x, share, sign: rotate(x, 30.0 * share * sign),
    "posterize": lambda x, share, sign: posterize(x, 4 - _steps(4 * share)),
    "solarize": lambda x, share, sign: solarize(x, 256 - _steps(256 * share)),
    "solarize_add": lambda x, share, sign: solarize_add(x, _steps(110 * share)),
    "color": lambda x, share, sign: blend(gray(x), x, _factor(share, sign)),
    "contrast": lambda x, share, sign: blend(mean_gray(x), x, _factor(share, sign)),
    "brightness": lambda x, share, sign: blend(tf.constant(0.0), x, _factor(share, sign)),
    "sharpness": lambda x, share, sign: blend(smooth(x), x, _factor(share, sign)),
    "shear_x": lambda x, share, sign: move(x, [[1.0, 0.3 * share * sign, 0.0], [0.0, 1.0, 0.0]]),
    "shear_y": lambda x, share, sign: move(x, [[1.0, 0.0, 0.0], [0.3 * share * sign, 1.0, 0.0]]),
    "translate_x": lambda x, share, sign: translate(x, 0.0, 0.45 * share * sign),
    "translate_y": lambda x, share, sign: translate(x, 0.45 * share * sign, 0.0),
}


def _to_levels(values: tf.Tensor) -> tf.Tensor:
    """Floats to uint8 as Pillow's arithmetic does: cut to 0..255, the fraction dropped."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


def autocontrast(pixels: tf.Tensor) -> tf.Tensor:
    """Stretch the levels of each channel of uint8 (H, W, 3) over 0..255; a flat channel stays."""
    values = tf.cast(pixels, tf.float64)  # as Pillow: floats of 32 bits fall short of whole numbers
    low = tf.reduce_min(values, axis=[0, 1], keepdims=True)
    high = tf.reduce_max(values, axis=[0, 1], keepdims=True)
    scale = 255.0 / tf.where(high > low, high - low, 1.0)
    stretched = tf.cast(tf.clip_by_value(values * scale - low * scale, 0.0, 255.0), tf.uint8)
    return tf.where(high > low, stretched, pixels)


def equalize(pixels: tf.Tensor) -> tf.Tensor:
    """Level out the histogram of each channel of uint8 (H, W, 3)."""
    levels = tf.cast(pixels, tf.int32)
    flat = tf.reshape(levels + tf.constant([0, 256, 512]), [-1])
    counts = tf.reshape(tf.math.bincount(flat, minlength=768, maxlength=768), [3, 256])
    there = tf.cast(counts[:, ::-1] > 0, tf.int32)
    highest = 255 - tf.argmax(there, axis=1, output_type=tf.int32)  # (3)
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, highest, batch_dims=1)) // 255  # (3)
    divisor = tf.maximum(step, 1)[:, None]
    table = (divisor // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // divisor  # (3, 256)
    table = tf.where(step[:, None] > 0, tf.minimum(table, 255), tf.range(256)[None])
    by_level = tf.reshape(tf.cast(tf.transpose(table), tf.uint8), [-1])  # (256 * 3)
    return tf.gather(by_level, levels * 3 + tf.range(3))


def posterize(pixels: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the upper ``bits`` (int32 scalar, 0 to 8) of each level of uint8 (H, W, 3)."""
    dropped, levels = tf.cast(8 - bits, tf.int32), tf.cast(pixels, tf.int32)
    kept = tf.bitwise.left_shift(tf.bitwise.right_shift(levels, dropped), dropped)
    return tf.cast(kept, tf.uint8)


def solarize(pixels: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert the levels of uint8 (H, W, 3) from ``threshold`` (int32 scalar, 0 to 256) on."""
    return tf.where(tf.cast(pixels, tf.int32) < threshold, pixels, 255 - pixels)


def solarize_add(pixels: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Add ``amount`` (int32 scalar) to the levels below 128 of uint8 (H, W, 3)."""
    values = tf.cast(pixels, tf.int32)
    return tf.where(values < 128, tf.cast(tf.minimum(values + amount, 255), tf.uint8), pixels)


def blend(degenerate: tf.Tensor, pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between a degenerate image, at factor 0, and uint8 (H, W, 3), at 1; beyond it above 1."""
    return _to_levels(degenerate + factor * (tf.cast(pixels, tf.float32) - degenerate))


def gray(pixels: tf.Tensor) -> tf.Tensor:
    """Brightness (H, W, 1) of (H, W, 3) in whole levels, as Pillow weighs the channels."""
    weights = tf.constant([19595, 38470, 7471])
    weighed = tf.reduce_sum(tf.cast(pixels, tf.int32) * weights, axis=-1, keepdims=True)
    return tf.cast(tf.bitwise.right_shift(weighed + 0x8000, 16), tf.float32)


def mean_gray(pixels: tf.Tensor) -> tf.Tensor:
    """The mean brightness of (H, W, 3), a whole level, scalar."""
    return tf.floor(tf.reduce_mean(gray(pixels)) + 0.5)


def smooth(pixels: tf.Tensor) -> tf.Tensor:
    """Pillow's SMOOTH filter of (H, W, 3), float32; the border stays."""
    values = tf.cast(pixels, tf.float32)[None]
    kernel = tf.constant([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13.0
    kernel = tf.tile(kernel[..., None, None], [1, 1, 3, 1])
    smoothed = tf.floor(tf.nn.depthwise_conv2d(values, kernel, [1, 1, 1, 1], "VALID") + 0.5)
    border = [[0, 0], [1, 1], [1, 1], [0, 0]]
    inner = tf.pad(tf.ones_like(smoothed), border)
    return tf.where(inner > 0, tf.pad(smoothed, border), values)[0]


def move(pixels: tf.Tensor, matrix: Sequence[Sequence[tf.Tensor | float]]) -> tf.Tensor:
    """Move the pixels of uint8 (H, W, 3), bilinear.

    Args:
        matrix: where each pixel's value is taken from: [[a, b, c], [d, e, f]] over (x, y, 1), with
            pixel centers at halves.
    """
    fill = tf.constant(FILL, tf.float32)
    rows: list[tf.Tensor | float] = []
    for x, y, shift in matrix:
        x, y = tf.cast(x, tf.float32), tf.cast(y, tf.float32)
        # TensorFlow's centers lie at whole numbers.
        rows += [x, y, tf.cast(shift, tf.float32) + (x + y - 1.0) / 2]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=(tf.cast(pixels, tf.float32) - fill)[None],
        transforms=tf.stack([*rows, 0.0, 0.0])[None],
        output_shape=tf.shape(pixels)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return _to_levels(moved[0] + fill + 0.5)


def translate(pixels: tf.Tensor, up: tf.Tensor | float, left: tf.Tensor | float) -> tf.Tensor:
    """Move (H, W, 3) up and to the left by shares of its height and width."""
    height, width = tf.unstack(tf.cast(tf.shape(pixels)[:2], tf.float32))
    return move(pixels, [[1.0, 0.0, left * width], [0.0, 1.0, up * height]])


def rotate(pixels: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turn (H, W, 3) counterclockwise about its middle."""
    y, x = tf.unstack(tf.cast(tf.shape(pixels)[:2], tf.float32) / 2)
    angle = degrees * (math.pi / 180)
    sine, cosine = tf.sin(angle), tf.cos(angle)
    by_row = [cosine, -sine, x - cosine * x + sine * y]
    return move(pixels, [by_row, [sine, cosine, y - sine * x - cosine * y]])
