"""Tensors into REST bodies: the float rule, the layouts, and what cannot be written."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_groupvit.server.json_responses import decimals, write_error, write_predict
from tf_groupvit.server.status import StatusError


@pytest.mark.parametrize(
    ("value", "text"),
    [(9e6, "9e+06"), (999999.0, "999999.0"), (0.1, "0.1"), (1 / 3, "0.333333343"), (16777216.0, "16777216.0"),
     (1435774380.0, "1.43577434e+09"), (-0.0, "-0.0"), (math.nan, "NaN"), (math.inf, "Infinity"),
     (-math.inf, "-Infinity"), (1e-45, "1.4013e-45"), (100000.0, "100000.0"), (1e6, "1e+06")],
)  # fmt: skip
def test_a_float32_is_written_by_the_six_or_nine_digit_rule(value, text):
    assert decimals(np.array([value], np.float32)) == [text]


def test_a_float64_falls_back_to_seventeen_digits():
    assert decimals(np.array([0.1, 1 / 3, 5.0])) == ["0.1", "0.33333333333333331", "5.0"]


@given(st.lists(st.floats(width=32), min_size=1, max_size=30))
def test_floats_read_back_as_themselves(values):
    array = np.array(values, np.float32)
    read = np.array([float(text.replace("Infinity", "inf")) for text in decimals(array)]).astype(
        np.float32
    )
    assert np.array_equal(read, array, equal_nan=True)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_every_shape_reads_back_as_its_nested_lists(shape, row, several):
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    outputs = {"a": array, "b": array} if several else {"a": array}
    answer = json.loads(write_predict(outputs, "row" if row else "columnar"))
    if row:
        wanted = [{"a": value, "b": value} if several else value for value in array.tolist()]
        assert answer == {"predictions": wanted}
    else:
        assert answer == {
            "outputs": {"a": array.tolist(), "b": array.tolist()} if several else array.tolist()
        }


def test_instances_with_several_outputs_are_objects_one_after_the_other():
    outputs = {"a": np.array([[1, 2], [3, 4]], np.int32), "m_bytes": np.array([b"hi", b""], object)}
    assert (
        write_predict(outputs, "row").decode() == '{\n    "predictions": [\n'
        '        {\n            "a": [1, 2],\n'
        '            "m_bytes": {\n                "b64": "aGk="\n            }\n        },\n'
        '        {\n            "a": [3, 4],\n'
        '            "m_bytes": {\n                "b64": ""\n            }\n        }\n'
        "    ]\n}"
    )


def test_dense_answers_have_the_measured_sizes_of_the_contract():
    labels = np.full((1, 224, 224), 7, np.uint8)
    row, columnar = (len(write_predict({"labels": labels}, form)) for form in ("row", "columnar"))
    assert row == pytest.approx(224 * 224 * 3, rel=0.02)
    assert columnar == pytest.approx(
        986_000 - 224 * 224 * 1.4, rel=0.15
    )  # the contract's labels have more digits


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"t": np.float32(1.0).reshape(())}, "Tensor name: t has no shape information "),
        (
            {"a": np.zeros(2), "t": np.zeros(1)},
            "Tensor name: t has inconsistent batch size: 1 expecting: 2",
        ),
        (
            {"t": np.zeros(1), "a": np.zeros(2)},
            "Tensor name: t has inconsistent batch size: 1 expecting: 2",
        ),
        ({"t": np.zeros(1, np.float16)}, "Failed to write JSON value for tensor type: half"),
        ({"t": np.zeros(1, np.uint16)}, "Failed to write JSON value for tensor type: uint16"),
        ({}, "Cannot convert empty tensor map to JSON"),
    ],
)
def test_what_rows_cannot_hold_is_refused(outputs, text):
    with pytest.raises(StatusError) as raised:
        write_predict(outputs, "row")
    assert (raised.value.code, raised.value.text) == ("INVALID_ARGUMENT", text)


def test_an_empty_half_tensor_has_nothing_that_cannot_be_written():
    assert json.loads(write_predict({"t": np.zeros(0, np.float16)}, "columnar")) == {"outputs": []}


def test_an_error_body_escapes_what_json_must():
    assert write_error('a"b\n\x1f') == b'{\n    "error": "a\\"b\\n\\u001f"\n}'
    assert write_error("\udcff") == b'{\n    "error": "\xff"\n}'


@pytest.mark.parametrize("form", ["row", "columnar"])
def test_a_late_answer_is_not_written_to_its_end(form):
    left = iter([3.0, 2.0, 1.0])

    def check():
        if next(left, None) is None:
            raise StatusError("DEADLINE_EXCEEDED", "late")

    with pytest.raises(StatusError, match="late"):
        write_predict({"x": np.zeros((100, 2**15), np.float32)}, form, check)
