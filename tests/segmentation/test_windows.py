"""Sizes and windows: the published rule, by hand and for many sizes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation import sliding_window
from tf_groupvit.segmentation.settings import whole_size

PATCH = (16, 16)


def resized(height, width, image_size, patch):
    return tuple(map(int, sliding_window.resized(height, width, image_size, patch)))


def starts(length, window):
    return sliding_window.starts(length, window).numpy().tolist()


SIDE = st.integers(1, 30000)


def published_size(height, width):
    """Ratio kept, (2048, 448): the factor that brings the long side to 2048 or the short one to
    448, the smaller.
    """
    scale = min(2048 / max(height, width), 448 / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def published_windows(length, window=448, stride=224):
    """Corners along one side as the published sliding evaluation lays its grid."""
    found = []
    for index in range(max(length - window + stride - 1, 0) // stride + 1):
        end = min(index * stride + window, length)
        found.append(max(end - window, 0))
    return found


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((448, 448), (448, 448)),
        ((375, 500), (448, 597)),
        ((500, 375), (597, 448)),
        ((1, 1), (448, 448)),
        ((3000, 4000), (448, 597)),
        ((100, 457), (448, 2047)),
        ((100, 458), (447, 2048)),  # from here on the long side decides
        ((50, 1000), (102, 2048)),
        ((1, 500), (16, 2048)),  # never below a patch
    ],
)
def test_sizes_by_hand(size, expected):
    assert resized(*size, 224, PATCH) == expected


@settings(deadline=None)
@given(SIDE, SIDE)
def test_sizes_are_the_published_ones_for_a_model_of_224(height, width):
    expected = tuple(max(side, 16) for side in published_size(height, width))
    assert resized(height, width, 224, PATCH) == expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (102, [0]),
        (448, [0]),
        (449, [0, 1]),
        (597, [0, 149]),
        (672, [0, 224]),
        (673, [0, 224, 225]),
        (2048, [0, 224, 448, 672, 896, 1120, 1344, 1568, 1600]),
    ],
)
def test_windows_by_hand(length, expected):
    assert starts(length, 448) == expected


@settings(deadline=None)
@given(st.integers(1, 5000))
def test_windows_are_the_published_ones(length):
    assert starts(length, 448) == published_windows(length)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(2, 60).map(lambda half: 2 * half))
def test_windows_cover_every_pixel_and_stay_inside(length, window):
    covered = set()
    for start in starts(length, window):
        end = min(start + window, length)
        assert start >= 0
        assert end - start == min(window, length)
        covered |= set(range(start, end))
    assert covered == set(range(length))


def test_windows_come_row_by_row():
    corners = sliding_window.corners_of(5, 6, 4).numpy()
    assert corners.tolist() == [[0, 0], [0, 2], [1, 0], [1, 2]]


def test_mode_whole_takes_the_models_size_or_a_square():
    assert whole_size((224, 320), PATCH, None) == (224, 320)
    assert whole_size((224, 224), PATCH, 448) == (448, 448)


@pytest.mark.parametrize("size", [0, -16, 100, 224.0, True, "224"])
def test_a_size_that_the_patch_does_not_divide_is_refused(size):
    with pytest.raises(InputError, match="multiple of the patch size"):
        whole_size((224, 224), PATCH, size)
