"""The client when a server is busy, slow, wrong or absent, and when its input is wrong."""

import asyncio
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from client_serving import (
    PHOTO,
    SIGNATURES,
    WAYS,
    Serving,
    asking,
    embed,
    encoded,
    grpc_server,
    rest,
)

from tf_groupvit import client as module
from tf_groupvit.client import AsyncClient, Client
from tf_groupvit.errors import ImageError, InputError, RequestError


@pytest.fixture
def serving():
    return Serving()


@pytest.fixture(params=WAYS)
def ask(request, serving):
    yield from asking(request.param, serving)


@pytest.mark.parametrize("names", [[], [""], ["dog", " "], "", ["salt, pepper"], ["dog", "dog "]])
def test_class_names_that_a_request_cannot_carry_are_refused_before_it_is_sent(ask, serving, names):
    with pytest.raises(InputError, match=r"Class names|The class|Class \d|Classes"):
        ask("segment", PHOTO, names)
    assert serving.asked == []


def test_what_is_no_image_is_not_sent_and_the_others_are(ask, serving, tmp_path):
    (tmp_path / "notes.png").write_text("notes")
    with pytest.raises(ImageError, match=r"notes\.png") as caught:
        ask("segment", [PHOTO, tmp_path / "notes.png", PHOTO])
    assert caught.value.index == 1 and caught.value.results[1] is caught.value
    assert [caught.value.results[place].labels.shape for place in (0, 2)] == [(4, 6)] * 2
    assert serving.asked == [("serving_default", {"image_bytes": 2})]
    with pytest.raises(ImageError, match=r"notes\.png"):
        ask("segment", tmp_path / "notes.png")
    assert len(serving.asked) == 1


def test_a_refusal_of_the_server_keeps_its_code_and_words(ask):
    with pytest.raises(RequestError) as caught:
        ask("segment", PHOTO, model_name="other")
    assert (caught.value.code, caught.value.message) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(other)",
    )


def test_of_a_failed_check_of_the_graph_the_words_are_left(ask, serving):
    words = (
        'assertion failed: [send {\\"b64\\": 1}.]\n\t [[{{function_node __inference_see_1}}{{node'
        " Assert_45}}]]"
    )
    serving.refusals = [("INVALID_ARGUMENT", words)]
    with pytest.raises(RequestError) as caught:
        ask("encode_text", "dog")
    assert caught.value.message == 'send {"b64": 1}.'


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_busy_server_is_asked_again(ask, serving, code, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    serving.refusals = [(code, "full"), (code, "full")]
    assert ask("encode_text", "dog").shape == (3,)
    serving.refusals = [(code, "full")] * 9
    with pytest.raises(RequestError, match=f"{code}: full"):
        ask("encode_text", "dog", retries=2)
    assert len(serving.refusals) == 6, "asked once and twice again"


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL"])
def test_nothing_else_is_asked_again(ask, serving, code):
    serving.refusals = [(code, "no")] * 2
    with pytest.raises(RequestError, match=f"{code}: no"):
        ask("encode_text", "dog")
    assert len(serving.refusals) == 1


def test_pauses_double_with_jitter_and_stay_within_the_timeout(monkeypatch):
    serving, slept = Serving(), []

    def sleep(seconds):
        if seconds:  # the stand-in sleeps for none
            slept.append(seconds)

    serving.refusals = [("UNAVAILABLE", "full")] * 20
    monkeypatch.setattr(time, "sleep", sleep)
    with (
        Client("x:1", transport=rest(serving), retries=9, timeout=1e6) as client,
        pytest.raises(RequestError),
    ):
        client.encode_text("dog")
    steps = [min(0.1 * 2**k, 5.0) for k in range(9)]
    assert all(step / 2 <= pause <= step for pause, step in zip(slept, steps, strict=True))
    assert len({pause / step for pause, step in zip(slept, steps, strict=True)}) > 1
    slept.clear()
    with (
        Client("x:1", transport=rest(serving), retries=9, timeout=0.04) as client,
        pytest.raises(RequestError),
    ):
        client.encode_text("dog")
    assert slept == []


def test_an_answer_of_other_outputs_is_an_error_that_names_them(ask, monkeypatch):
    monkeypatch.setitem(
        SIGNATURES, "serving_default", lambda image_bytes: {"y": ("DT_FLOAT", [1.0])}
    )
    with pytest.raises(RequestError, match="mask_bytes, class_scores, class_names were expected"):
        ask("segment", PHOTO)


def test_too_few_rows_are_an_error(ask, monkeypatch):
    monkeypatch.setitem(
        SIGNATURES, "encode_text", lambda text: {"text_embeds": ("DT_FLOAT", embed(text[:1]))}
    )
    with pytest.raises(RequestError, match="2 rows of text_embeds were expected"):
        ask("encode_text", ["a", "b"])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (encoded(PHOTO[..., 0][:2]), "6x2 and the image 6x4"),
        (encoded(PHOTO[..., 0]), "received 255"),
        (b"?", "mask"),
    ],
)
def test_a_mask_that_does_not_go_with_the_image_is_an_error(ask, monkeypatch, mask, message):
    answer = {
        "mask_bytes": ("DT_STRING", [mask]),
        "class_scores": ("DT_FLOAT", [[1.0]]),
        "class_names": ("DT_STRING", [["a"]]),
    }
    monkeypatch.setitem(SIGNATURES, "serving_default", lambda image_bytes: answer)
    with pytest.raises(RequestError, match=message):
        ask("segment", PHOTO)


