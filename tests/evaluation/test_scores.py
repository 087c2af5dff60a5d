"""Confusion matrix and top-k accuracy: small cases worked out by hand, and laws for any."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.scores import ConfusionMatrix, TopK

THREE = ("sky", "grass", "dog")


def counted(labels, predicted, names=THREE):
    matrix = ConfusionMatrix(names)
    matrix.update(np.array(labels), np.array(predicted))
    return matrix


def test_a_case_by_hand():
    # sky: 2 right of 3 labelled, 2 predicted -> 2/3; grass: 1 right, 1 labelled, 2 predicted ->
    # 1/2; dog: 1/1.
    matrix = counted([[0, 0, 0], [1, 2, 255]], [[0, 0, 1], [1, 2, 2]])
    assert matrix.iou == {"sky": pytest.approx(2 / 3), "grass": 0.5, "dog": 1.0}
    assert matrix.miou == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert matrix.pixel_accuracy == pytest.approx(4 / 5)


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    matrix = counted([[0, 0]], [[0, 0]])
    assert matrix.iou == {"sky": 1.0, "grass": None, "dog": None}
    assert matrix.miou == 1.0


def test_a_class_that_is_only_predicted_counts_as_zero():
    matrix = counted([[0, 0]], [[0, 2]])
    assert matrix.iou == {"sky": 0.5, "grass": None, "dog": 0.0}
    assert matrix.miou == 0.25


def test_what_is_predicted_on_ignored_pixels_does_not_count():
    assert counted([[255, 0]], [[2, 0]]).iou["dog"] is None


def test_nothing_counted_gives_no_score():
    for matrix in (ConfusionMatrix(THREE), counted([[255]], [[0]])):
        assert matrix.results() == {
            "miou": None,
            "pixel_accuracy": None,
            "iou": dict.fromkeys(THREE),
        }


def test_counts_are_exact_beyond_the_integers_of_32_bits_and_of_floats():
    matrix = ConfusionMatrix(("sky", "grass"))
    matrix.restore([[2**53, 1], [0, 2**40]])
    matrix.update(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    assert matrix.state() == [[2**53 + 1, 1], [0, 2**40]]


def test_numbers_of_many_classes_do_not_overflow_a_byte():
    names = [str(k) for k in range(300)]
    matrix = counted([[0, 1, 254]], [[299, 1, 254]], names)
    assert matrix.state()[0][299] == matrix.state()[254][254] == 1


@pytest.mark.parametrize(
    ("labels", "predicted", "words"),
    [
        ([[0, 0]], [[0], [0]], r"expected as \(1, 2\)"),
        ([[3]], [[0]], r"Labels .*0\.\.2: received 3"),
        ([[0]], [[3]], r"Predictions .*0\.\.2: received 3"),
        ([[0]], [[-1]], r"Predictions .*0\.\.2: received -1"),
        ([[0]], [[0.5]], "integers"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(labels, predicted, words):
    matrix = ConfusionMatrix(THREE)
    with pytest.raises(InputError, match=words):
        matrix.update(np.array(labels), np.array(predicted))
    assert matrix.miou is None


PIXELS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 3, 255]), st.integers(0, 3)), min_size=1, max_size=30
)


@settings(max_examples=40, deadline=None)
@given(PIXELS, PIXELS)
def test_two_pictures_count_as_one_of_all_their_pixels(first, second):
    names = ("a", "b", "c", "d")
    parts, whole = ConfusionMatrix(names), ConfusionMatrix(names)
    for pixels in (first, second):
        labels, predicted = np.array([pixels]).transpose(2, 0, 1)
        parts.update(labels, predicted)
    labels, predicted = np.array([first + second]).transpose(2, 0, 1)
    whole.update(labels, predicted)
    assert parts.results() == whole.results()
    expected = np.zeros((4, 4), int)
    for label, guess in first + second:
        if label != 255:
            expected[label, guess] += 1
    assert whole.state() == expected.tolist()


def test_the_mean_agrees_with_keras_where_every_class_occurs():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, (2, 20, 20))
    reference = tf.keras.metrics.MeanIoU(3)
    reference.update_state(labels, predicted)
    assert counted(labels, predicted).miou == pytest.approx(float(reference.result()), abs=1e-6)


# Top-1 and top-5

SIX = ("a", "b", "c", "d", "e", "f")


def test_the_sixth_of_six_is_not_among_five():
    tally = TopK(SIX)
    tally.update(5, np.array([6, 5, 4, 3, 2, 1]))
    tally.update(4, np.array([6, 5, 4, 3, 2, 1]))
    tally.update(0, np.array([6, 5, 4, 3, 2, 1]))
    assert (tally.top1, tally.top5) == (1 / 3, 2 / 3)


def test_of_equals_the_first_class_wins():
    tally = TopK(SIX)
    tally.update(0, np.ones(6))
    tally.update(1, np.ones(6))
    tally.update(5, np.ones(6))
    assert (tally.top1, tally.top5) == (1 / 3, 2 / 3)


def test_no_picture_gives_no_accuracy():
    assert TopK(SIX).results() == {"top1": None, "top5": None, "accuracy": dict.fromkeys(SIX)}


@pytest.mark.parametrize("wrong", [np.ones(5), np.ones((1, 6)), np.full(6, np.nan)])
def test_probabilities_that_do_not_fit_are_refused(wrong):
    with pytest.raises(InputError, match="robabilities are expected"):
        TopK(SIX).update(0, wrong)
