"""Answers of broken and hostile servers end in RequestError, within bounds."""

import asyncio
import gzip
import json
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import grpc
import httpx
import numpy as np
import pytest
from client_serving import PHOTO, Serving, encoded, rest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_groupvit.client import AsyncClient, Client
from tf_groupvit.errors import InputError, RequestError
from tf_groupvit.transport.messages import fill, message_classes

MASK = encoded((PHOTO[..., 0] > 127).astype(np.uint8))
METHODS = {
    "segment": (PHOTO,),
    "classify": (PHOTO,),
    "encode_image": (PHOTO,),
    "encode_text": ("dog",),
    "predict": ({"x": [1.0]}, "total"),
    "status": (),
    "metadata": (),
}


class Channel:
    """A gRPC channel that answers every call with the same bytes, or with one error."""

    def __init__(self, answer):
        self.answer = answer

    def unary_unary(self, path, serializer, deserializer):
        def call(request, timeout):
            serializer(request)
            if isinstance(self.answer, Exception):
                raise self.answer
            return deserializer(self.answer[path] if isinstance(self.answer, dict) else self.answer)

        return call

    def close(self):
        pass


def over_rest(content, status=200, **headers):
    handler = lambda request: httpx.Response(status, content=content, headers=headers)  # noqa: E731
    return "x:1", httpx.MockTransport(handler)


def use(answer):
    """Everything that a user could do with an answer."""
    for one in answer if isinstance(answer, list) else [answer]:
        if hasattr(one, "labels"):
            one.areas, one.class_scores, one.to_json(), one.overlay()
            assert one.labels.shape == (4, 6)


def outcome(method, address, transport, **options):
    """What a method gives, used, or the RequestError; everything else goes up."""
    with Client(address, transport=transport, retries=0, **options) as client:
        try:
            answer = getattr(client, method)(*METHODS[method])
        except (
            RequestError,
            InputError,
        ) as error:  # of an image or a signature, where the answer says so
            assert "\n" not in str(error) and len(str(error)) < 800, error
            return error
    use(answer)
    return answer


def refused(method, address, transport, **options):
    error = outcome(method, address, transport, **options)
    assert isinstance(error, RequestError), error
    return error


# ---- answers by hand ----

ROW = {"mask_bytes": "", "class_scores": [0.5], "class_names": ["a"], "error": ""}
BIT = {"b64": "iVBORw0KGgo="}
JSONS = {
    "two thousand levels": "[" * 2000 + "]" * 2000,
    "a million levels": "[" * 10**6,
    "a long number": json.dumps({"predictions": [ROW | {"class_scores": [0]}]}).replace(
        "[0]", f"[1{'0' * 400}]"
    ),
    "a number too large": json.dumps({"predictions": [ROW | {"class_scores": [1e39]}]}),
    "a text for a number": json.dumps({"predictions": [ROW | {"class_scores": ["0.5"]}]}),
    "seventy levels": json.dumps({"predictions": [ROW | {"class_scores": 0}]}).replace(
        ": 0", f": {'[' * 70}{']' * 70}"
    ),
    "rows of other lengths": json.dumps({"predictions": [ROW | {"class_scores": [[0.5], []]}]}),
    "a float mask": json.dumps({"predictions": [ROW | {"mask_bytes": 0.5}]}),
    "a mask that is text": json.dumps({"predictions": [ROW | {"mask_bytes": "mask"}]}),
    "base64 that is none": json.dumps({"predictions": [ROW | {"mask_bytes": {"b64": "%%%"}}]}),
    "an escape code": json.dumps(
        {"predictions": [ROW | {"mask_bytes": BIT, "class_names": ["\x1b[2J"]}]}
    ),
    "half of a pair": json.dumps(
        {"predictions": [ROW | {"mask_bytes": BIT, "class_names": ["\ud800"]}]}
    ),
    "no rows": '{"predictions": []}',
    "null": "null",
    "nothing": "",
    "no UTF-8": b'{"predictions": ["\xff\xfe"]}',
    "a row that is none": '{"predictions": [7]}',
    "rows as an object": '{"predictions": {"mask_bytes": 1}}',
    "an error that is none": '{"error": {"a": [1]}}',
}


