"""Polygons of label maps: exact without tolerance, close to the pixels with the usual one."""

import numpy as np
import pytest
from drawn import blobs, filled, iou, outline
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tf_groupvit.annotation.polygons import bridged, component_map, regions_of

MAPS = {
    "blobs": blobs(0, 90, 120),
    "fine": blobs(1, 40, 50, coarse=2),
    "coarse": blobs(2, 120, 100, classes=3, coarse=40),
    "checkers": np.indices((6, 7)).sum(axis=0) % 2,
    "one class": np.zeros((5, 4), np.uint8),
    "one pixel": np.zeros((1, 1), np.uint8),
    "one row": np.array([[0, 0, 1, 0, 2, 2]]),
    "numbers over a byte": np.array([[300, 300], [65535, 300]], np.uint16),
    "rings in rings": np.array(
        [min(i, 8 - i, j, 8 - j) % 2 for i in range(9) for j in range(9)]
    ).reshape(9, 9),
}
by_map = pytest.mark.parametrize("labels", MAPS.values(), ids=MAPS.keys())


def test_a_square_with_a_hole_by_hand():
    labels = np.zeros((4, 5), int)
    labels[0:3, 1:4] = 1
    labels[1, 2] = 0
    around, square, hole = regions_of(labels, 0)
    assert (around.label, square.label, hole.label) == (0, 1, 0)
    assert (square.area, square.box) == (8, (1, 0, 3, 3))
    assert square.outer.tolist() == [[1, 0], [4, 0], [4, 3], [1, 3]]
    assert [ring.tolist() for ring in square.holes] == [[[2, 2], [3, 2], [3, 1], [2, 1]]]
    assert around.holes == [] and hole.area == 1


@by_map
def test_without_tolerance_the_pixels_come_back_exactly(labels):
    numbers, classes = component_map(labels)
    regions = regions_of(labels, tolerance=0)
    assert [region.label for region in regions] == classes.tolist()
    for number, region in enumerate(regions):
        mask = numbers == number
        y, x = np.nonzero(mask)
        assert (labels[mask] == region.label).all() and region.area == mask.sum()
        assert region.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
        assert np.array_equal(filled(region.rings, *labels.shape), mask)
        assert np.array_equal(filled([bridged(region.rings)], *labels.shape), mask)


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 2))
)
def test_any_small_map_comes_back_exactly(labels):
    numbers, _ = component_map(labels)
    for region in regions_of(labels, tolerance=0):
        mask = numbers == region.number
        assert np.array_equal(filled([bridged(region.rings)], *labels.shape), mask)
    for region in regions_of(labels, tolerance=1e-6):
        assert np.array_equal(filled(region.rings, *labels.shape), numbers == region.number)


@by_map
def test_regions_are_what_is_connected_by_sides(labels):
    numbers, _ = component_map(labels)
    for axis in (0, 1):
        same = np.diff(labels.astype(int), axis=axis) == 0
        assert np.array_equal(np.diff(numbers, axis=axis) == 0, same)


def test_pixels_that_touch_by_a_corner_are_regions_of_their_own():
    assert len(regions_of(np.eye(4, dtype=int))) == 6  # four pixels, and what is on both sides


@by_map
def test_with_the_smallest_tolerance_no_pixel_changes(labels):
    numbers, _ = component_map(labels)
    for number, region in enumerate(regions_of(labels, tolerance=1e-6)):
        assert np.array_equal(filled(region.rings, *labels.shape), numbers == number)


def discs_and_wedges():
    y, x = np.mgrid[:150, :150]
    for radius in (17, 25, 41):
        yield ((x - 70.3) ** 2 + (y - 74.6) ** 2 / 1.5 < radius**2).astype(int)
    for angle in np.linspace(0, 1.5, 9):
        yield ((np.cos(angle) * x + np.sin(angle) * y > 60) & (x > 9) & (y > 9)).astype(int)


def test_with_the_usual_tolerance_large_regions_have_an_iou_of_98_hundredths():
    measured = 0
    for labels in [*discs_and_wedges(), *(blobs(seed, 200, 220, 3, 60) for seed in range(8))]:
        numbers, _ = component_map(labels)
        for number, region in enumerate(regions_of(labels)):
            mask = numbers == number
            if region.area > 4 * outline(mask):
                measured += 1
                assert iou(filled(region.rings, *mask.shape), mask) > 0.98
    assert measured > 50


def test_a_slope_is_a_line_and_a_square_keeps_its_corners():
    y, x = np.mgrid[:40, :40]
    (below,) = (one for one in regions_of((y > x).astype(int)) if one.label)
    assert len(below.outer) <= 6
    square = np.zeros((20, 20), int)
    square[4:9, 3:12] = 1
    assert regions_of(square)[1].outer.tolist() == [[3, 4], [12, 4], [12, 9], [3, 9]]


def test_neighbors_share_their_borders():
    """Each piece of a border is in both polygons: added up with its direction, nothing remains."""
    labels = blobs(5, 100, 100, coarse=30)
    pieces = []
    for region in regions_of(labels):
        for ring in region.rings:
            pieces += zip(map(tuple, ring), map(tuple, np.roll(ring, -1, axis=0)), strict=True)
    inner = [
        (a, b) for a, b in pieces if not any(a[i] == b[i] and a[i] in (0, 100) for i in (0, 1))
    ]
    assert sorted(inner) == sorted((b, a) for a, b in inner)


def test_small_regions_are_left_out_and_small_holes_filled():
    labels = np.zeros((12, 12), int)
    labels[2:4, 2:4] = 1
    labels[6:10, 6:10] = 1
    around, large = regions_of(labels, minimum_area=5)
    assert (large.area, len(around.holes)) == (16, 1)
    assert [len(one.holes) for one in regions_of(labels, minimum_area=4)] == [2, 0, 0]


def test_a_bridge_leads_past_other_holes():
    labels = np.zeros((7, 20), int)
    labels[2:5, 2:4] = labels[1:6, 6:9] = labels[3, 12] = 1
    whole = regions_of(labels, 0)[0]
    ring = bridged(whole.rings)
    assert len(ring) == 4 + 3 * (4 + 3)
    assert np.array_equal(filled([ring], 7, 20), labels == 0)
