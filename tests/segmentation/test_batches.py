"""Images in batches: none too large, in order, and one that fails costs only itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_groupvit.segmentation.batches import in_batches


def picture(side):
    if side == 0:
        raise ValueError("unreadable")
    return np.zeros((side, side, 3), np.uint8)


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 4), st.integers(1, 60))
def test_every_image_is_answered_once_in_order_and_no_batch_is_too_large(sides, most, pixels):
    seen = []

    def answer(images):
        seen.append([len(image) for image in images])
        return [len(image) for image in images]

    found = list(in_batches(range(len(sides)), lambda k: picture(sides[k]), answer, most, pixels))
    assert [key for key, _ in found] == list(range(len(sides)))
    for side, (_, one) in zip(sides, found, strict=True):
        assert isinstance(one, ValueError) if side == 0 else one == side
    for batch in seen:
        assert len(batch) <= most
        assert len(batch) == 1 or sum(side * side for side in batch) <= pixels


def test_eight_small_images_go_together_and_very_large_ones_alone():
    seen = []

    def answer(images):
        seen.append(len(images))
        return images

    list(in_batches(range(9), lambda _: picture(8), answer))
    assert seen == [8, 1]
    large = np.broadcast_to(np.uint8(0), (6000, 6000, 3))
    seen.clear()
    list(in_batches(range(3), lambda _: large, answer))
    assert seen == [1, 1, 1]


def test_an_image_that_breaks_its_batch_fails_alone():
    def answer(images):
        if any(len(image) == 3 for image in images):
            raise MemoryError("too large")
        return [len(image) for image in images]

    found = dict(in_batches([1, 2, 3, 4], picture, answer))
    assert isinstance(found.pop(3), MemoryError)
    assert found == {1: 1, 2: 2, 4: 4}


def test_an_interruption_is_no_answer():
    def answer(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_batches([1, 2], picture, answer))
