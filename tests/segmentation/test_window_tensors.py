"""Windows are cut from a picture and merged again."""

import numpy as np
import pytest
import tensorflow as tf

from tf_groupvit.segmentation.sliding_window import cut_windows, merge_windows

RNG = np.random.default_rng(0)


def test_windows_are_averaged_where_they_overlap():
    scores = tf.constant(
        [[[[2.0], [2.0]]], [[[6.0], [6.0]]]]
    )  # two windows of one row and two columns
    merged = merge_windows(scores, tf.constant([[0, 0], [0, 1]]), tf.constant(1), tf.constant(3))
    assert merged.numpy()[0, :, 0].tolist() == [2, 4, 6]


def test_windows_cut_from_a_picture_and_merged_are_the_picture():
    picture = RNG.normal(size=(11, 17, 3)).astype("float32")
    corners = tf.constant([[0, 0], [0, 9], [4, 0], [4, 9]])
    cut = cut_windows(tf.constant(picture), corners, tf.constant(7), tf.constant(8))
    assert (cut.numpy()[3] == picture[4:11, 9:17]).all()
    corners = tf.constant([[y, x] for y in (0, 4) for x in (0, 4, 9)])
    cut = cut_windows(tf.constant(picture), corners, tf.constant(7), tf.constant(8))
    merged = merge_windows(cut, corners, tf.constant(11), tf.constant(17))
    assert merged.numpy() == pytest.approx(picture, abs=1e-6)
