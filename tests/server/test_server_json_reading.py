"""REST bodies into tensors: the scanner against the fast parser, error texts and offsets, each rule
of an input.
"""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_groupvit.server.json_filling import Filling
from tf_groupvit.server.json_reading import read_predict
from tf_groupvit.server.json_scanning import UNREAD, parse, scan
from tf_groupvit.server.json_values import echo, shortest
from tf_groupvit.server.status import StatusError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, width=32)
    | st.text(max_size=6)
    | st.just({"b64": "aGVsbG8="}),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "b64", "y"]), inner, max_size=3)
    ),
    max_leaves=12,
)
TYPES = st.sampled_from(
    ["float", "double", "int32", "uint8", "int64", "uint64", "bool", "string", "half"]
)


def text_of(refused) -> str:
    with pytest.raises(StatusError) as raised:
        refused()
    return raised.value.text


def reading(body: bytes, types: dict[str, str]) -> str:
    return text_of(lambda: read_predict(body, lambda signature: types))


@given(JSON)
def test_the_scanner_reads_what_the_fast_parser_reads(value):
    assert_alike(scan(json.dumps(value, ensure_ascii=False).encode()), value)


def assert_alike(scanned, value):
    """Equal, but for doubles: RapidJSON's may differ in the last digits, and wide integers become
    doubles.
    """
    if isinstance(value, dict):
        assert scanned.keys() == value.keys()
        for name in value:
            assert_alike(scanned[name], value[name])
    elif isinstance(value, list):
        assert len(scanned) == len(value)
        for mine, theirs in zip(scanned, value, strict=True):
            assert_alike(mine, theirs)
    elif isinstance(value, float) or (isinstance(value, int) and not -(2**63) <= value < 2**64):
        assert isinstance(scanned, float) and scanned == pytest.approx(value, rel=1e-15, abs=0.0)
    else:
        assert (type(scanned), scanned) == (type(value), value)


@settings(max_examples=300, deadline=None)
@given(JSON, TYPES, st.booleans(), st.booleans())
def test_numpy_and_the_value_by_value_way_agree(value, type_, row, several):
    types = {"x": type_, "y": "float"} if several else {"x": type_}
    body = json.dumps({"instances" if row else "inputs": value}).encode()

    def outcome(slow: bool):
        filling = Filling(exact=True)
        if slow:
            filling._at_once = lambda value, type_: None  # type: ignore[method-assign]
        parsed = scan(body)
        try:
            part = parsed["instances" if row else "inputs"]
            if row and (not isinstance(part, list) or not part):
                return None
            arrays = filling.rows(part, types) if row else filling.columns(part, types)
        except StatusError as refusal:
            return refusal.code, refusal.text
        return {name: (array.dtype, array.shape, array.tolist()) for name, array in arrays.items()}

    assert str(outcome(slow=False)) == str(outcome(slow=True))
    fast = _whole(body, types)
    assert fast == _whole(b"\xef\xbb\xbf" + body, types)  # a byte order mark takes the scanner


def _whole(body: bytes, types: dict[str, str]) -> str:
    try:
        form, _, arrays = read_predict(body, lambda signature: types)
    except StatusError as refusal:
        return f"{refusal.code} {refusal.text}"
    return form + str(
        {name: (array.dtype, array.shape, array.tolist()) for name, array in arrays.items()}
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty"),
        (b"  \n", "The document is empty. at offset: 3"),
        (b"]", "The document is empty. at offset: 0"),
        (b"\0{}", "The document is empty. at offset: 0"),
        (b"{", "Missing a name for object member. at offset: 1"),
        (b"{1:2}", "Missing a name for object member. at offset: 1"),
        (b'{"a":1,}', "Missing a name for object member. at offset: 7"),
        (b'{"a"}', "Missing a colon after a name of object member. at offset: 4"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a":}', "Invalid value. at offset: 5"),
        (b'{"a":1 "b":2}', "Missing a comma or '}' after an object member. at offset: 7"),
        (b'{"a":1', "Missing a comma or '}' after an object member. at offset: 6"),
        (b'{"a":[1 2]}', "Missing a comma or ']' after an array element. at offset: 8"),
        (b'{"a":[1', "Missing a comma or ']' after an array element. at offset: 7"),
        (b'{"a":[', "Invalid value. at offset: 6"),
        (b'{"a":[,1]}', "Invalid value. at offset: 6"),
        (b'{"a":nul}', "Invalid value. at offset: 8"),
        (b'{"a":Nan}', "Invalid value. at offset: 7"),
        (b'{"a":Infinitz}', "Invalid value. at offset: 12"),
        (b'{"a":-}', "Invalid value. at offset: 6"),
        (b'{"a":.5}', "Invalid value. at offset: 5"),
        (b'{"a":1.}', "Miss fraction part in number. at offset: 7"),
        (b'{"a":1e}', "Miss exponent in number. at offset: 7"),
        (b'{"a":1e+}', "Miss exponent in number. at offset: 8"),
        (b'{"a":1e400}', "Number too big to be stored in double. at offset: 5"),
        (b'{"a":' + b"9" * 400 + b"}", "Number too big to be stored in double. at offset: 5"),
        (b'{"a":"x', "Missing a closing quotation mark in string. at offset: 7"),
        (b'{"a":"x\ny"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a":"\\q"}', "Invalid escape character in string. at offset: 6"),
        (b'{"a":"\\u12g4"}', "Incorrect hex digit after \\u escape in string. at offset: 6"),
        (b'{"a":"\\ud800"}', "The surrogate pair in string is invalid. at offset: 6"),
        (b'{"a":"\\ud800\\u0041"}', "The surrogate pair in string is invalid. at offset: 6"),
    ],
)
def test_syntax_errors_carry_the_texts_and_offsets_of_rapidjson(body, text):
    assert text_of(lambda: scan(body) if body else parse(body)) == f"JSON Parse error: {text}"


