"""From scores of a small picture to labels of the image: by hand, against PyTorch, strip by strip."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_groupvit.segmentation import upsampling
from tf_groupvit.segmentation.upsampling import (
    LowResScores,
    between_patches,
    candidate_classes,
    highest_scores,
    label_map,
    pixel_rows,
    score_map,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "protocol" / "labelling.npz"
RNG = np.random.default_rng(0)


def test_two_by_two_becomes_four_by_four():
    scores = np.array([[0, 4], [8, 12]], "float32")[..., None]
    # New pixel i looks at (i + 0.5) / 2 - 0.5: before the first, a quarter, three quarters, behind
    # the last.
    rows = np.array([0, 1, 3, 4])
    assert (
        LowResScores(scores).enlarged(4, 4)[0].tolist()
        == (rows[None, :] + 2 * rows[:, None]).tolist()
    )


def test_the_best_class_wins_and_the_first_on_ties():
    scores = np.array([[[1, 2, 2], [3, 3, 3]], [[0, -1, 0], [5, 6, 7]]], "float32")
    assert LowResScores(scores).labels(2, 2).tolist() == [[1, 0], [0, 2]]
    assert LowResScores(scores).highest(2, 2).tolist() == [5, 6, 7]


@pytest.mark.parametrize("classes", [*range(1, 40), 64, 171, 300])
@pytest.mark.parametrize("side", [1, 3, 90])
def test_the_first_of_many_equals_wins_whatever_their_number(classes, side):
    # TensorFlow does not promise it of argmax, and its kernel works on several classes and pixels
    # at a time.
    scores = RNG.integers(0, 3, (side, side, classes)).astype("float32")
    assert (LowResScores(scores).labels(side, side) == scores.argmax(-1)).all()


def test_equal_classes_stay_equal_at_every_size():
    scores = RNG.normal(size=(5, 7, 1)).astype("float32").repeat(4, axis=2)
    labels = LowResScores(scores).labels(33, 51)
    assert (labels == 0).all()


@pytest.mark.parametrize("number", range(4))
def test_labels_are_those_of_interpolate_and_argmax_in_pytorch(number):
    case = np.load(GOLDEN)
    scores, (height, width) = case[f"{number}.scores"], case[f"{number}.labels"].shape
    labels, best = (
        LowResScores(scores).labels(height, width),
        LowResScores(scores).highest(height, width),
    )
    assert (labels == case[f"{number}.labels"]).mean() >= 0.999
    assert best == pytest.approx(case[f"{number}.highest"], abs=1e-5)


def smooth(height, width, classes):
    """Scores with regions, as images have them: a few numbers enlarged."""
    few = tf.constant(RNG.normal(size=(3, 4, classes)).astype("float32"))
    return score_map(LowResScores(few), tf.constant(height), tf.constant(width))


def regions(height, width, classes):
    """Every class scores 1 in one region, as the published protocol has it."""
    return tf.one_hot(tf.argmax(smooth(height, width, classes), axis=2), classes)


def noise(height, width, classes):
    return tf.constant(RNG.normal(size=(height, width, classes)).astype("float32"))


@pytest.mark.parametrize("strip", [1, 200, 1000, 1 << 30])
@pytest.mark.parametrize("scores", [smooth, regions, noise])
@pytest.mark.parametrize("size", [(37, 50), (200, 90), (21, 31), (5, 90), (1, 1)])
def test_what_is_left_out_changes_nothing(monkeypatch, strip, scores, size):
    monkeypatch.setattr(upsampling, "STRIP", strip)
    small, (height, width) = scores(21, 31, 4), map(tf.constant, size)
    small = LowResScores(small)
    whole = score_map(small, height, width).numpy()
    labels = label_map(small, height, width)
    assert labels.shape == size
    assert (labels.numpy() == whole.argmax(-1)).all()
    np.testing.assert_allclose(highest_scores(small, height, width), whole.max((0, 1)), rtol=2e-6)


@pytest.mark.parametrize("strip", [1, 200, 1 << 30])
@pytest.mark.parametrize("owners", [smooth, noise])
@pytest.mark.parametrize("size", [(37, 50), (200, 90), (21, 31), (5, 90), (1, 1)])
def test_pixels_that_share_rows_get_the_labels_of_those_that_have_their_own(
    monkeypatch, strip, owners, size
):
    monkeypatch.setattr(upsampling, "STRIP", strip)
    rows = RNG.normal(size=(5, 4)).astype("float32")
    rows[3] = rows[1]  # two groups of one class
    owner = tf.argmax(owners(21, 31, 5), axis=2, output_type=tf.int32)
    shared = label_map(LowResScores(tf.constant(rows), owner), *map(tf.constant, size))
    own = LowResScores(tf.gather(rows, owner))
    np.testing.assert_array_equal(shared, label_map(own, *map(tf.constant, size)))


@pytest.mark.parametrize("band", [1, 100, 37 * 7, 10**6])
def test_labels_found_by_bands_are_those_of_the_whole(monkeypatch, band):
    scores = LowResScores(noise(5, 6, 4))
    whole = label_map(scores, tf.constant(41), tf.constant(37)).numpy()
    monkeypatch.setattr(upsampling, "BAND", band)
    labels = label_map(scores, tf.constant(41), tf.constant(37)).numpy()
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, whole)


def test_shared_rows_are_the_same_scores():
    rows, owner = RNG.normal(size=(3, 4)).astype("float32"), RNG.integers(0, 3, (6, 7), np.int32)
    shared = LowResScores(rows, owner)
    own = LowResScores(pixel_rows(shared).numpy())
    assert own.rows.shape == (6, 7, 4) and (own.rows[5, 6] == rows[owner[5, 6]]).all()
    weighed = LowResScores(rows, shares=np.eye(3, dtype="float32")[owner])
    for one, other in (
        (shared, own),
        (shared.of_classes([2, 0]), own.of_classes([2, 0])),
        (weighed, own),
        (weighed.of_classes([2, 0]), own.of_classes([2, 0])),
    ):
        np.testing.assert_array_equal(one.labels(9, 8), other.labels(9, 8))
        np.testing.assert_array_equal(one.highest(9, 8), other.highest(9, 8))
        np.testing.assert_array_equal(one.enlarged(9, 8), other.enlarged(9, 8))
        np.testing.assert_array_equal(one.margins(9, 8), other.margins(9, 8))


@pytest.mark.parametrize("patches", [smooth, noise])
@pytest.mark.parametrize("grid", [(14, 14), (1, 1), (1, 5), (6, 1)])
@pytest.mark.parametrize("size", [(37, 50), (300, 190), (5, 90), (1, 1)])
def test_classes_that_cannot_be_the_best_are_left_out_and_change_nothing(patches, grid, size):
    scores = tf.concat([patches(*grid, 9), patches(*grid, 9) - 2.0], axis=2)
    scores = tf.gather(
        scores, [0, 1, 2, 3, 1, 4, 5, 6, 7, 8, *range(9, 18)], axis=2
    )  # one of them twice
    small, (height, width) = (8 * grid[0], 8 * grid[1]), map(tf.constant, size)
    whole = label_map(LowResScores(between_patches(scores, small)), height, width)
    found = label_map(LowResScores(scores, size=small), height, width)
    np.testing.assert_array_equal(found, whole)


def test_a_class_that_is_nowhere_first_among_patches_can_be_first_between_them():
    scores = np.array([[[1, 0, 0.6, 0.1], [0, 1, 0.6, 0.1]]], "float32")
    assert candidate_classes(tf.constant(scores)).numpy().tolist() == [0, 1, 2]
    # Of 16 columns the eighth lies at 7.5 / 8 - 0.5, 0.4375 of the way, where the first class has
    # 0.5625.
    assert (
        LowResScores(scores, size=(8, 16)).labels(8, 16)[0].tolist() == [0] * 7 + [2] * 2 + [1] * 7
    )


def test_between_patches_are_those_of_pixels():
    patches = LowResScores(RNG.normal(size=(3, 4, 5)).astype("float32"), size=(24, 32))
    pixels = LowResScores(pixel_rows(patches).numpy())
    assert pixels.rows.shape == (24, 32, 5)
    for one, other in ((patches, pixels), (patches.of_classes([2, 0]), pixels.of_classes([2, 0]))):
        np.testing.assert_array_equal(one.labels(9, 80), other.labels(9, 80))
        np.testing.assert_array_equal(one.highest(9, 80), other.highest(9, 80))
        np.testing.assert_array_equal(one.enlarged(9, 80), other.enlarged(9, 80))


def test_along_borders_alone_pixels_are_interpolated(monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        upsampling,
        "_labels_of",
        lambda pixels, *_: looked_at.append(pixels) or tf.zeros_like(pixels),
    )
    scores = np.zeros((8, 8, 2), "float32")
    scores[:4, :, 0] = scores[4:, :, 1] = 1.0
    small = LowResScores(tf.constant(scores))
    labels = label_map(small, tf.constant(16), tf.constant(16)).numpy()
    # Between the middles of the fourth and the fifth row, which are new rows 7 and 8.
    assert looked_at[0].numpy().tolist() == list(range(7 * 16, 9 * 16))
    assert (labels[:7] == 0).all() and (labels[9:] == 1).all()


def test_more_classes_than_a_byte_holds():
    scores = np.zeros((2, 2, 300), "float32")
    scores[0, 0, 299] = 1
    scores[1, 1, 256] = 1
    labels = LowResScores(scores).labels(2, 2)
    assert labels.dtype == np.int32
    assert labels.tolist() == [[299, 0], [0, 256]]
    assert np.flatnonzero(LowResScores(scores).highest(2, 2)).tolist() == [256, 299]


def test_256_classes_fit_a_byte():
    scores = np.zeros((1, 1, 256), "float32")
    scores[0, 0, 255] = 1
    labels = LowResScores(scores).labels(3, 2)
    assert labels.dtype == np.uint8
    assert (labels == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1)])
def test_images_of_one_pixel_and_one_row(size):
    scores = RNG.normal(size=(8, 8, 3)).astype("float32")
    labels = LowResScores(scores).labels(*size)
    assert labels.shape == size
    assert (labels == LowResScores(scores).enlarged(*size).argmax(0)).all()


def test_margins_are_those_of_the_best_over_the_second_where_a_pixel_lies():
    scores = np.array([[[0.25, 0.75, 0.5], [0.25, 0.5, 0]], [[0, 1, 0], [0, 0.5, 0.5]]], "float32")
    assert LowResScores(scores).margins(2, 4).tolist() == [[0.25] * 4, [1, 1, 0, 0]]
    assert LowResScores(scores).margins(1, 1).tolist() == [[0]]  # the middle is in the last
    owner = np.array([[1, 0], [0, 1]], "int32")
    assert LowResScores(scores[0], owner).margins(2, 2).tolist() == [[0.25, 0.25], [0.25, 0.25]]
    alone = np.array([[[0.75], [0.5]]], "float32")
    assert LowResScores(alone).margins(1, 2).tolist() == [[0.75, 0.5]]


def test_margins_of_refined_scores_that_overshoot_are_1():
    rows = np.array([[[1.25, -0.25], [1.0, 0.5]]], "float32")
    assert LowResScores(rows).margins(1, 2).tolist() == [[1, 0.5]]
    shares = np.array([[[1.25, -0.25], [0.75, 0.25]]], "float32")
    groups = LowResScores(np.eye(2, dtype="float32"), shares=shares)
    assert groups.margins(1, 2).tolist() == [[1, 0.5]]


def test_margins_are_0_before_another_class():
    rows = np.array([[0.25, 0.75], [0.75, 0.25]], "float32")
    owner = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 0]], "int32")
    wanted = [[0.5, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0.5]]
    assert LowResScores(rows, owner).margins(3, 3).tolist() == wanted
    assert LowResScores(rows[owner]).margins(3, 3).tolist() == wanted


def test_margins_of_logits_are_those_of_probabilities():
    scores = RNG.normal(size=(3, 4, 5)).astype("float32")
    scores[..., 0] += 4  # so that it is the best everywhere
    shares = np.sort(np.exp(scores) / np.exp(scores).sum(-1, keepdims=True))
    wanted = pytest.approx(shares[..., -1] - shares[..., -2], abs=1e-6)
    assert LowResScores(scores).margins(3, 4, logits=True) == wanted
    patches = LowResScores(scores, size=(6, 8))
    pixels = LowResScores(between_patches(scores, (6, 8)))
    assert (patches.margins(6, 8, True) == pixels.margins(6, 8, True)).all()