@pytest.mark.parametrize("status", [200, 400, 503, 599])
@pytest.mark.parametrize("name", JSONS)
def test_json_that_no_server_of_this_kind_writes_is_an_error(name, status):
    for method in METHODS:
        refused(method, *over_rest(JSONS[name], status))


STATUSES = [
    {"version": "x"},
    {"version": [1]},
    {"status": 5},
    {"status": {"error_message": 5}},
    "AVAILABLE",
]


@pytest.mark.parametrize("entry", STATUSES, ids=str)
def test_states_of_odd_types_are_an_error(entry):
    refused("status", *over_rest(json.dumps({"model_version_status": [entry]})))


def test_numbers_that_stand_for_nothing_are_unknown():
    status = {
        "model_version_status": [
            {"version": 1, "state": 99, "status": {"error_code": -1, "error_message": "a\nb"}}
        ]
    }
    expected = [{"version": 1, "state": "UNKNOWN", "error_code": "UNKNOWN", "error_message": "a b"}]
    assert outcome("status", *over_rest(json.dumps(status))) == expected
    message = message_classes()["GetModelStatusResponse"]()
    message.model_version_status.add(version=1, state=99).status.error_code = 99
    (version,) = outcome("status", "grpc://x:1", Channel(message.SerializeToString()))
    assert (version["state"], version["error_code"]) == ("UNKNOWN", "UNKNOWN")


def tensors(**outputs):
    response = message_classes()["PredictResponse"]()
    for name, value in {
        "mask_bytes": [MASK],
        "class_names": [["a", "b"]],
        "class_scores": [[1.0, 2.0]],
    }.items():
        fill(
            response.outputs[name],
            np.array(value, object if isinstance(value[0], bytes) or name[6] == "n" else "<f4"),
        )
    for name, change in outputs.items():
        change(response.outputs[name])
    return response.SerializeToString()


def sized(*sizes):
    def change(tensor):
        del tensor.tensor_shape.dim[:]
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)

    return change


