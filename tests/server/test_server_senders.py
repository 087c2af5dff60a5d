"""Clients that send slowly, without end, or nothing: each is held to its limit."""

import json
import socket
import threading
import time
from contextlib import ExitStack, closing
from types import SimpleNamespace

import grpc
import pytest
import tensorflow as tf
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rest_calls import PREDICT, predict, refusal
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from test_server_versions import until

from tf_groupvit.server import rest_app
from tf_groupvit.server.admission import Arrivals
from tf_groupvit.server.rest_server import MOST_HEAD_BYTES, Connections
from tf_groupvit.server.running import Options, Server

GOOD = '{"instances": [1.0, 5.0]}'
ANSWER = {"predictions": [2.5, 4.5]}
SLOW = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode()


@pytest.fixture(scope="module")
def strict(fixture_base_path):
    """A server of tiny limits."""
    options = Options(
        max_receiving=3,
        max_connections=8,
        receive_timeout_seconds=0.5,
        rest_api_timeout_in_ms=800,
        max_in_flight=1,
    )
    with Server({"half_plus_two": fixture_base_path}, port=None, options=options) as running:
        yield running


def connect(server: Server, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.rest_api_port), timeout=10)
    connection.sendall(sent)
    return connection


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while part := connection.recv(2**16):
        parts.append(part)
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def assert_answers(server: Server) -> None:
    status, text = predict(server, GOOD)
    assert (status, json.loads(text)) == (200, ANSWER)


def test_more_slow_senders_than_there_are_places_keep_nobody_out(server):
    places = server.limit.places
    with ExitStack() as stack:
        for _ in range(places + 8):
            stack.enter_context(closing(connect(server, SLOW)))
        until(lambda: len(server.app.arrivals) == places + 8)
        assert server.limit.admitted == 0
        assert_answers(server)
    until(lambda: len(server.app.arrivals) == 0)
    assert server.app.arrivals.held == 0


def test_beyond_the_limit_the_slowest_sender_makes_room(strict):
    with closing(connect(strict, SLOW)) as slowest:
        until(lambda: len(strict.app.arrivals) == 1)
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(closing(connect(strict, SLOW)))
            answer = received(slowest)
            assert_answers(strict)
    assert status_of(answer) == 429 and b"this one was the slowest" in answer
    until(lambda: len(strict.app.arrivals) == 0)


def test_who_sends_steadily_stays_and_who_has_stopped_goes():
    now = [0.0]
    arrivals = Arrivals(most=2, most_bytes=1000, clock=lambda: now[0])
    dropped = []

    def enter(name: str):
        arrival = arrivals.enter()
        arrival.drop = lambda: dropped.append(name)
        return arrival

    stopped, steady = enter("stopped"), enter("steady")
    arrivals.grow(stopped, 600)
    for _ in range(3):
        now[0] += 1.0
        arrivals.grow(steady, 100)
    new = enter("new")
    assert dropped == ["stopped"] and arrivals.held == 300
    arrivals.grow(stopped, 600)  # what arrives too late counts for nothing
    arrivals.grow(new, 600)
    assert dropped == ["stopped"] and arrivals.held == 900
    arrivals.grow(new, 101)  # too much in all: the one further behind goes
    assert dropped == ["stopped", "steady"] and arrivals.held == 701
    arrivals.whole(new)  # and is counted until it is answered
    assert len(arrivals) == 0 and arrivals.held == 701
    arrivals.leave(new)
    assert arrivals.held == 0


def test_a_body_that_does_not_arrive_in_time_is_504_and_its_connection_closes(strict):
    with closing(connect(strict, SLOW)) as connection:
        answer = received(connection)
    assert (
        status_of(answer) == 504
        and b"Timed out waiting" in answer
        and b"connection: close" in answer.lower()
    )


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"POST", b"GET /v1/models/half_plus_two HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["nothing", "a blank line", "half a head", "one request"],
)
def test_a_connection_that_asks_nothing_is_closed(strict, sent):
    with closing(connect(strict, sent)) as connection:
        answer = received(connection)
    assert (b"AVAILABLE" in answer) == (b"Host" in sent)


