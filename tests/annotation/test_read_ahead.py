"""Reading ahead: everything once and in order, a bounded number at a time, errors in their place."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_groupvit.annotation.read_ahead import read_ahead


def picture(side):
    if side == 0:
        raise ValueError("unreadable")
    return np.zeros((side, side, 3), np.uint8)


@given(
    st.lists(st.integers(0, 6), max_size=30),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 80),
)
def test_every_key_is_answered_once_and_in_order(sides, threads, waiting, pixels):
    found = list(
        read_ahead(enumerate(sides), lambda pair: picture(pair[1]), threads, waiting, pixels)
    )
    assert [key for key, _ in found] == list(enumerate(sides))
    for (_, side), answer in found:
        assert isinstance(answer, ValueError) if side == 0 else len(answer) == side


@pytest.mark.parametrize(("waiting", "pixels", "most"), [(3, 10**6, 3), (100, 32, 3)])
def test_no_more_are_read_than_may_wait(waiting, pixels, most):
    begun, idle = [], threading.Event()

    def read(key):
        begun.append(key)
        if len(begun) == most:
            idle.set()
        return picture(4)  # 16 pixels: the second fills 32, and one is under way

    ahead = read_ahead(range(10), read, 1, waiting, pixels)
    for number in range(10):
        assert next(ahead)[0] == number
        assert len(begun) <= number + 1 + most
    assert idle.is_set() and len(begun) == 10


def test_what_goes_wrong_with_the_keys_is_raised_behind_what_was_found():
    def keys():
        yield 1
        yield 2
        raise OSError("the listing broke")

    ahead = read_ahead(keys(), picture, 2)
    assert [next(ahead)[0] for _ in range(2)] == [1, 2]
    with pytest.raises(OSError, match="the listing broke"):
        next(ahead)


def test_whoever_has_seen_enough_leaves_no_thread_behind():
    before = threading.active_count()
    ahead = read_ahead(iter(int, 1), lambda _: picture(1), 3)
    next(ahead)
    assert threading.active_count() == before + 3
    ahead.close()
    assert threading.active_count() == before