def test_a_number_too_big_is_found_wherever_it_stands():
    for body in (
        b'{"instances":[1e400]}',
        b'{"instances":[' + b"9" * 400 + b"]}",
        b'{"inputs":{"x":[1,-1e999]}}',
    ):
        assert "Number too big to be stored in double." in reading(body, {"x": "float"})


def test_text_after_the_document_is_ignored():
    assert scan(b'{"a": 1} and so on') == {"a": 1}


def test_pairs_of_surrogate_escapes_are_one_character():
    assert parse(b'["\\ud83d\\ude00"]') is UNREAD
    assert scan(b'["\\ud83d\\ude00"]') == ["\N{GRINNING FACE}"]


def test_brackets_without_end_do_not_crash():
    types = {"x": "float"}
    assert (
        reading(b'{"instances":' + b"[" * 3000 + b"1" + b"]" * 3000 + b"}", types)
        == "tensor parsing error: x"
    )
    assert "Invalid value. at offset: 3013" in reading(b'{"instances":' + b"[" * 3000, types)
    nested = b'{"instances":[' + b'{"x":' * 3000 + b"1" + b"}" * 3000 + b"]}"
    assert "is not of expected type: float" in reading(nested, types)
    for start in (b"[", b'{"x":'):
        assert "Nested deeper than 10000 levels. at offset: " in reading(
            b'{"instances":' + start * 100_000, types
        )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.1", 0.1),
        ("-0", 0),
        ("-0.0", -0.0),
        ("1E5", 1e5),
        ("1e-400", 0.0),
        ("123456789012345678901234567890", 1.2345678901234566e29),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", 18446744073709551616.0),
        ("-9223372036854775808", -9223372036854775808),
        ("-9223372036854775809", -9223372036854775809.0),
        ("1e0000000000000000000005", 1e5),
        ("0." + "0" * 30 + "1", 1e-31),
    ],
)
def test_numbers_are_those_of_rapidjson(text, wanted):
    value = scan(f"[{text}]".encode())[0]
    assert (type(value), value) == (type(wanted), wanted)
    assert math.copysign(1, value) == math.copysign(1, wanted)


def test_a_float64_input_takes_the_scanners_arithmetic():
    body = b'{"inputs": [123456789012345678901234567890, 0.1]}'
    assert read_predict(body, lambda signature: {"x": "double"})[2]["x"].tolist() == [
        1.2345678901234566e29,
        0.1,
    ]


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (
            "int32",
            ["2147483647", "-2147483648"],
            ["2147483648", "1.0", "1e2", "true", '"1"', "null"],
        ),
        ("int64", ["9223372036854775807"], ["9223372036854775808", "1.0"]),
        ("uint32", ["4294967295", "0"], ["-1", "4294967296"]),
        ("uint64", ["18446744073709551615"], ["-1", "18446744073709551616"]),
        ("float", ["1", "-2.5", "NaN", "-Inf"], ["true", '"1"', "null", "{}"]),
        ("bool", ["true", "false"], ["0", "1", '"true"']),
        ("string", ['"a"', '{"b64": "YQ=="}'], ["1", "true", "null"]),
    ],
)
def test_each_type_takes_its_own_tokens_only(type_, good, bad):
    for token in good:
        read_predict(f'{{"inputs": [{token}]}}'.encode(), lambda signature: {"x": type_})
    for token in bad:
        text = reading(f'{{"inputs": [{token}]}}'.encode(), {"x": type_})
        assert text.endswith(f"is not of expected type: {type_}"), text


def test_small_integers_wrap_and_are_not_refused():
    arrays = read_predict(b'{"inputs": [300, -1]}', lambda signature: {"x": "uint8"})[2]
    assert arrays["x"].tolist() == [44, 255] and arrays["x"].dtype == np.uint8


def test_numbers_beyond_float32_are_infinite_and_tiny_ones_zero():
    arrays = read_predict(b'{"inputs": [1e39, -1e300, 1e-60]}', lambda signature: {"x": "float"})[2]
    assert arrays["x"].tolist() == [math.inf, -math.inf, 0.0]