def test_a_slow_server_is_not_waited_for(serving):
    server, address = grpc_server(serving)
    serving.slow = 2.0
    started = time.monotonic()
    with (
        Client(address, timeout=0.2) as client,
        pytest.raises(RequestError, match=r"DEADLINE_EXCEEDED: .*timeout="),
    ):
        client.status()
    assert time.monotonic() - started < 1.5
    server.stop(None).wait()


def raw_server(reply):
    """A socket that reads one request, sends ``reply`` and hangs up, or keeps silent if it is None."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        connection.recv(65536)
        if reply is None:
            time.sleep(1.0)
        else:
            connection.sendall(reply)
        connection.close()
        listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html",
            "UNKNOWN",
            "does not answer as TensorFlow Serving does",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
            "UNKNOWN",
            "does not answer as TensorFlow Serving does",
        ),
        (
            b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\n<html",
            "NOT_FOUND",
            "HTTP 404 b'<html': check address",
        ),
        (b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", "INVALID_ARGUMENT", "HTTP 400"),
        (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00", "UNAVAILABLE", r"or gRPC \(grpc://\)"),
        (b"", "UNAVAILABLE", "cannot be reached"),
        (None, "DEADLINE_EXCEEDED", "did not answer in time"),
    ],
)
def test_what_is_no_model_server_gets_a_word_on_what_to_check(reply, code, message):
    thread, address = raw_server(reply)
    with (
        Client(address, retries=0, timeout=0.5) as client,
        pytest.raises(RequestError, match=message) as caught,
    ):
        client.status()
    assert caught.value.code == code
    thread.join()


@pytest.mark.parametrize("scheme", ["", "http://", "grpc://"])
def test_where_nothing_listens_the_address_is_in_the_error(scheme):
    with (
        Client(f"{scheme}127.0.0.1:1", retries=0) as client,
        pytest.raises(RequestError, match=r"127\.0\.0\.1:1 cannot be"),
    ):
        client.status()


@pytest.mark.parametrize(
    "address", ["", "host", "http://", "ftp://host:1", "grpc://host", "host:99999", "host:port"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match="is no address"):
        Client(address)


@pytest.mark.parametrize(
    "wrong", [{"timeout": float("nan")}, {"timeout": 0}, {"timeout": -1}, {"batch_size": 0}]
)
def test_times_and_sizes_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        Client("127.0.0.1:1", **wrong)


def test_an_address_may_be_bare_or_carry_a_path():
    seen = []

    def handle(request):
        seen.append(str(request.url))
        return httpx.Response(200, json={"model_version_status": []})

    for address in ("host:8501", "http://host:8501/", "https://host/tf/"):
        with Client(address, "a/b", transport=httpx.MockTransport(handle)) as client:
            client.status()
    paths = (
        "http://host:8501/v1/models/a%2Fb",
        "http://host:8501/v1/models/a%2Fb",
        "https://host/tf/v1/models/a%2Fb",
    )
    assert tuple(seen) == paths


@pytest.mark.parametrize(("name", "address"), [("httpx", "host:1"), ("grpc", "grpc://host:1")])
def test_a_missing_extra_says_how_to_install_it(monkeypatch, name, address):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install tf-groupvit\[serve\]"):
        Client(address)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("awaited", [False, True])
def test_a_connection_that_is_refused_is_tried_again_until_the_server_is_there(
    scheme, awaited, caplog
):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    servers = []

    def start():
        servers.append(grpc_server(Serving(), port)[0] if scheme == "grpc" else http_server(port))

    async def ask():
        async with AsyncClient(f"{scheme}://127.0.0.1:{port}", timeout=20, retries=1) as client:
            return await client.status()

    timer = threading.Timer(0.3, start)
    timer.start()
    if awaited:
        versions = asyncio.run(ask())
    else:
        with Client(f"{scheme}://127.0.0.1:{port}", timeout=20, retries=1) as client:
            versions = client.status()
    timer.join()
    assert versions[0]["state"] == "AVAILABLE"
    words = (
        f"Nothing answers yet for model 'groupvit' at {scheme}://127.0.0.1:{port}: waiting up to"
        " 20 s."
    )
    assert caplog.messages == [words]
    servers[0].stop(None) if scheme == "grpc" else servers[0].shutdown()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize(
    "options", [{"wait": False, "retries": 1}, {"retries": 0}, {"timeout": 0.15}]
)
def test_waiting_ends_with_the_timeout_and_is_left_where_it_is_not_wished(
    scheme, options, monkeypatch, caplog
):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    with (
        Client(f"{scheme}://127.0.0.1:1", **options) as client,
        pytest.raises(RequestError, match=r"UNAVAILABLE: .*127\.0\.0\.1:1 cannot be reached"),
    ):
        client.status()
    assert bool(caplog.messages) == ("timeout" in options)


def http_server(port):
    """A server over HTTP that says of any model that it is there."""
    answer = (
        b'{"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {"error_code":'
        b' "OK"}}]}'
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=lambda: (server.serve_forever(0.01), server.server_close())).start()
    return server


def test_wait_until_ready_waits_for_available(ask, serving, monkeypatch):
    monkeypatch.setattr(module, "READY_PAUSE", 0.02)
    serving.refusals, serving.state = [("UNAVAILABLE", "not yet"), ("NOT_FOUND", "no model")], 20
    timer = threading.Timer(0.2, lambda: setattr(serving, "state", 30))
    timer.start()
    assert ask("wait_until_ready", 10.0) is None
    assert serving.refusals == [] and serving.state == 30
    timer.join()


def test_wait_until_ready_gives_up_and_says_what_it_saw(ask, serving, monkeypatch):
    monkeypatch.setattr(module, "READY_PAUSE", 0.02)
    serving.state = 20
    with pytest.raises(RequestError, match=r"not ready in 0\.2 s: version 7 is LOADING"):
        ask("wait_until_ready", 0.2)


def test_one_connection_serves_many_requests(serving):
    connections = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            connections.append(self.client_address)
            body = b'{"model_version_status": []}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with Client(f"127.0.0.1:{server.server_port}") as client:
        for _ in range(3):
            client.status()
    server.shutdown()
    thread.join()
    server.server_close()
    assert len(connections) == 3 and len(set(connections)) == 1
