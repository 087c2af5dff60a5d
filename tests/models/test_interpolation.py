"""Resizing as matrices: what a row must sum to, what stays as it is, and cases that fit on a hand."""

import numpy as np
import pytest
from keras import ops
from tiny_models import make, numbers, some_pixels, tiny, vision_config

from tf_groupvit.models.operations import bicubic_matrix, bilinear_matrix, resize_grid, resize_maps

pytestmark = pytest.mark.models

MATRICES = [bilinear_matrix, bicubic_matrix]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("out", "size"), [(1, 1), (5, 1), (1, 5), (2, 3), (7, 3), (14, 14), (28, 14), (9, 14)]
)
def test_every_row_sums_to_one(matrix, out, size):
    weights = numbers(matrix(out, size))
    assert weights.shape == (out, size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("matrix", MATRICES)
def test_the_same_size_changes_nothing(matrix):
    np.testing.assert_array_equal(numbers(matrix(6, 6)), np.eye(6))


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_mirrored_row_gives_a_mirrored_result(matrix):
    weights = numbers(matrix(9, 4))
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


def test_bilinear_between_two_pixels():
    """Four pixels from two lie at -0.25, 0.25, 0.75 and 1.25 of them; beyond the border is the
    border.
    """
    expected = [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    np.testing.assert_allclose(numbers(bilinear_matrix(4, 2)), expected, atol=1e-6)


def test_bilinear_takes_every_second_without_antialiasing():
    np.testing.assert_allclose(
        numbers(bilinear_matrix(2, 6)), [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]], atol=1e-6
    )


def test_bicubic_in_the_middle_is_that_of_pytorch():
    """Halfway between the middle two of four, Keys' kernel with a = -0.75: (a / 8, 1 / 2 - a / 8,
    ...).
    """
    np.testing.assert_allclose(
        numbers(bicubic_matrix(1, 4)), [[-0.09375, 0.59375, 0.59375, -0.09375]], atol=1e-6
    )


def test_maps_of_one_value_keep_it_at_any_size():
    maps = ops.ones((2, 3, 4, 5)) * 0.7
    np.testing.assert_allclose(
        numbers(resize_maps(maps, 11, 3)), np.full((2, 3, 11, 3), 0.7), rtol=1e-5
    )


def test_height_and_width_are_not_mixed_up():
    maps = np.zeros((1, 1, 2, 3), "float32")
    maps[0, 0, 1] = 1  # the lower row
    resized = numbers(resize_maps(ops.convert_to_tensor(maps), 4, 3))[0, 0]
    np.testing.assert_allclose(
        resized, np.array([0, 0.25, 0.75, 1])[:, None] * np.ones((1, 3)), atol=1e-6
    )


def test_embeddings_resized_and_transposed_are_embeddings_transposed_and_resized():
    grid = np.random.default_rng(0).normal(size=(3, 2, 4)).astype("float32")
    tall = numbers(resize_grid(ops.convert_to_tensor(grid.reshape(1, 6, 4)), (3, 2), 5, 7)).reshape(
        5, 7, 4
    )
    flipped = np.ascontiguousarray(grid.transpose(1, 0, 2)).reshape(1, 6, 4)
    wide = numbers(resize_grid(ops.convert_to_tensor(flipped), (2, 3), 7, 5)).reshape(7, 5, 4)
    np.testing.assert_allclose(tall, wide.transpose(1, 0, 2), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 4), (4, 20), (24, 4), (12, 8), (40, 36)])
def test_images_of_any_size_that_the_patch_divides_are_seen(height, width):
    result = tiny("vision")(
        some_pixels(2, height, width), output_attentions=True, output_hidden_states=True
    )
    assert tuple(result.attentions[0].shape) == (2, 3, height * width // 16)
    assert np.isfinite(numbers(result.last_hidden_state)).all()


def test_patches_and_images_need_not_be_square():
    model = make("vision", vision_config(image_size=(8, 24), patch_size=(2, 8), hidden_size=4))
    assert model.config.grid == (4, 3)
    assert tuple(model(some_pixels(1, 8, 24), output_attentions=True).attentions[0].shape) == (
        1,
        3,
        12,
    )
    assert tuple(model(some_pixels(1, 6, 16), output_attentions=True).attentions[0].shape) == (
        1,
        3,
        6,
    )