class Quiet:
    """As much of a connection as its front looks at."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_of_too_many_connections_the_one_that_was_quiet_for_longest_goes():
    connections = Connections(most=3, idle_seconds=60)
    asking, first, second, new, last = (Quiet() for _ in range(5))
    for connection in (asking, first, second, first):
        connections.opened(connection)
        connections.waits(connection)
    connections.works(asking)
    connections.opened(new)
    assert [each.aborted for each in (asking, first, second, new)] == [False, False, True, False]
    for connection in (second, first):
        connections.closed(connection)
    connections.opened(last)
    assert not last.aborted
    connections.opened(second)  # three at work: who comes is the one to go
    assert second.aborted and not any(each.aborted for each in (asking, new, last))


def test_a_client_that_reads_its_answer_slowly_stays_and_one_that_does_not_goes():
    unsent, timers, gone = [3000], [], []
    transport = SimpleNamespace(
        get_write_buffer_size=lambda: unsent[0],
        abort=lambda: gone.append(unsent[0]),
        get_extra_info=lambda *_: None,
    )
    loop = SimpleNamespace(call_later=lambda _, run: timers.append(run))
    config = uvicorn.Config(lambda *_: None, lifespan="off", log_config=None)
    config.load()
    connection = Connections(most=3, idle_seconds=60).protocol(
        config=config, server_state=uvicorn.server.ServerState(), app_state={}, _loop=loop
    )
    connection.connection_made(transport)
    for left in (2000, 1000):
        unsent[0] = left
        timers.pop()()
    assert gone == []
    timers.pop()()  # nothing was read since the last look
    assert gone == [1000] and not timers


def test_more_connections_than_allowed_keep_nobody_out(strict):
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(closing(connect(strict)))
        assert_answers(strict)


@pytest.mark.parametrize(
    ("start", "piece", "status"),
    [
        (b"GET /v1/models/", b"m" * 4096, 414),
        (b"GET /v1/models/m?", b"m" * 4096, 414),
        (b"GET / HTTP/1.1\r\nX: ", b"m" * 4096, 431),
        (b"GET / HTTP/1.1\r\n", b"m" * 4096, 431),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 512, 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"m" * 4096, 404),
    ],
    ids=["path", "query", "value", "name", "many headers", "trailer"],
)
def test_a_head_without_an_end_is_refused_beyond_64_kib(server, start, piece, status):
    with closing(connect(server, start)) as connection:
        for _ in range(64):  # four times as much as is taken; what is too much is read all the same
            connection.sendall(piece)
        answer = received(connection)
    assert status_of(answer) == status
    assert_answers(server)


def test_a_long_path_and_long_headers_within_64_kib_are_read(server):
    path = b"/v1/models/" + b"m" * (MOST_HEAD_BYTES - 100)
    head = (
        b"GET "
        + path
        + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "
        + b"y" * (MOST_HEAD_BYTES - 100)
    )
    with closing(connect(server, head + b"\r\n\r\n")) as connection:
        assert status_of(received(connection)) == 404  # no such model


def test_a_client_that_closes_its_sending_side_is_answered(server):
    body = GOOD.encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with closing(connect(server, head + body)) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
    assert status_of(answer) == 200 and json.loads(answer.partition(b"\r\n\r\n")[2]) == ANSWER


def test_a_refusal_is_read_by_a_client_that_is_still_sending(strict):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**30}\r\n\r\n".encode()
    with closing(connect(strict, head)) as connection:
        for _ in range(64):
            connection.sendall(bytes(2**16))
        assert status_of(received(connection)) == 413


def test_the_answer_goes_out_in_time_whatever_runs(strict, monkeypatch):
    release, run = threading.Event(), rest_app.predict

    def stuck(*given, **named):
        assert release.wait(20)
        return run(*given, **named)

    monkeypatch.setattr(rest_app, "predict", stuck)
    late = (504, "Timed out waiting for notification")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(refusal(strict, GOOD))) for _ in range(2)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [late, late] and time.monotonic() - started < 10
    until(lambda: strict.limit.admitted == 1)  # the one at work; the one that waited has left
    release.set()
    until(lambda: strict.limit.admitted == 0)
    monkeypatch.undo()
    assert_answers(strict)


def test_a_request_that_another_process_reads_keeps_nobody_out(strict, monkeypatch):
    read, waits, go = strict.app.reader.read, threading.Event(), threading.Event()

    def elsewhere(job, body, deadline, paused):
        monkeypatch.undo()
        with paused(deadline):
            waits.set()
            assert go.wait(20)
        return read(job, body, deadline, paused)

    monkeypatch.setattr(strict.app.reader, "read", elsewhere)
    answers = []
    large = threading.Thread(target=lambda: answers.append(predict(strict, GOOD)[0]))
    large.start()
    assert waits.wait(20)
    assert_answers(strict)  # the only slot is free
    go.set()
    large.join()
    assert answers == [200]


# gRPC.


def held_back(channel: grpc.Channel, path: str, streams: bool):
    """A call whose message does not come."""
    go = threading.Event()

    def messages():
        go.wait(20)
        yield b""

    call = (channel.stream_stream if streams else channel.stream_unary)(path)
    waiting = call(messages()) if streams else call.future(messages())
    waiting.add_done_callback(lambda _: go.set())
    return waiting


PATHS = [
    ("/tensorflow.serving.PredictionService/Predict", False),
    ("/grpc.health.v1.Health/Check", False),
    ("/grpc.health.v1.Health/Watch", True),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
]


def assert_calls_are_answered(server: Server) -> None:
    request = PredictRequest()
    request.model_spec.name = "half_plus_two"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        assert PredictionServiceStub(channel).Predict(request, timeout=10).outputs[
            "y"
        ].float_val == [2.5]


@pytest.mark.parametrize(("path", "streams"), PATHS)
def test_calls_whose_message_does_not_come_keep_nobody_out(server, path, streams):
    places = server.limit.places
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        calls = [held_back(channel, path, streams) for _ in range(places + 40)]
        until(lambda: len(server.grpc_server.arrivals) == places + 40)
        assert_calls_are_answered(server)
        for call in calls:
            call.cancel()
    until(lambda: len(server.grpc_server.arrivals) == 0)


@pytest.fixture(scope="module")
def strict_calls(fixture_base_path):
    options = Options(max_receiving=8, receive_timeout_seconds=0.3, max_in_flight=1, max_queued=0)
    with Server(
        {"half_plus_two": fixture_base_path}, rest_api_port=None, options=options
    ) as running:
        yield running


@pytest.mark.parametrize(("path", "streams"), PATHS)
def test_a_call_whose_message_does_not_come_in_time_is_cancelled(strict_calls, path, streams):
    with grpc.insecure_channel(f"127.0.0.1:{strict_calls.port}") as channel:
        call = held_back(channel, path, streams)
        assert call.code() is grpc.StatusCode.CANCELLED
    until(lambda: len(strict_calls.grpc_server.arrivals) == 0)


def test_far_more_calls_without_a_message_than_threads_keep_nobody_out(strict_calls):
    with grpc.insecure_channel(f"127.0.0.1:{strict_calls.port}") as channel:
        calls = [held_back(channel, *PATHS[0]) for _ in range(60)]
        until(lambda: len(strict_calls.grpc_server.arrivals) >= 8)
        assert_calls_are_answered(strict_calls)
        for call in calls:
            call.cancel()


def test_of_too_many_watchers_the_oldest_goes(strict_calls):
    with grpc.insecure_channel(f"127.0.0.1:{strict_calls.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = []
        for _ in range(9):
            watches.append(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20))
            assert next(watches[-1]).status == health_pb2.HealthCheckResponse.SERVING
        assert watches[0].code() is grpc.StatusCode.CANCELLED
        time.sleep(0.4)  # longer than a message may take
        assert all(watch.is_active() for watch in watches[1:])
        for watch in watches:
            watch.cancel()


def test_a_call_without_a_message_is_unimplemented_as_by_grpc(server):
    path = PATHS[0][0]
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        channel.stream_unary(path)(iter([]), timeout=10)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert raised.value.details() == f'"{path}" requires exactly one request message.'


@pytest.mark.parametrize(
    "sent", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])]
)
def test_a_grpc_connection_that_asks_nothing_is_closed(strict_calls, sent):
    with closing(
        socket.create_connection(("127.0.0.1", strict_calls.port), timeout=10)
    ) as connection:
        connection.sendall(sent)
        received(connection)
