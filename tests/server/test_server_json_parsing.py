"""JSON documents: RapidJSON's rules where they differ from Python's, and values in messages."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_groupvit.server.json_parsing import as_stored, echo, parse
from tf_groupvit.server.status import StatusError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


def refused(body: bytes) -> str:
    with pytest.raises(StatusError) as raised:
        parse(body)
    assert raised.value.code == "INVALID_ARGUMENT"
    return raised.value.text


@given(JSON, st.booleans(), st.sampled_from(["", " and so on", "}"]))
def test_a_document_is_read_back_whatever_follows_it(value, ascii_only, rest):
    text = f" \n{json.dumps(value, ensure_ascii=ascii_only)} {rest}"
    assert parse(text.encode()) == value
    assert parse(b"\xef\xbb\xbf" + text.encode()) == value  # a byte order mark is skipped


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty"),
        (b"  \n", "The document is empty. at offset: 3"),
        (b"]", "The document is empty. at offset: 0"),
        (b"{", "Missing a name for object member. at offset: 1"),
        (b"{1:2}", "Missing a name for object member. at offset: 1"),
        (b'{"a":1,}', "Missing a name for object member. at offset: 7"),
        (b'{"a"}', "Missing a colon after a name of object member. at offset: 4"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a":}', "Invalid value. at offset: 5"),
        (b'{"a":1 "b":2}', "Missing a comma or '}' after an object member. at offset: 7"),
        (b'{"a":[{"[": []}, 1], "b": "\\"" 1', "Missing a comma or '}' after an object member. at offset: 31"),
        (b'{"a":[{"]": []} 1]}', "Missing a comma or ']' after an array element. at offset: 16"),
        (b'{"a":1', "Missing a comma or '}' after an object member. at offset: 6"),
        (b'{"a":[1', "Missing a comma or ']' after an array element. at offset: 7"),
        (b'{"a":[', "Invalid value. at offset: 6"),
        (b'{"a":[,1]}', "Invalid value. at offset: 6"),
        (b'{"a":[1, ]}', "Invalid value. at offset: 9"),
        (b'{"a":.5}', "Invalid value. at offset: 5"),
        (b'{"a":"x', "Missing a closing quotation mark in string. at offset: 7"),
        (b'{"a":"x\ny"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a":"\\q"}', "Invalid escape character in string. at offset: 6"),
        (b'{"a":"\\u12g4"}', "Incorrect hex digit after \\u escape in string. at offset: 6"),
        (b'{"a":"\\ud800"}', "The surrogate pair in string is invalid. at offset: 6"),
        (b'{"a":"\\\\\\udc80"}', "The surrogate pair in string is invalid. at offset: 8"),
        (b'{"\xc3\xa9":"\xff" 1}', "Missing a comma or '}' after an object member. at offset: 10"),
        (b"\xef\xbb\xbf{1", "Missing a name for object member. at offset: 4"),
    ],
)  # fmt: skip
def test_syntax_errors_carry_the_texts_and_offsets_of_rapidjson(body, text):
    assert refused(body) == f"JSON Parse error: {text}"


@pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"1." + b"0" * 99 + b"e309", b"9" * 5000])
def test_a_number_beyond_doubles_is_refused_wherever_it_stands(number):
    for body in (number, b'{"instances": [1, ' + number + b"]}"):
        assert refused(body) == "JSON Parse error: Number too big to be stored in double."
    with pytest.raises(StatusError, match="Number too big"):
        as_stored(10**400)


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (18446744073709551615, 18446744073709551615),
        (18446744073709551616, 18446744073709551616.0),
        (-9223372036854775808, -9223372036854775808),
        (-9223372036854775809, -9223372036854775809.0),
        (123456789012345678901234567890, 1.2345678901234566e29),
    ],
)
def test_integers_beyond_64_bits_are_doubles(number, wanted):
    assert (type(as_stored(number)), as_stored(number)) == (type(wanted), wanted)


def test_strings_hold_any_bytes_and_pairs_of_surrogates():
    assert parse(b'["\xff\xfe", "\\ud83d\\ude00", "\\\\ud800"]') == [
        "\udcff\udcfe",
        "\N{GRINNING FACE}",
        "\\ud800",
    ]


def test_of_repeated_names_the_first_counts():
    assert list(parse(b'{"a": 1, "b": 2, "a": 3}').items()) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("start", [b"[", b'{"x":', b'[{"x":'])
def test_brackets_without_end_are_refused(start):
    assert "JSON Parse error: Nested too deeply" in refused(b'{"instances":' + start * 100_000)


def test_an_echo_has_objects_over_several_lines_and_lists_on_one():
    value = {"a": {"b": [1, 2.5, None, True, "\udcff\n"], "c": {}}, "d": [{"e": 1}]}
    text = (
        '{\n    "a": {\n        "b": [1, 2.5, null, true, "\udcff\\n"],\n'
        '        "c": {}\n    },\n    "d": [{\n            "e": 1\n        }]\n}'
    )
    assert echo(value) == text
    assert (echo(math.inf), echo(2**64)) == ("Infinity", "1.8446744073709552e+19")


def test_an_echo_stops_at_the_first_token_after_256_bytes():
    text = echo(list(range(1000)))
    assert text.startswith("[0, 1, 2, 3") and 256 <= len(text) < 262
    assert echo(["a" * 1000, 1]) == '["' + "a" * 1000 + '"'
    assert len(echo(json.loads("[" * 400 + "]" * 400))) == 256
