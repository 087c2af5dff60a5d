"""The report of what does not fit a model is strict, sorted and one message; NaN is refused by
name.
"""

import ml_dtypes
import numpy as np
import pytest
from checkpoint_files import reference

from tf_groupvit.checkpoints.matching import (
    MOST_SHOWN,
    UNUSED_BY_TEXT,
    UNUSED_BY_VISION,
    match,
    sound,
)
from tf_groupvit.errors import CheckpointError


def zeros(**shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def report(tensors, expected, **options):
    with pytest.raises(CheckpointError) as caught:
        match(tensors, expected, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_that_does_not_fit_stands_sorted_in_one_message():
    told = report(
        zeros(b=(2,), z=(1,), y=(1,), w=(3, 4)),
        {"b": (2,), "d": (1,), "c": (5,), "w": (4, 3)},
        source="here",
    )
    assert told.startswith("here does not fit the model: ")
    assert (
        "2 missing: c, d; 2 unexpected: y, z; 1 misshapen: w (expected (4, 3), got (3, 4))" in told
    )


def test_a_long_report_is_cut_and_counted():
    told = report({}, {f"n{number:03}": (1,) for number in range(100)})
    assert "100 missing: n000, n001" in told
    assert told.count("n0") == MOST_SHOWN
    assert f"and {100 - MOST_SHOWN} more" in told


def test_tensors_come_in_the_models_order_and_shape():
    found = match({"b": np.array([3.0]), "a": np.ones((2, 2))}, {"a": (2, 2), "b": ()})
    assert tuple(found.shapes) == ("a", "b")
    arrays = found.sound()
    assert arrays["b"].shape == ()
    assert arrays["b"] == 3.0


@pytest.mark.parametrize(("found", "wanted"), [((1,), ()), ((), (1,)), ((1, 1), ())])
def test_one_number_fits_whatever_its_shape(found, wanted):
    assert match(zeros(s=found), {"s": wanted}).sound()["s"].shape == wanted


@pytest.mark.parametrize(
    ("found", "wanted"), [((2, 3), (3, 2)), ((6,), (2, 3)), ((0,), ()), ((1, 6), (6,))]
)
def test_other_shapes_of_the_same_size_do_not_fit(found, wanted):
    assert "misshapen" in report(zeros(s=found), {"s": wanted})


def test_position_ids_and_counts_of_batches_may_be_there_or_not():
    optional = {
        "text_model.embeddings.position_ids": (1, 7),
        "visual_projection.1.num_batches_tracked": (),
    }
    present = {name: np.zeros(shape, np.int64) for name, shape in optional.items()} | zeros(a=(1,))
    assert tuple(match(present, {"a": (1,)}).shapes) == ("a",)
    assert tuple(match(zeros(a=(1,)), {"a": (1,), **optional}).shapes) == ("a",)
    assert set(match(present, {"a": (1,), **optional}).shapes) == {"a", *optional}
    assert "unexpected" in report(zeros(my_position_ids_extra=(1,)), {})


@pytest.mark.parametrize(
    ("tower", "unused"), [("text_model.", UNUSED_BY_TEXT), ("vision_model.", UNUSED_BY_VISION)]
)
def test_a_joint_checkpoint_serves_each_tower(tower, unused):
    tensors = reference()
    expected = {name: array.shape for name, array in tensors.items() if name.startswith(tower)}
    found = match(tensors, expected, allow=unused)
    assert set(found.shapes) == set(expected)
    assert len(found.ignored) == len(tensors) - len(expected)
    assert "unexpected" in report(tensors, expected)
    assert "unexpected: strange" in report(
        {**tensors, "strange": np.ones(1)}, expected, allow=unused
    )


DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_by_name(dtype, bad):
    array = np.ones((4, 5), dtype)
    array[2, 3] = bad
    with pytest.raises(CheckpointError, match=r"'w' holds . NaN and . infinite values of 20"):
        sound("w", array.shape, array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_numbers_whose_sum_overflows_pass(dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    for values in (np.full(10_000, largest, dtype), np.array([largest, -largest] * 100, dtype)):
        assert sound("w", values.shape, values) is not None


def test_integers_and_nothing_pass():
    assert sound("n", (1,), np.array(2**62)) == 2**62
    assert sound("e", (3, 0), np.zeros((0, 3), np.float32)).shape == (3, 0)


def test_opposite_infinities_do_not_hide():
    with pytest.raises(CheckpointError, match="2 infinite"):
        sound("w", (2,), np.array([np.inf, -np.inf], np.float32))


def test_a_bad_weight_is_found_when_it_is_read():
    found = match({"a": np.ones(2), "b": np.array([1.0, np.nan])}, {"a": (2,), "b": (2,)})
    arrays = found.sound()
    assert arrays["a"].tolist() == [1.0, 1.0]
    with pytest.raises(CheckpointError, match="'b' holds 1 NaN"):
        arrays["b"]