TENSORS = {
    "negative sizes": tensors(class_scores=sized(-1, -1)),
    "negative sizes of one value": tensors(mask_bytes=sized(-1)),
    "seventy dimensions": tensors(mask_bytes=sized(*[1] * 70)),
    "no dimensions": tensors(mask_bytes=sized()),
    "huge sizes": tensors(class_scores=sized(2**62, 2**62)),
    "none of many": tensors(class_scores=sized(1, 0, 2**60)),
    "another type": tensors(class_scores=lambda tensor: setattr(tensor, "dtype", 3)),
    "no type": tensors(class_scores=lambda tensor: setattr(tensor, "dtype", 0)),
    "a float mask": tensors(mask_bytes=lambda tensor: fill(tensor, np.zeros(1, np.float32))),
    "half a number": tensors(class_scores=lambda tensor: setattr(tensor, "tensor_content", b"abc")),
    "cut": tensors()[:-3],
    "noise": b"\xff" * 40,
    "nothing": b"",
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_no_server_of_this_kind_sends_are_an_error(name):
    refused("segment", "grpc://x:1", Channel(TENSORS[name]))


def test_metadata_without_a_map_of_signatures_is_an_error():
    refused("metadata", "grpc://x:1", Channel(b""))
    refused("predict", "grpc://x:1", Channel(b""))
    wrong = message_classes()["GetModelMetadataResponse"]()
    wrong.metadata["signature_def"].value = b"\xff\xff"
    refused("metadata", "grpc://x:1", Channel(wrong.SerializeToString()))
    for body in (
        {"metadata": {}},
        {"model_spec": {}, "metadata": {"signature_def": []}},
        {"metadata": None},
    ):
        refused("metadata", *over_rest(json.dumps(body)))


def bomb(width, height):
    """A PNG of a few bytes whose header promises much."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(b"\0" * 100)
    parts = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("mask", [bomb(60000, 60000), bomb(9000, 9000), MASK[:40], encoded(PHOTO)])
def test_a_mask_that_is_a_bomb_or_broken_is_an_error(mask):
    change = lambda tensor: tensor.string_val.__setitem__(0, mask)  # noqa: E731
    refused("segment", "grpc://x:1", Channel(tensors(mask_bytes=change)))


def test_words_of_a_server_are_cut_and_on_one_line():
    words = "no\n\x1b[31m\u2028\u202e" + "x" * 5_000_000
    error = refused("encode_text", *over_rest(json.dumps({"error": words}), 400))
    assert error.code == "INVALID_ARGUMENT" and error.message.startswith("no \\x1b[31m \\u202exxx")
    assert len(error.message) < 210

    class Refusal(grpc.RpcError):
        code, details = (lambda self: grpc.StatusCode.INTERNAL), (lambda self: words)

    error = refused("encode_text", "grpc://x:1", Channel(Refusal()))
    assert error.code == "INTERNAL" and len(error.message) < 210 and error.message.isprintable()
    Refusal.code = lambda self: None
    assert refused("encode_text", "grpc://x:1", Channel(Refusal())).code == "UNKNOWN"


# ---- any answer ----

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=3),
        st.just(10**400),
        st.just(BIT),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


def good_answers():
    """{method: (path of the request, its body)} as the stand-in gives it."""
    seen = {}
    plain = rest(Serving())

    def handle(request):
        answer = plain.handler(request)
        seen.setdefault(method, []).append(answer.content)
        return answer

    for method, arguments in METHODS.items():
        with Client("x:1", transport=httpx.MockTransport(handle)) as client:
            getattr(client, method)(*arguments)
    return {
        method: [json.loads(content) for content in contents] for method, contents in seen.items()
    }


GOOD = good_answers()


def mutated(draw, value):
    """The value with something in it changed, at any depth."""
    inside = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    if not inside or draw(st.integers(0, 4)) == 0:
        return draw(VALUES)
    key, child = draw(st.sampled_from(inside))
    changed = value.copy()
    if draw(st.integers(0, 5)) == 0:
        del changed[key]
    elif draw(st.integers(0, 8)) == 0 and isinstance(value, list):
        changed.append(child)
    else:
        changed[key] = mutated(draw, child)
    return changed


@settings(max_examples=300, deadline=None)
@given(data=st.data(), method=st.sampled_from(sorted(METHODS)))
def test_any_json_is_an_answer_or_an_error(data, method):
    answers = [json.dumps(mutated(data.draw, answer)).encode() for answer in GOOD[method]]
    if data.draw(st.integers(0, 4)) == 0:
        answers = [answer[: data.draw(st.integers(0, len(answer)))] for answer in answers]
    left = iter(answers * 9)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=next(left)))
    outcome(method, "x:1", transport)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_message_is_an_answer_or_an_error(data):
    content = bytearray(tensors())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    for method in ("segment", "status", "metadata", "classify"):
        outcome(method, "grpc://x:1", Channel(bytes(content)))


# ---- size ----


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that arrives in pieces, and counts them."""

    def __init__(self, pieces, tick=lambda: None):
        self.pieces, self.tick, self.taken = pieces, tick, 0

    def __iter__(self):
        for piece in self.pieces:
            self.tick()
            self.taken += len(piece)
            yield piece

    async def __aiter__(self):
        for piece in self:
            yield piece


def streamed(stream, **headers):
    return "x:1", httpx.MockTransport(
        lambda request: httpx.Response(200, stream=stream, headers=headers)
    )


def asked_async(address, transport, **options):
    async def ask():
        async with AsyncClient(address, transport=transport, retries=0, **options) as client:
            try:
                return await client.status()
            except RequestError as error:
                return error

    return asyncio.run(ask())


@pytest.mark.parametrize("awaited", [False, True])
def test_a_body_without_end_is_left_when_it_is_too_large(awaited):
    stream = Stream(b"x" * 1000 for _ in range(10**6))
    ask = asked_async if awaited else lambda *where, **options: outcome("status", *where, **options)
    error = ask(*streamed(stream), max_answer_bytes=50_000)
    assert error.code == "OUT_OF_RANGE" and "more than 50,000 bytes" in error.message
    assert "max_answer_bytes=" in error.message and stream.taken == 51_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_a_body_is_inflated_to_counts_and_takes_no_more_memory(encoding):
    packed = (
        gzip.compress(b" " * (64 << 20)) if encoding == "gzip" else zlib.compress(b" " * (64 << 20))
    )
    tracemalloc.start()
    error = refused(
        "status",
        *streamed(Stream([packed]), **{"content-encoding": encoding}),
        max_answer_bytes=1 << 20,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.code == "OUT_OF_RANGE" and peak < 8 << 20


def test_packed_answers_are_read_and_broken_ones_are_an_error():
    whole = json.dumps(GOOD["status"][0]).encode()
    packed = gzip.compress(whole)
    halves = Stream([packed[:9], packed[9:]])
    assert (
        outcome("status", *streamed(halves, **{"content-encoding": "gzip"}))[0]["state"]
        == "AVAILABLE"
    )
    for body, encoding in (
        (packed[:-12], "gzip"),
        (whole, "gzip"),
        (whole, "br"),
        (packed, "gzip, gzip"),
    ):
        refused("status", *streamed(Stream([body]), **{"content-encoding": encoding}))


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_large_message_is_an_error_and_so_is_one_that_is_packed(compression):
    answer = message_classes()["GetModelStatusResponse"]()
    for _ in range(1000):
        answer.model_version_status.add(version=1, state=30)
    handler = grpc.unary_unary_rpc_method_handler(
        lambda request, context: answer.SerializeToString()
    )
    service = grpc.method_handlers_generic_handler(
        "tensorflow.serving.ModelService", {"GetModelStatus": handler}
    )
    server = grpc.server(ThreadPoolExecutor(1), compression=compression)
    server.add_generic_rpc_handlers((service,))
    address = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    if compression is None:
        assert len(outcome("status", address, None)) == 1000
        error = refused("status", address, None, max_answer_bytes=1000)
        assert error.code == "OUT_OF_RANGE" and "more than 1,000 bytes" in error.message
        assert asked_async(address, None, max_answer_bytes=1000).code == "OUT_OF_RANGE"
    else:
        refused("status", address, None)
    server.stop(None).wait()


# ---- time ----


@pytest.mark.parametrize("awaited", [False, True])
def test_a_body_that_drips_ends_with_the_timeout(awaited, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("tf_groupvit.transport.rest_transport.time.monotonic", lambda: clock[0])
    stream = Stream((b" " for _ in range(10**6)), lambda: clock.__setitem__(0, clock[0] + 0.5))
    ask = asked_async if awaited else lambda *where, **options: outcome("status", *where, **options)
    error = ask(*streamed(stream), timeout=10)
    assert error.code == "DEADLINE_EXCEEDED" and 19 <= stream.taken <= 22


@contextmanager
def talking(talk) -> Iterator[str]:
    """The address of a server that answers a connection with ``talk(connection)``."""
    listener, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve():
        connection, _ = listener.accept()
        with suppress(OSError), connection:  # the client hangs up
            talk(connection, done)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    done.set()
    thread.join()
    listener.close()


def drip(start, piece):
    def talk(connection, done):
        connection.sendall(start)
        while not done.wait(0.02):
            connection.sendall(piece)

    return talk


def never_read(connection, done):
    done.wait(5)


SLOW = {
    "100 Continue": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers": drip(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "a body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "chunks": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "nothing": never_read,
}


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("name", SLOW)
def test_the_timeout_bounds_all_waits_together(name, awaited):
    with talking(SLOW[name]) as address:
        started = time.monotonic()
        error = (
            asked_async(address, None, timeout=0.2)
            if awaited
            else refused("status", address, None, timeout=0.2)
        )
        assert error.code == "DEADLINE_EXCEEDED" and "did not answer in time" in error.message
        assert time.monotonic() - started < 5  # it was without end


def test_a_server_that_does_not_read_is_left_in_time():
    image = encoded(np.random.default_rng(0).integers(0, 256, (1500, 2500, 3), np.uint8))
    with (
        talking(never_read) as address,
        Client(address, timeout=0.2, retries=0) as client,
        pytest.raises(RequestError, match="DEADLINE_EXCEEDED"),
    ):
        client.segment(image)
