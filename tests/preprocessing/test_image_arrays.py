"""Resizing and normalizing: Pillow's bicubic, OpenCV's bilinear, the same in Python and in the
graph.
"""

import numpy as np
import PIL
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from image_sides import SIDES, draw
from PIL import Image

from tf_groupvit.preprocessing import image_arrays, image_graph
from tf_groupvit.preprocessing.image_arrays import STATISTICS
from tf_groupvit.preprocessing.image_reading import read_image

PYTHON, GRAPH = SIDES["python"], SIDES["graph"]
TARGETS = [(224, 224), (448, 448), (17, 13), (64, 300), (300, 64), (1, 1), (500, 7)]


@pytest.fixture(params=SIDES)
def side(request):
    return SIDES[request.param]


def edges(H: int = 90, W: int = 130) -> np.ndarray:
    """Hard edges, straight and slanted, and a fine checkerboard: uint8 (H, W, 3)."""
    rows, columns = np.mgrid[0:H, 0:W]
    planes = [columns > W // 2, rows + columns > (H + W) // 2, (rows + columns) % 2]
    return (np.stack(planes, -1) * 255).astype(np.uint8)


def pillow(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize(
    "picture", [edges(), edges(130, 90), draw(41, 67), draw(3, 60)], ids=lambda p: str(p.shape[:2])
)
def test_bicubic_in_the_graph_is_within_two_levels_of_python(picture, target):
    H, W, C = (result := GRAPH.resize_bicubic(picture, *target)).shape
    assert (*target, 3) == (H, W, C)
    assert levels_apart(result, PYTHON.resize_bicubic(picture, *target)) <= 2


def test_bicubic_on_photos_is_within_two_levels_and_almost_always_equal(photos):
    for photo in photos:
        pixels = read_image(photo)[:, :300]
        for target in TARGETS:
            one, other = (
                GRAPH.resize_bicubic(pixels, *target),
                PYTHON.resize_bicubic(pixels, *target),
            )
            assert levels_apart(one, other) <= 2
            assert np.mean(one != other) < 0.01


@pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow ordered its passes otherwise before 13"
)
@settings(deadline=None, max_examples=60)
@given(*[st.integers(1, 90)] * 4)
def test_bicubic_in_python_is_pillows(H, W, height, width):
    noise = np.random.default_rng(H).integers(0, 2, (H, W, 3)).astype(np.uint8) * 255
    np.testing.assert_array_equal(
        PYTHON.resize_bicubic(noise, height, width), pillow(noise, height, width)
    )


def test_bicubic_is_pillows_in_any_version_where_columns_come_first():
    np.testing.assert_array_equal(PYTHON.resize_bicubic(edges(), 60, 50), pillow(edges(), 60, 50))
    assert not image_arrays.rows_first(90, 130, 60, 50)
    assert image_arrays.rows_first(90, 130, 60, 130)


def bilinear(pixels, height, width):
    return image_graph.resize_bilinear(tf.constant(pixels), height, width).numpy()


def test_bilinear_by_hand():
    row = np.repeat(np.array([[[0], [100]]], np.uint8), 3, -1)
    assert bilinear(row, 1, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    assert bilinear(row.transpose(1, 0, 2), 4, 1)[:, 0, 0].tolist() == [0, 25, 75, 100]


def test_bilinear_does_not_smooth_when_it_shrinks():
    row = np.repeat(
        np.array([[[0], [0], [200], [0], [0], [0]]], np.uint8), 3, -1
    )  # the middle of three is place 0.5
    assert bilinear(row, 1, 3)[0, :, 0].tolist() == [0, 100, 0]
    assert bilinear(row, 1, 2)[0, :, 0].tolist() == [0, 0]


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_a_resize_to_its_own_size_changes_nothing_and_one_color_stays(side, method):
    resize = side.resize_bicubic if method == "bicubic" else bilinear
    np.testing.assert_array_equal(resize(edges(), 90, 130), edges())
    plain = np.full((9, 14, 3), (3, 128, 251), np.uint8)
    np.testing.assert_array_equal(resize(plain, 31, 5), np.broadcast_to(plain[0, 0], (31, 5, 3)))


@pytest.mark.parametrize("name", STATISTICS)
def test_normalizing_is_the_formula(side, name):
    mean, std = STATISTICS[name]
    pixels = np.stack([draw(seed=1), draw(seed=2)])
    B, C, H, W = (values := side.normalize(pixels, mean, std)).shape
    assert (B, C, H, W) == (2, 3, 13, 22)
    assert values.dtype == np.float32
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("name", STATISTICS)
def test_normalizing_gives_the_same_floats_in_graphs(name):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    found = [each.normalize(levels, *STATISTICS[name]) for each in (PYTHON, GRAPH)]
    np.testing.assert_array_equal(*found)


def test_normalizing_no_image_gives_none(side):
    assert side.normalize(np.zeros((0, 4, 5, 3), np.uint8), *STATISTICS["clip"]).shape == (
        0,
        3,
        4,
        5,
    )
