"""REST predict bodies: forms, shapes, element types, base64, and errors (contract, 3 to 5)."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_calls import call, predict, refusal
from small_models import TYPES, every_type

from tf_groupvit.server.json_requests import decode_base64, read_predict
from tf_groupvit.server.json_responses import write_predict
from tf_groupvit.server.running import Server
from tf_groupvit.server.status import StatusError
from tf_groupvit.server.tensor_protos import NUMBER_OF, numpy_type

EVERY = "/v1/models/every:predict"
SHOWN = '{\n    "signature_name": "float",\n    '  # how an echo of these bodies begins


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    every_type(folder)
    with Server({"every": folder}, port=None) as running:
        yield running


def refused_float(server, rest: str) -> str:
    status, text = refusal(server, f'{{"signature_name": "float", {rest}}}', EVERY)
    assert status == 400
    return text


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ('"inputs": 1, "instances": [1]',
         f'JSON Value: {SHOWN}"inputs": 1,\n    "instances": [1]\n}} Not formatted correctly expecting only one of '
         "'inputs' or 'instances' keys to exist "),
        ('"x": 1', "Missing 'inputs' or 'instances' key"),
        ('"instances": 1', f"JSON Value: {SHOWN}\"instances\": 1\n}} Expecting 'instances' to be an list/array"),
        ('"instances": {}', f"JSON Value: {SHOWN}\"instances\": {{}}\n}} Expecting 'instances' to be an list/array"),
        ('"instances": []', f"JSON Value: {SHOWN}\"instances\": []\n}} No values in 'instances' array"),
        ('"inputs": {"y": [1]}', "Missing named input: x in 'inputs' object."),
        ('"inputs": {}', "Missing named input: x in 'inputs' object."),
        ('"instances": [[1], {"x": [1]}]', "Expecting value/list but got object at item 1 of input list"),
        ('"instances": [{"x": 1}, [1]]', "Expecting object but got list at item 1 of input list"),
        ('"instances": [{"x": 1}, {"b64": "YQ=="}]', "Expecting object but got list at item 1 of input list"),
        ('"instances": [{"x": 1, "z": 2}]', "Failed to process element: 0 key: z of 'instances' list. Error: "
         "INVALID_ARGUMENT: JSON object: does not have named input: z"),
        ('"instances": [{"x": 1}, {}]', "Failed to process element: 1 of 'instances' list. JSON object: {} keys must "
         "be equal to: x"),
        ('"instances": [{"x": true}]', "Failed to process element: 0 key: x of 'instances' list. Error: "
         "INVALID_ARGUMENT: JSON Value: true Type: True is not of expected type: float"),
        ('"instances": [[1, 2], [1, 2, 3]]', "Failed to process element: 1 of 'instances' list. Error: "
         "INVALID_ARGUMENT: Expecting tensor size: 2 but got: 3"),
        ('"instances": [[1, 2], [[1, 2]]]', "Failed to process element: 1 of 'instances' list. Error: "
         "INVALID_ARGUMENT: Expecting shape [2] but got: [1,2]"),
        ('"instances": [1, [1]]', "Failed to process element: 1 of 'instances' list. Error: "
         "INVALID_ARGUMENT: Expecting shape [] but got: [1]"),
        ('"instances": [[1, [2]]]', "Failed to process element: 0 of 'instances' list. Error: "
         "INVALID_ARGUMENT: Encountered list at unexpected level: 1 expected < 1"),
        ('"inputs": [1, [2]]', "Encountered list at unexpected level: 1 expected < 1"),
        ('"inputs": [[1, 2], [1, 2, 3]]', "Encountered list at unexpected size: 3 at level: 1 expected size: 2"),
        ('"inputs": [[1], 2]', "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ('"inputs": [[[1, 2]], [[3], [4]]]',
         # documented upstream, and refused
         "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
    ],
)  # fmt: skip
def test_shapes_keys_and_names_are_refused_to_the_letter(server, rest, text):
    assert refused_float(server, rest) == text


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ("7.5", 7.5),
        ("[]", []),
        ("[[],[]]", [[], []]),
        ("[[[1]]]", [[[1.0]]]),
        ('{"x": 2}', 2.0),
        ('{"x": [], "z": 1}', []),
    ],
)
def test_columns_take_scalars_empty_lists_and_any_rank_and_ignore_other_names(
    server, inputs, outputs
):
    status, text = predict(server, f'{{"signature_name": "float", "inputs": {inputs}}}', EVERY)
    assert (status, json.loads(text)) == (200, {"outputs": outputs})


def test_rows_take_empty_lists_of_one_shape(server):
    status, text = predict(server, '{"signature_name": "float", "instances": [[], []]}', EVERY)
    assert (status, json.loads(text)) == (200, {"predictions": [[], []]})


def test_unknown_keys_and_an_output_filter_are_ignored_and_the_first_of_two_keys_counts(server):
    body = (
        '{"output_filter": ["none"], "x": {}, "signature_name": "float", "signature_name": 1,'
        ' "inputs": 1, "inputs": 2}'
    )
    status, text = predict(server, body, EVERY)
    assert (status, json.loads(text)) == (200, {"outputs": 1.0})


PAIR = '{"a": [1, 2], "b": {"b64": "/w=="}}'


def pair(server, rest: str) -> tuple[int, str]:
    return predict(server, f'{{"signature_name": "pair", {rest}}}', EVERY)


def test_several_inputs_in_rows_make_objects_of_several_outputs(server):
    status, text = pair(server, f'"instances": [{{"b": "x", "a": [3, 4]}}, {PAIR}]')
    assert status == 200
    assert json.loads(text.encode("utf-8", "surrogateescape").decode("latin-1"))["predictions"] == [
        {"a": [3.0, 4.0], "b": "x", "b_bytes": {"b64": "eA=="}},
        {"a": [1.0, 2.0], "b": "\xff", "b_bytes": {"b64": "/w=="}},
    ]


def test_several_inputs_in_columns_may_differ_in_their_first_dimension(server):
    status, text = pair(server, '"inputs": {"a": [[1, 2]], "b": ["x", "y", "z"]}')
    answer = {
        "a": [[1.0, 2.0]],
        "b": ["x", "y", "z"],
        "b_bytes": [{"b64": "eA=="}, {"b64": "eQ=="}, {"b64": "eg=="}],
    }
    assert (status, json.loads(text)) == (200, {"outputs": answer})
    status, text = pair(server, '"inputs": {"a": [[]], "b": "x"}')
    assert (status, json.loads(text)["outputs"]["a"]) == (200, [[]])


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ('"instances": [[1, 2]]', "instances is a plain list, but expecting list of objects as multiple input tensors "
                                  "required as per tensorinfo_map"),
        ('"inputs": [[1, 2]]', "inputs is a plain value/list, but expecting an object as multiple input tensors "
                               "required as per tensorinfo_map"),
        ('"inputs": {"b64": "YQ=="}', "inputs is a plain value/list, but expecting an object as multiple input tensors "
                                      "required as per tensorinfo_map"),
        ('"inputs": {"a": [[1]]}', "Missing named input: b in 'inputs' object."),
        ('"instances": [{"a": [1]}]', "Failed to process element: 0 of 'instances' list. JSON object: {\n"
         '    "a": [1]\n} keys must be equal to: a,b'),
        ('"inputs": {"a": [[1]], "b": [{"b64": "!"}]}', "Unable to base64 decode"),
        ('"inputs": {"a": [[1]], "b": {"b64": 1}}',
         'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data'),
        ('"inputs": {"a": [[1]], "b": [{"b64": "YQ==", "k": 1}]}',
         'JSON Value: {\n    "b64": "YQ==",\n    "k": 1\n} not formatted correctly for base64 data'),
        ('"instances": [{"a": [1], "b": {}}]', "Failed to process element: 0 key: b of 'instances' list. Error: "
         "INVALID_ARGUMENT: JSON Value: {} not formatted correctly for base64 data"),
        ('"instances": [{"a": [1], "b": {"b64": "_-8="}}]', "Failed to process element: 0 key: b of 'instances' list. "
         "Error: INVALID_ARGUMENT: Unable to base64 decode"),
        ('"instances": [{"a": [1, 2], "b": "x"}, {"a": [1], "b": "y"}]', "Failed to process element: 1 key: a of "
         "'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1"),
    ],
)  # fmt: skip
def test_several_inputs_are_refused_to_the_letter(server, rest, text):
    status, got = pair(server, rest)
    assert (status, json.loads(got)) == (400, {"error": text})


@pytest.mark.parametrize("wrap", ["%s", "[%s]", "[[%s, %s]]"])
def test_base64_objects_are_bytes_however_deep_they_stand(server, wrap):
    given = wrap.replace("%s", '{"b64": "AAH/"}')
    status, text = predict(server, f'{{"signature_name": "string", "inputs": {given}}}', EVERY)
    wanted = json.loads(wrap.replace("%s", '"\\u0000\\u0001\u00ff"'))
    assert status == 200
    assert json.loads(text.encode("utf-8", "surrogateescape").decode("latin-1")) == {
        "outputs": wanted
    }


def test_a_plain_string_is_never_decoded(server):
    status, text = predict(
        server, '{"signature_name": "string", "instances": ["aGVsbG8=", ""]}', EVERY
    )
    assert (status, json.loads(text)) == (200, {"predictions": ["aGVsbG8=", ""]})


def test_a_default_signature_without_inputs_is_called_default(server):
    for body in ("{}", '{"signature_name": "", "instances": [1]}'):
        assert refusal(server, body, EVERY) == (
            400,
            "Failed to get input map for signature: DEFAULT",
        )


@pytest.mark.parametrize("name", ["1", "null", "[]", '{"a": 1}', "true"])
def test_a_signature_name_that_is_no_string_is_shown_before_the_model_is_looked_up(server, name):
    shown = {"{": '{\n        "a": 1\n    }'}.get(name[0], name)
    text = (
        f'JSON Value: {{\n    "signature_name": {shown}\n}} not formatted correctly. '
        "'signature_name' key must be a string value."
    )
    assert refusal(server, f'{{"signature_name": {name}}}', "/v1/models/none:predict") == (
        400,
        text,
    )


@pytest.mark.parametrize(
    ("body", "shown"), [("[1, {}]", "[1, {}]"), ('"x"', '"x"'), ("1", "1"), ("null", "null")]
)
def test_a_body_that_is_no_object_is_shown(server, body, shown):
    assert refusal(server, body, EVERY) == (400, f"JSON Value: {shown} Is not object")


def test_rows_that_cannot_be_written_are_found_after_the_model_ran(server):
    def runs() -> int:
        series = 'runtime_latency_count{model_name="every",API="Predict",runtime="TF1"} '
        return int(server.metrics.page().partition(series)[2].partition("\n")[0] or 0)

    before = runs()
    wanted = (400, "Tensor name: b has inconsistent batch size: 1 expecting: 2")
    assert refusal(server, '{"signature_name": "uneven", "instances": [1, 2]}', EVERY) == wanted
    assert runs() == before + 1
    assert predict(server, '{"signature_name": "uneven", "inputs": [1, 2]}', EVERY)[0] == 200


def test_the_number_of_predictions_is_that_of_the_outputs(server):
    status, text = predict(server, '{"signature_name": "uneven", "instances": [1]}', EVERY)
    assert (status, json.loads(text)) == (200, {"predictions": [{"a": 2.0, "b": 1.0}]})


def test_what_the_graph_refuses_is_400_in_the_runtimes_words(server):
    status, text = refusal(server, '{"signature_name": "fails", "instances": [100]}', EVERY)
    assert status == 400 and "x is too large" in text


def test_a_wrong_value_of_megabytes_is_shown_whole(server):
    value = "A" * 3_000_000
    text = refused_float(server, f'"inputs": {{"x": {{"b64": "{value}"}}}}')
    # Whole, for the echo ends between tokens: after this one, which is why the closing brace is not
    # there.
    assert (
        text == f'JSON Value: {{\n    "b64": "{value}" Type: Object is not of expected type: float'
    )


def test_an_error_is_pretty_printed_json_of_its_own_type(server):
    status, text, headers = call(server, "POST", "/v1/models/half:predict", b'{"instances": [1]}')
    assert (status, text) == (
        404,
        '{\n    "error": "Servable not found for request: Latest(half)"\n}',
    )
    assert headers["content-type"] == "application/json"


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
    "18446744073709551616": "1.8446744073709552e+19", "-9223372036854775809": "-9.223372036854776e+18",
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
    for form in ("row", "columnar"):
        with pytest.raises(StatusError) as refused:
            write_predict({"y": np.ones(2, numpy_type(NUMBER_OF[type_]))}, form)
        wanted = ("INVALID_ARGUMENT", f"Failed to write JSON value for tensor type: {type_}")
        assert (refused.value.code, refused.value.text) == wanted


def read(body: bytes, type_: str) -> np.ndarray:
    return read_predict(body, lambda signature: {"x": type_}).inputs["x"]


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "a\u00e9", {"b64": "aGVsbG8="}, {"b64": 1}])
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(LEAVES | st.lists(LEAVES | st.lists(LEAVES, max_size=2), max_size=2), min_size=1, max_size=3),
    st.sampled_from(TYPES),
)  # fmt: skip
def test_rows_by_place_rows_by_name_and_columns_are_one_tensor_or_none(values, type_):
    def outcome(body: dict) -> str:
        try:
            array = read(json.dumps(body).encode(), type_)
        except StatusError:
            return "refused"
        return f"{array.dtype} {array.shape} {array.tolist()}"

    columns = outcome({"inputs": {"x": values}})
    assert outcome({"instances": [{"x": value} for value in values]}) == columns
    if values[0] != {"b64": 1}:  # which is taken for an object of names
        assert outcome({"instances": values}) == columns


def test_whole_numbers_become_floats_by_way_of_doubles():
    number = 2**60 + 2**36 + 1  # above the middle of two floats, and in the middle as a double
    for form in (f'{{"inputs": [{number}]}}', f'{{"instances": [{number}]}}'):
        assert read(form.encode(), "float").tolist() == [float(2**60)]


def test_an_integer_beyond_64_bits_among_others_is_a_double_of_rapidjson():
    body = b'{"inputs": [123456789012345678901234567890, 0.1, 1]}'
    assert read(body, "double").tolist() == [1.2345678901234566e29, 0.1, 1.0]


@pytest.mark.parametrize("values", ["[" * 70 + "1" + "]" * 70, "[" * 300 + "1,[]" + "]" * 300])
def test_more_dimensions_than_numpy_has_are_refused(values):
    with pytest.raises(StatusError, match="tensor parsing error: x"):
        read(f'{{"inputs": {values}}}'.encode(), "float")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("aGVsbG8=", b"hello"),
        ("aGVsbG8", b"hello"),
        ("aGVs\\nbG8 =", b"hello"),
        ("YQ..", b"a"),
        ("YQ", b"a"),
        ("", b""),
        ("YWJj", b"abc"),
        *((text, None) for text in ("YQ=", "YQ===", "YWJj=", "====", "YQ==YQ==", "Y", "_-8=", "\\u00e9",
                                     "YQ==\\u00a0", "\\u2003YQ==", "Y\\u001cQ==")),
    ],
)  # fmt: skip
def test_base64_is_read_as_absl_reads_it(text, wanted):
    body = f'{{"inputs": [{{"b64": "{text}"}}]}}'.encode()
    if wanted is None:
        with pytest.raises(StatusError, match="Unable to base64 decode"):
            read(body, "string")
    else:
        assert read(body, "string").tolist() == [wanted]


def test_blanks_in_base64_take_no_memory_of_their_own():
    text = "QUFB " * 2**17
    tracemalloc.start()
    try:
        assert decode_base64(text) == b"AAA" * 2**17
        assert tracemalloc.get_traced_memory()[1] < 5 * len(text)
    finally:
        tracemalloc.stop()
