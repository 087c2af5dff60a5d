"""Augmentation: hand-sized pictures, what holds for every draw, and RandAugment's operations,
which give to the level what Pillow gives, or within one where pixels are mixed.
"""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from tf_groupvit.errors import InputError
from tf_groupvit.training import augment
from tf_groupvit.training.augment import OPERATIONS, PLAIN, PUBLISHED, Augmentation

crop = tf.function(
    lambda pixels, seed: augment.crop(pixels, (0.08, 1.0), seed), reduce_retracing=True
)
erase = tf.function(lambda values, seed: augment.erase(values, 1.0, seed))
published = tf.function(
    lambda pixels, seed: augment.augment(pixels, 8, PUBLISHED, seed), reduce_retracing=True
)


def seeds(count):
    return [tf.constant([7, i], tf.int32) for i in range(count)]


def numbered(height, width):
    """Every pixel is told apart: its row, its column, and 0."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(height)[:, None], np.arange(width)
    return tf.constant(pixels)


def test_crops_are_rectangles_of_the_image_within_the_published_range():
    areas, ratios, corners = [], [], set()
    for seed in seeds(300):
        cut = crop(numbered(40, 60), seed).numpy()
        top, left = cut[0, 0, :2]
        np.testing.assert_array_equal(
            cut, numbered(40, 60)[top : top + len(cut), left : left + cut.shape[1]]
        )
        areas.append(cut.shape[0] * cut.shape[1] / 2400)
        ratios.append(cut.shape[1] / cut.shape[0])
        corners.add((top, left))
    assert 0.07 < min(areas) < 0.15 and 0.85 < max(areas) <= 1  # sides are whole pixels
    assert 0.70 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.42
    assert abs(np.mean(np.log(ratios))) < 0.06 and len(corners) > 100


@pytest.mark.parametrize(
    ("sides", "expected"), [((4, 100), (4, 5)), ((100, 4), (5, 4)), ((1, 1), (1, 1))]
)
def test_where_no_crop_fits_the_middle_is_taken(sides, expected):
    """Whole-image areas alone: of 4 x 100, no such rectangle is at most a third wider than high."""
    for seed in seeds(5):
        cut = augment.crop(numbered(*sides), (1.0, 1.0), seed).numpy()
        assert cut.shape[:2] == expected
        assert cut[0, 0, :2].tolist() == [
            (sides[0] - expected[0]) // 2,
            (sides[1] - expected[1]) // 2,
        ]


def test_resizing_is_pillows_bilinear_within_a_level():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 23, 3)).astype("uint8")
    for size in (8, 64):
        expected = np.asarray(
            Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
        ).astype(int)
        assert np.abs(augment.resize(tf.constant(pixels), size).numpy() - expected).max() <= 1


def test_half_of_the_pictures_are_mirrored_and_nothing_else_happens():
    pixels, mirrored = numbered(2, 3), 0
    flip = tf.function(lambda seed: augment.flip(pixels, 0.5, seed))
    for seed in seeds(200):
        flipped = flip(seed).numpy()
        mirrored += flipped[0, 0, 1] == 2
        np.testing.assert_array_equal(
            flipped if flipped[0, 0, 1] == 0 else flipped[:, ::-1], pixels
        )
    assert 70 < mirrored < 130  # four standard deviations


def test_a_rectangle_of_noise_is_put_in_and_the_rest_stays():
    values, areas, noise = tf.fill([32, 32, 3], 9.0), [], []
    for seed in seeds(200):
        erased = erase(values, seed).numpy()
        changed = (erased != 9.0).all(axis=-1)
        rows, columns = changed.any(axis=1), changed.any(axis=0)
        np.testing.assert_array_equal(changed, rows[:, None] & columns)
        for side in (rows, columns):
            assert np.abs(np.diff(np.pad(side.astype(int), 1))).sum() == 2  # one stretch
        areas.append(changed.mean())
        noise.append(erased[changed])
    assert 0.01 < min(areas) < 0.05 and 0.28 < max(areas) < 0.36
    noise = np.concatenate(noise)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02  # many thousand draws


def test_erasing_is_as_rare_as_it_should_be():
    rarely = tf.function(
        lambda seed: tf.reduce_any(augment.erase(tf.ones([8, 8, 3]), 0.25, seed) != 1.0)
    )
    erased = sum(bool(rarely(seed)) for seed in seeds(200))
    assert 25 < erased < 75  # four standard deviations


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    pixels = tf.constant(np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype("uint8"))
    first = [published(pixels, seed).numpy() for seed in seeds(10)]
    again = [published(pixels, seed).numpy() for seed in seeds(10)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({picture.tobytes() for picture in first}) == 10
    assert all(picture.shape == (8, 8, 3) and picture.dtype == np.uint8 for picture in first)


def test_plain_pictures_are_the_segmenters():
    from tf_groupvit.preprocessing.image_arrays import resize_bicubic

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype("uint8")
    plain = augment.augment(tf.constant(pixels), 8, PLAIN, seeds(1)[0]).numpy().astype(int)
    assert np.abs(plain - resize_bicubic(pixels, 8, 8)).max() <= 2  # as the graph twin promises


def test_every_operation_is_drawn_and_half_of_them_are_applied(monkeypatch):
    """Operations that add 1, 2, 3 ... and the level 9 that they get."""
    numbers = {
        name: (lambda x, share, sign, n=n: x + n) for n, name in enumerate(OPERATIONS, start=1)
    }
    monkeypatch.setattr(augment, "OPERATIONS", numbers)
    how = Augmentation(operations=1)
    one = tf.function(
        lambda seed: augment.randaugment(tf.zeros([1, 1, 3], tf.uint8), how, seed)[0, 0, 0]
    )
    drawn = np.bincount([one(seed).numpy() for seed in seeds(900)], minlength=16)
    assert len(OPERATIONS) == 15 and abs(drawn[0] - 450) < 60  # four standard deviations
    assert drawn[1:].min() > 8 and drawn[1:].max() < 60  # 30 expected of each


def test_operations_grow_with_their_level_and_go_to_both_sides():
    pixels = numbered(16, 16).numpy() ** 2
    pixels[4, 4] = 255  # a dot, so that sharpening shows

    apply = tf.function(lambda index, level, sign: augment.apply(pixels, index, level, sign))

    def at(*numbers):
        return apply(*map(tf.constant, numbers)).numpy()

    def changed(*numbers):
        return np.abs(at(*numbers).astype(int) - pixels).mean()

    for index, name in enumerate(OPERATIONS):
        if name in ("autocontrast", "equalize", "invert"):
            continue
        assert changed(index, 2.0, 1.0) < changed(index, 9.0, 1.0), name
        both = [at(index, 9.0, sign) for sign in (-1.0, 1.0)]
        assert np.array_equal(*both) == (name in ("posterize", "solarize", "solarize_add")), name
    assert changed(len(OPERATIONS), 9.0, 1.0) == 0


@pytest.mark.parametrize(
    "change", [dict(crop=(0, 1)), dict(flip=1.5), dict(erasing=-0.1), dict(level=11)]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(InputError):
        Augmentation(**change)


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
    "autocontrast": (augment.autocontrast, ImageOps.autocontrast),
    "equalize": (augment.equalize, ImageOps.equalize),
    "invert": (lambda x: augment.OPERATIONS["invert"](x, 1.0, 1.0), ImageOps.invert),
    **{
        f"posterize to {bits}": (
            lambda x, b=bits: augment.posterize(x, whole(b)),
            lambda x, b=bits: ImageOps.posterize(x, b),
        )
        for bits in (1, 3, 8)
    },
    **{
        f"solarize from {t}": (
            lambda x, t=t: augment.solarize(x, whole(t)),
            lambda x, t=t: ImageOps.solarize(x, t),
        )
        for t in (0, 26, 128, 256)
    },
    **{
        f"{name} {f}": (
            lambda x, d=degenerate, f=f: augment.blend(d(x), x, f),
            lambda x, p=peer, f=f: p(x).enhance(f),
        )
        for name, degenerate, peer in (
            ("color", augment.gray, ImageEnhance.Color),
            ("contrast", augment.mean_gray, ImageEnhance.Contrast),
            ("brightness", lambda x: 0.0, ImageEnhance.Brightness),
            ("sharpness", augment.smooth, ImageEnhance.Sharpness),
        )
        for f in (0.25, 1.0, 1.75)  # exact in floats of 32 bits
    },
}


@pytest.mark.parametrize("name", EXACT)
def test_levels_are_pillows_own(name):
    ours, peer = EXACT[name]
    for kind, pixels in IMAGES.items():
        expected = np.asarray(peer(Image.fromarray(pixels)))
        np.testing.assert_array_equal(ours(tf.constant(pixels)).numpy(), expected, err_msg=kind)


def affine(matrix):
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )


MOVED = {
    "shear x": (
        lambda x: augment.move(x, [[1, 0.27, 0], [0, 1, 0]]),
        affine((1, 0.27, 0, 0, 1, 0)),
    ),
    "shear y": (
        lambda x: augment.move(x, [[1, 0, 0], [-0.2, 1, 0]]),
        affine((1, 0, 0, -0.2, 1, 0)),
    ),
    "translate x": (lambda x: augment.translate(x, 0.0, 0.3), affine((1, 0, 0.3 * 48, 0, 1, 0))),
    "translate y": (lambda x: augment.translate(x, -0.3, 0.0), affine((1, 0, 0, 0, 1, -0.3 * 64))),
    "rotate": (
        lambda x: augment.rotate(x, 27.0),
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


def test_what_a_move_leaves_empty_gets_the_mean_color():
    moved = augment.translate(tf.zeros([4, 4, 3], tf.uint8), 0.0, 0.5).numpy()
    assert (moved[:, :2] == 0).all() and (moved[:, 2:] == augment.FILL).all()


def test_solarize_add_by_hand():
    pixels = tf.constant([[[0, 100, 127], [128, 200, 255]]], tf.uint8)
    assert augment.solarize_add(pixels, whole(99)).numpy().tolist() == [
        [[99, 199, 226], [128, 200, 255]]
    ]
    assert augment.solarize_add(pixels, whole(140)).numpy().tolist() == [
        [[140, 240, 255], [128, 200, 255]]
    ]


def test_a_quarter_turn_moves_each_corner_to_the_next_one():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 200
    turned = augment.rotate(tf.constant(pixels), 90.0).numpy()
    assert turned[1, 0].tolist() == [200] * 3 and turned.sum() == 600
