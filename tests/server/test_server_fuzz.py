"""Malformed bodies and messages: every answer blames the caller, and memory stays flat."""

import gzip
import http.client
import json
import random

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import Served
from tensorflow_serving.apis.predict_pb2 import PredictRequest

PREDICT = "/v1/models/half_plus_two:predict"
PATHS = [PREDICT, PREDICT.replace("predict", "classify"), "/v1/models/%ff:predict"]
GOOD = [
    b'{"instances": [1.0, 2.0, 5.0]}',
    (
        b'{"signature_name": "segment", "inputs": {"image_bytes": [{"b64": "AAEC/w=="}],'
        b' "class_names": ["cat", "dog"]}}'
    ),
    (
        b'{"signature_name": "segment", "instances": [{"image_bytes": {"b64": "AA=="},'
        b' "class_names": "a"}]}'
    ),
    b'{"inputs": {"x": [[1, 2], [3, 4]]}}',
]
SPLINTERS = [
    b"[" * 3000, b"{" * 500, b"]", b"}", b'"', b"\\", b"\\ud800", b"\\u00", b"1e400", b"-",
    b"9" * 500, b"NaN", b"Infin",
    b"\xff\xfe", b"\x00", b"\xef\xbb\xbf", b'"b64"', b'{"b64": "!"}', b'{"b64": 1}', b"null", b"true", b"1.0", b",",
    b":",
    b'"instances"', b'"x": 1, "x": 2', b'"signature_name": 5,', b"[[1],[1,2]]", b"{}", b"1E999999999999",
]  # fmt: skip


def spoiled(chance: random.Random) -> bytes:
    """A good body, cut, spliced, repeated or flipped somewhere."""
    body = bytearray(chance.choice(GOOD))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(body) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            del body[at:]
        elif kind == 1:
            body[at:at] = chance.choice(SPLINTERS)
        elif kind == 2:
            body[at : at + chance.randint(1, 8)] = b""
        elif kind == 3 and at < len(body):
            body[at] = chance.randrange(256)
        else:
            body += body[:at]
    return bytes(body)


def assert_blameless(status: int, body: bytes) -> None:
    assert status < 500, body[:300]
    assert b"Traceback" not in body and b'File "' not in body
    if status != 200:
        assert body.startswith(b'{\n    "error": ')


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_spoiled_body_is_never_a_fault_of_the_server(server, chance):
    answer = server.rest("POST", PREDICT, spoiled(chance))
    assert_blameless(answer.status_code, answer.body)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([PREDICT, PREDICT.replace("predict", "classify"), "/v1/models/%ff:predict"]),
)
def test_any_bytes_are_never_a_fault_of_the_server(server, body, path):
    for headers in ({}, {"Content-Encoding": "gzip"}):
        answer = server.rest("POST", path, body, headers)
        assert_blameless(answer.status_code, answer.body)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126)),
)
def test_any_path_is_never_a_fault_of_the_server(server, method, path):
    for target in (f"/{path}", f"/v1/models/{path}", f"/v1/models/half_plus_two{path}"):
        assert server.rest(method, target, b"").status_code < 500


def spoiled_message(chance: random.Random) -> bytes:
    """A PredictRequest with odd tensors, or bytes that are none at all."""
    request = PredictRequest()
    request.model_spec.name = chance.choice(["half_plus_two", "half_plus_two", "other", ""])
    request.model_spec.signature_name = chance.choice(["", "", "segment", "total", "none"])
    for name in chance.sample(["x", "image_bytes", "class_names", "z"], chance.randint(0, 3)):
        tensor = request.inputs[name]
        tensor.dtype = chance.choice([0, 1, 1, 3, 7, 9, 19, 20, 21, 101])
        for _ in range(chance.randint(0, 3)):
            tensor.tensor_shape.dim.add().size = chance.choice([-1, 0, 1, 2, 3, 2**40, 2**62])
        tensor.tensor_content = chance.randbytes(chance.choice([0, 0, 3, 4, 8, 100]))
        tensor.float_val.extend([1.0] * chance.randint(0, 3))
        tensor.string_val.extend([b"a"] * chance.randint(0, 3))
    data = bytearray(request.SerializeToString())
    if data and chance.random() < 0.3:
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


BLAMELESS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}


def code_of(channel, data: bytes) -> tuple[str, str]:
    predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    try:
        predict(data, timeout=20)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def assert_message_blameless(code: str, text: str) -> None:
    assert code in BLAMELESS or text == "Exception deserializing request!", (code, text)
    assert "Traceback" not in text


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_spoiled_message_is_never_a_fault_of_the_server(grpc_channel, chance):
    assert_message_blameless(*code_of(grpc_channel, spoiled_message(chance)))


@pytest.fixture(scope="module")
def grpc_channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_bad_requests(fixture_base_path):
    chance = random.Random(0)
    with Served(
        str(fixture_base_path), "--model-name", "half_plus_two", "--log-level", "error"
    ) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.rest_api_port, timeout=30)
        with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            early = 0
            for index in range(10_000):
                if index == 3_000:
                    early = served.settled_bytes()
                if index % 4:
                    _post_bad(connection, chance)
                else:
                    assert_message_blameless(*code_of(channel, spoiled_message(chance)))
        late = served.settled_bytes()
        assert late - early < 10 * 2**20, f"grew by {(late - early) / 2**20:.1f} MiB"
        connection.request("POST", PREDICT, b'{"instances": [1]}')
        assert json.loads(connection.getresponse().read()) == {"predictions": [2.5]}
        connection.close()
        assert served.terminate() == 0
    assert not [line for line in served.errors if "Traceback" in line]


def _post_bad(connection, chance) -> None:
    body, headers = spoiled(chance), {}
    if chance.random() < 0.1:
        body, headers = gzip.compress(body)[: chance.randint(1, 200)], {"Content-Encoding": "gzip"}
    path = PREDICT if chance.random() < 0.9 else f"/v1/models/{chance.randrange(10**9)}:predict"
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    assert_blameless(response.status, response.read())
