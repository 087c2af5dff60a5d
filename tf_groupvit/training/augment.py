"""Pixels uint8 (H, W, 3) of any size and a seed in; pixels uint8 (S, S, 3), cropped, flipped and changed, out.

Paper: section 4.1; the published models were trained with timm's RandomResizedCrop, flip, RandAugment
``rand-m9-mstd0.5-inc1`` and random erasing. Here the same draws are made in graph ops. All numbers hang on the seed of
the image alone, so that a run can be repeated, and resumed in its middle.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.image_graph import resize_bicubic
from tf_groupvit.training import randaugment_ops as pillow

ATTEMPTS = 10  # to find a rectangle that fits
RATIOS = (3 / 4, 4 / 3)  # width to height of a crop
ERASED_AREA, ERASED_RATIOS = (0.02, 1 / 3), (0.3, 1 / 0.3)
APPLIED = 0.5  # how likely a drawn operation of RandAugment is applied
TOP_LEVEL = 10.0


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed; the defaults are the published ones, ``PLAIN`` changes nothing.

    Attributes:
        crop: the smallest and the largest share of the image's area that is cut out; None: the whole image.
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
            raise InputError(f"crop should be two shares of the area, 0 < low <= high <= 1, got {self.crop}.")
        for name in ("flip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} should be a probability from 0 to 1, got {getattr(self, name)}.")
        if self.operations < 0 or not 0 <= self.level <= TOP_LEVEL or self.level_spread < 0:
            raise InputError("operations and level_spread should be 0 or more, level from 0 to 10.")


PUBLISHED = Augmentation()
PLAIN = Augmentation(crop=None, flip=0.0, operations=0, erasing=0.0)


def augment(pixels: tf.Tensor, size: int, how: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Crop, resize, flip and RandAugment: uint8 (H, W, 3), seed int32 (2) -> uint8 (size, size, 3)."""
    of_crop, of_flip, of_operations = tf.unstack(tf.random.split(seed, 3, alg="philox"))
    areas = how.crop
    # An image that is not cut is resized as the segmenter does in mode "whole".
    pixels = resize(crop(pixels, areas, of_crop), size) if areas else resize_bicubic(pixels, size, size)
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
        lambda pixels, seed: augment(pixels, size, how, seed), input_signature=signature, autograph=False
    )


def uniform(seed: tf.Tensor, count: int) -> tf.Tensor:
    """Draw (count) numbers from [0, 1) that hang on the seed alone, whatever the machine."""
    return tf.random.stateless_uniform([count], seed, alg="philox")


def crop(pixels: tf.Tensor, areas: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """Cut a random rectangle out: (H, W, 3) -> (h, w, 3); where none fits, the largest in the middle."""
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
    """Heights and widths, int32 (attempts), of shares of the area; the logarithm of the ratio is uniform."""
    of_area, of_ratio = tf.split(draws, 2)
    area = tf.cast(tf.reduce_prod(sides), tf.float32) * (areas[0] + of_area * (areas[1] - areas[0]))
    low, high = map(math.log, ratios)
    ratio = tf.exp(low + of_ratio * (high - low))
    return tuple(tf.cast(tf.round(tf.sqrt(product)), tf.int32) for product in (area / ratio, area * ratio))


def resize(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Resize to a square, bilinear with antialiasing as Pillow's: uint8 (h, w, 3) -> (size, size, 3)."""
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
    rows, columns = ((tf.range(sides[i]) >= corner[i]) & (tf.range(sides[i]) < corner[i] + cut[i]) for i in range(2))
    inside = (rows[:, None] & columns[None])[..., None]
    return tf.cond(
        wanted,
        lambda: tf.where(inside, tf.random.stateless_normal(tf.shape(values), of_noise, alg="philox"), values),
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
    """Apply one operation of the table at a level from 0 to 10, to one side or the other; none beyond its end."""
    share = level / TOP_LEVEL
    branches = [lambda act=act: act(pixels, share, sign) for act in OPERATIONS.values()]
    return tf.switch_case(index, [*branches, lambda: pixels])


def _whole(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.int32)  # towards zero


def _factor(share: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """The further from 1, the stronger."""
    return tf.maximum(0.1, 1.0 + sign * 0.9 * share)


# What each operation makes of a level (as a share of 10) and a side; all grow stronger with it ("inc1").
OPERATIONS = {
    "autocontrast": lambda x, share, sign: pillow.autocontrast(x),
    "equalize": lambda x, share, sign: pillow.equalize(x),
    "invert": lambda x, share, sign: pillow.invert(x),
    "rotate": lambda x, share, sign: pillow.rotate(x, 30.0 * share * sign),
    "posterize": lambda x, share, sign: pillow.posterize(x, 4 - _whole(4 * share)),
    "solarize": lambda x, share, sign: pillow.solarize(x, 256 - _whole(256 * share)),
    "solarize_add": lambda x, share, sign: pillow.solarize_add(x, _whole(110 * share)),
    "colour": lambda x, share, sign: pillow.colour(x, _factor(share, sign)),
    "contrast": lambda x, share, sign: pillow.contrast(x, _factor(share, sign)),
    "brightness": lambda x, share, sign: pillow.brightness(x, _factor(share, sign)),
    "sharpness": lambda x, share, sign: pillow.sharpness(x, _factor(share, sign)),
    "shear_x": lambda x, share, sign: pillow.shear_x(x, 0.3 * share * sign),
    "shear_y": lambda x, share, sign: pillow.shear_y(x, 0.3 * share * sign),
    "translate_x": lambda x, share, sign: pillow.translate_x(x, 0.45 * share * sign),
    "translate_y": lambda x, share, sign: pillow.translate_y(x, 0.45 * share * sign),
}
