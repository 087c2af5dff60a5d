"""Clauses of the contract, sections 4 and 5: every element type both ways, and what tokens it does
not take.
"""

import json
import math

import numpy as np
import pytest
from rest_calls import predict, refusal
from small_models import TYPES, every_type

from tf_groupvit.server.running import Server

EVERY = "/v1/models/every:predict"
# type -> tokens it takes, the text of the answer, tokens it refuses
INTEGERS = {
    "int32": ("-2147483648, 0, 2147483647", "-2147483648, 0, 2147483647", ("2147483648", "-2147483649")),
    "int16": ("-32768, 32767, 40000", "-32768, 32767, -25536", ("2147483648",)),
    "int8": ("-128, 127, 300", "-128, 127, 44", ("2147483648",)),
    "uint8": ("0, 255, 300, -1", "0, 255, 44, 255", ("2147483648",)),
    "int64": ("-9223372036854775808, 9223372036854775807", "-9223372036854775808, 9223372036854775807",
              ("9223372036854775808", "-9223372036854775809")),
    "uint32": ("0, 4294967295", "0, 4294967295", ("-1", "4294967296")),
    "uint64": ("0, 18446744073709551615", "0, 18446744073709551615", ("-1", "18446744073709551616")),
}  # fmt: skip
OTHERS = {
    "float": (
        "1, -2.5, 1e39, 1e-60, NaN, Infinity, -Infinity",
        "1.0, -2.5, Infinity, 0.0, NaN, Infinity, -Infinity",
        (),
    ),
    "double": (
        "1, 0.1, 1e300, NaN, Infinity, -Infinity",
        "1.0, 0.1, 1e+300, NaN, Infinity, -Infinity",
        (),
    ),
    "bool": ("true, false", "true, false", ("0", "1")),
    "string": ('"a\\u00e9", {"b64": "/w=="}', '"aé", "\udcff"', ("0",)),
}
ACCEPTED = INTEGERS | OTHERS
UNSUPPORTED = ("half", "bfloat16", "uint16", "complex64", "complex128")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    every_type(folder)
    with Server({"every": folder}, port=None) as running:
        yield running


def test_the_tables_name_every_type():
    assert {*ACCEPTED, *UNSUPPORTED} == set(TYPES)


@pytest.mark.parametrize("type_", ACCEPTED)
def test_an_element_type_goes_in_and_out_in_rows_and_columns(server, type_):
    tokens, answer, _ = ACCEPTED[type_]
    status, text = predict(
        server, f'{{"signature_name": "{type_}", "instances": [{tokens}]}}', EVERY
    )
    assert (status, text) == (200, f'{{\n    "predictions": [{answer}\n    ]\n}}')
    status, text = predict(server, f'{{"signature_name": "{type_}", "inputs": [{tokens}]}}', EVERY)
    lines = ",\n        ".join(answer.split(", "))
    assert (status, text) == (200, f'{{\n    "outputs": [\n        {lines}\n    ]\n}}')


KINDS = {
    "null": "Null", "false": "False", "true": "True", '{"k":1}': "Object", '"s"': "String", "1.5": "Number",
    '{"b64":"YQ=="}': "Object",
}  # fmt: skip
ECHOED = {
    '{"k":1}': '{\n    "k": 1\n}', '{"b64":"YQ=="}': '{\n    "b64": "YQ=="\n}',
    # doubles, beyond 64 bits
    "18446744073709551616": "1.84467441e+19", "-9223372036854775809": "-9.22337204e+18",
}  # fmt: skip
TAKEN = {
    "bool": {"true", "false"},
    "float": {"1.5"},
    "double": {"1.5"},
    "string": {'"s"', '{"b64":"YQ=="}', '{"k":1}'},
}


@pytest.mark.parametrize("type_", ACCEPTED)
def test_other_tokens_are_type_errors_bare_in_columns_and_wrapped_in_rows(server, type_):
    wrong = {token: kind for token, kind in KINDS.items() if token not in TAKEN.get(type_, ())}
    wrong |= dict.fromkeys(ACCEPTED[type_][2], "Number")
    for token, kind in wrong.items():
        text = (
            f"JSON Value: {ECHOED.get(token, token)} Type: {kind} is not of expected type: {type_}"
        )
        body = f'{{"signature_name": "{type_}", "inputs": [{token}]}}'
        assert refusal(server, body, EVERY) == (400, text)
        rows = f'{{"signature_name": "{type_}", "instances": [[{token}]]}}'
        assert refusal(server, rows, EVERY) == (
            400, f"Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("type_", UNSUPPORTED)
def test_a_type_that_json_does_not_carry_is_501_in_columns_and_400_in_rows(server, type_):
    text = f"Conversion of JSON Value: 1 to type: {type_}"
    assert refusal(server, f'{{"signature_name": "{type_}", "inputs": [1]}}', EVERY) == (501, text)
    rows = f"Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: {text}"
    assert refusal(server, f'{{"signature_name": "{type_}", "instances": [1]}}', EVERY) == (
        400,
        rows,
    )


@pytest.mark.parametrize("type_", UNSUPPORTED)
def test_an_answer_of_a_type_that_json_does_not_carry_is_400(type_):
    from tf_groupvit.server.dtypes import NUMBER_OF, numpy_type
    from tf_groupvit.server.json_writing import write_predict
    from tf_groupvit.server.status import StatusError

    for form in ("row", "columnar"):
        with pytest.raises(StatusError) as refused:
            write_predict({"y": np.ones(2, numpy_type(NUMBER_OF[type_]))}, form)
        wanted = ("INVALID_ARGUMENT", f"Failed to write JSON value for tensor type: {type_}")
        assert (refused.value.code, refused.value.text) == wanted


def test_floats_are_written_by_the_six_or_nine_and_seventeen_digit_rules(server):
    tokens = "9e6, 999999, 0.1, 0.333333343, 16777216, 1435774380, -0.0, 1e-5, 123456.789"
    status, text = predict(server, f'{{"signature_name": "float", "instances": [{tokens}]}}', EVERY)
    floats = (
        "9e+06, 999999.0, 0.1, 0.333333343, 16777216.0, 1.43577434e+09, -0.0, 1e-05, 123456.789"
    )
    assert (status, text) == (200, f'{{\n    "predictions": [{floats}\n    ]\n}}')
    tokens = "0.1, 0.3333333333333333, 5, 1e100, 123456789"
    status, text = predict(
        server, f'{{"signature_name": "double", "instances": [{tokens}]}}', EVERY
    )
    assert (
        text
        == '{\n    "predictions": [0.1, 0.33333333333333331, 5.0, 1e+100, 123456789.0\n    ]\n}'
    )


def test_nan_and_infinity_are_read_in_every_spelling_but_the_documented_one(server):
    tokens = "NaN, -NaN, Inf, -Inf, Infinity, -Infinity"
    status, text = predict(server, f'{{"signature_name": "float", "inputs": [{tokens}]}}', EVERY)
    values = json.loads(text)["outputs"]
    assert status == 200 and [math.isnan(value) for value in values[:2]] == [True, True]
    assert values[2:] == [math.inf, -math.inf, math.inf, -math.inf]
    assert (
        "Invalid value. at offset: "
        in refusal(server, '{"signature_name": "float", "inputs": [Nan]}', EVERY)[1]
    )