def test_whole_numbers_become_floats_by_way_of_doubles():
    number = (
        2**60 + 2**36 + 1
    )  # a little above the middle of two floats, and in the middle as a double
    for body in (
        f'{{"inputs": [{number}]}}',
        f'{{"inputs": {number}}}',
        f'{{"instances": [{number}]}}',
    ):
        array = read_predict(body.encode(), lambda signature: {"x": "float"})[2]["x"]
        assert array.reshape(-1).tolist() == [float(2**60)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("aGVsbG8=", b"hello"),
        ("aGVsbG8", b"hello"),
        ("aGVs\\nbG8 =", b"hello"),
        ("aGVsbG8.", b"hello"),
        ("YQ..", b"a"),
        ("YQ", b"a"),
        ("", b""),
        ("YWJj", b"abc"),
        ("YQ=", None),
        ("YQ===", None),
        ("YWJj=", None),
        ("YWJj====", None),
        ("====", None),
        ("YQ==YQ==", None),
        ("Y", None),
        ("_-8=", None),
        ("\\u00e9", None),
    ],
)
def test_base64_is_read_as_absl_reads_it(text, wanted):
    body = f'{{"inputs": [{{"b64": "{text}"}}]}}'.encode()
    if wanted is None:
        assert reading(body, {"x": "string"}) == "Unable to base64 decode"
    else:
        assert read_predict(body, lambda signature: {"x": "string"})[2]["x"].tolist() == [wanted]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"inputs": [1, [2]]}', "Encountered list at unexpected level: 1 expected < 1"),
        (
            b'{"inputs": [[1], 2]}',
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            b'{"inputs": [[1, 2], [3]]}',
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        (b'{"inputs": {"z": 1}}', "Missing named input: x in 'inputs' object."),
        (b'{"instances": [[1,2],[1,2,3]]}', "Expecting tensor size: 2 but got: 3"),
        (b'{"instances": [[1,2],[[1,2]]]}', "Expecting shape [2] but got: [1,2]"),
        (
            b'{"instances": [1, {"x": 1}]}',
            "Expecting value/list but got object at item 1 of input list",
        ),
        (b'{"instances": [{"x": 1}, 1]}', "Expecting object but got list at item 1 of input list"),
        (b'{"inputs": 1, "instances": [1]}', "only one of 'inputs' or 'instances' keys to exist "),
        (b"[1, 2]", "JSON Value: [1, 2] Is not object"),
        (b"1.5", "JSON Value: 1.5 Is not object"),
        (b"NaN", "JSON Value: NaN Is not object"),
    ],
)
def test_shapes_and_keys_are_refused_in_the_servers_words(body, text):
    assert text in reading(body, {"x": "float"})


def test_a_missing_name_of_an_instance_is_named():
    text = reading(b'{"instances": [{"a": 1}]}', {"a": "float", "b": "float"})
    assert (
        text
        == "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys"
        " must be equal to: a,b"
    )


def test_a_malformed_base64_object_is_shown():
    text = reading(b'{"inputs": [{"b64": 1}]}', {"x": "string"})
    assert text == 'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data'


def test_of_repeated_names_the_first_counts_and_instances_keep_the_first_values():
    assert read_predict(b'{"inputs": [1], "inputs": [2]}', lambda s: {"x": "float"})[2][
        "x"
    ].tolist() == [1.0]
    arrays = read_predict(b'{"instances": [{"x": 1, "x": 2}, {"x": 3}]}', lambda s: {"x": "float"})[
        2
    ]
    assert arrays["x"].tolist() == [1.0, 2.0]


def test_an_echo_stops_at_the_first_token_after_256_bytes():
    text = echo(list(range(1000)))
    assert text.startswith("[0, 1, 2, 3") and 256 <= len(text) < 262
    assert echo(["a" * 1000, 1]) == '["' + "a" * 1000 + '"'


def test_an_echo_of_a_number_alone_is_that_of_a_float_as_far_as_rapidjson_calls_it_one():
    assert (echo(0.1), echo(3.4028234e38), echo(3.40282345e38)) == (
        "0.1",
        "3.40282347e+38",
        f"{3.40282345e38:.17g}",
    )


def test_an_echo_gives_up_at_a_number_that_is_not_finite():
    assert echo([1, math.nan, 2]) == "[1, "


@pytest.mark.parametrize(
    ("value", "text"),
    [(100.0, "100.0"), (0.1, "0.1"), (1e22, "1e22"), (1.5e-7, "1.5e-7"), (1e21, "1e21"),
     (123e18, "123000000000000000000.0"), (-0.0, "-0.0"), (1e-6, "0.000001"), (12.5, "12.5"), (1.25e30, "1.25e30")],
)  # fmt: skip
def test_doubles_within_values_are_laid_out_as_rapidjson_lays_them_out(value, text):
    assert shortest(value) == text
