"""RandAugment's operations in graph ops: to the level what Pillow gives, or within one where pixels
are mixed.
"""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from tf_groupvit.training import augment as ops


def some_pixels(seed=0, low=0, high=256, size=(13, 17)):
    return np.random.default_rng(seed).integers(low, high, (*size, 3)).astype("uint8")


def whole(value):
    return tf.constant(value, tf.int32)


IMAGES = {
    "noise": some_pixels(),
    "narrow": some_pixels(1, 90, 140),
    "flat": np.full((13, 17, 3), 77, np.uint8),
    "large": some_pixels(2, 30, 200, (64, 48)),
}
EXACT = {
    "autocontrast": (ops.autocontrast, ImageOps.autocontrast),
    "equalize": (ops.equalize, ImageOps.equalize),
    "invert": (ops.invert, ImageOps.invert),
    **{
        f"posterize to {bits}": (
            lambda x, b=bits: ops.posterize(x, whole(b)),
            lambda x, b=bits: ImageOps.posterize(x, b),
        )
        for bits in (1, 3, 8)
    },
    **{
        f"solarize from {t}": (
            lambda x, t=t: ops.solarize(x, whole(t)),
            lambda x, t=t: ImageOps.solarize(x, t),
        )
        for t in (0, 26, 128, 256)
    },
    **{
        f"{ours.__name__} {f}": (
            lambda x, o=ours, f=f: o(x, f),
            lambda x, p=peer, f=f: p(x).enhance(f),
        )
        for ours, peer in (
            (ops.colour, ImageEnhance.Color),
            (ops.contrast, ImageEnhance.Contrast),
            (ops.brightness, ImageEnhance.Brightness),
            (ops.sharpness, ImageEnhance.Sharpness),
        )
        for f in (0.25, 1.0, 1.75)  # exact in floats of 32 bits
    },
}


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", EXACT)
def test_levels_are_pillows_own(name, image):
    ours, peer = EXACT[name]
    expected = np.asarray(peer(Image.fromarray(IMAGES[image])))
    np.testing.assert_array_equal(ours(tf.constant(IMAGES[image])).numpy(), expected)


def affine(matrix):
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )


MOVED = {
    "shear x": (lambda x: ops.shear_x(x, 0.27), affine((1, 0.27, 0, 0, 1, 0))),
    "shear y": (lambda x: ops.shear_y(x, -0.2), affine((1, 0, 0, -0.2, 1, 0))),
    "translate x": (lambda x: ops.translate_x(x, 0.3), affine((1, 0, 0.3 * 48, 0, 1, 0))),
    "translate y": (lambda x: ops.translate_y(x, -0.3), affine((1, 0, 0, 0, 1, -0.3 * 64))),
    "rotate": (
        lambda x: ops.rotate(x, 27.0),
        lambda image: image.rotate(27, Image.Resampling.BILINEAR),
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_moved_pictures_are_pillows_within_a_level(name):
    """But for the border, where Pillow repeats the last pixel and TensorFlow mixes it with the
    filling.
    """
    ours, peer = MOVED[name]
    pixels = IMAGES["large"]
    inside = np.asarray(peer(Image.fromarray(np.full_like(pixels, 255))))[..., 0] == 255
    away = np.pad(inside, 2)
    core = np.all(
        [away[2 + dy :, 2 + dx :][:64, :48] for dy in (-2, 0, 2) for dx in (-2, 0, 2)], axis=0
    )
    core[:2] = core[-2:] = core[:, :2] = core[:, -2:] = False
    assert core.mean() > 0.3
    difference = ours(tf.constant(pixels)).numpy().astype(int) - np.asarray(
        peer(Image.fromarray(pixels))
    )
    assert np.abs(difference)[core].max() <= 1


def test_what_a_move_leaves_empty_gets_the_mean_colour():
    moved = ops.translate_x(tf.zeros([4, 4, 3], tf.uint8), 0.5).numpy()
    assert (moved[:, :2] == 0).all() and (moved[:, 2:] == ops.FILL).all()


def test_solarize_add_by_hand():
    pixels = tf.constant([[[0, 100, 127], [128, 200, 255]]], tf.uint8)
    assert ops.solarize_add(pixels, whole(99)).numpy().tolist() == [
        [[99, 199, 226], [128, 200, 255]]
    ]
    assert ops.solarize_add(pixels, whole(140)).numpy().tolist() == [
        [[140, 240, 255], [128, 200, 255]]
    ]


def test_a_quarter_turn_moves_each_corner_to_the_next_one():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 200
    turned = ops.rotate(tf.constant(pixels), 90.0).numpy()
    assert turned[1, 0].tolist() == [200] * 3 and turned.sum() == 600
