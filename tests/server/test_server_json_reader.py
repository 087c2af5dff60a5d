"""Bounds of JSON bodies: a limit on tokens, a process for large bodies, and its deadline."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from rest_calls import PREDICT

from tf_groupvit.server import json_reader
from tf_groupvit.server.admission import Deadline
from tf_groupvit.server.json_reader import JsonReader, count_tokens
from tf_groupvit.server.json_requests import Signatures, read_predict
from tf_groupvit.server.status import StatusError

TYPES = Signatures({"serving_default": {"x": "float"}, "text": {"t": "string"}}, "serving_default")
SMALL = b'{"instances": [1]}'
LARGE = b'{"instances": [' + b"1, " * json_reader.AT_ONCE[0][0] + b"2.5]}"


@pytest.fixture
def all_apart(monkeypatch):
    """Everything is read in a process of its own."""
    monkeypatch.setattr(json_reader, "AT_ONCE", ())


def outcome(reader: JsonReader, body: bytes, types: Signatures = TYPES, seconds: float = 20.0):
    try:
        read = reader.read(partial(read_predict, types_of=types), body, Deadline(seconds))
    except StatusError as error:
        return error.code, error.text
    arrays = {name: (array.dtype, array.tolist()) for name, array in read.inputs.items()}
    return read.form, read.signature_name, arrays


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"1", 1),
        (b"[]", 2),
        (b'{"a": [1, 2]}', 5),
        (b'"a\\nb"', 2),
        (b'"a, b"', 2),
        (b"[" * 100, 101),
        (b"[" * (2**20 + 1), 2**20 + 2),
    ],
)
def test_tokens_are_counted_from_above(body, count):
    assert count_tokens(body, count) == count
    with pytest.raises(StatusError) as raised:
        count_tokens(body, count - 1)
    assert raised.value.code == "INVALID_ARGUMENT" and raised.value.http_status == 400
    text = f"The request body has more than {count - 1} JSON tokens: send fewer values, or use gRPC"
    assert raised.value.text == text


def test_a_body_of_too_many_tokens_is_refused_whatever_it_is_for(server, monkeypatch):
    monkeypatch.setattr(server.app, "reader", JsonReader(most_tokens=20))
    few, many = (json.dumps({"instances": [1] * count}).encode() for count in (15, 30))
    assert server.rest("POST", PREDICT, few).status_code == 200
    for target in (PREDICT, PREDICT.replace("predict", "classify"), "/v1/models/none:predict"):
        answer = server.rest("POST", target, many)
        assert answer.status_code == 400
        assert "more than 20 JSON tokens" in json.loads(answer.body)["error"]


@pytest.mark.parametrize(
    "body", [b'{"inputs": {"x": [[1], [2.5]]}}', b'{"signature_name": "text", "instances": ["\xff"]}', b"[1", b""]
)  # fmt: skip
def test_a_body_read_apart_gives_the_same(all_apart, monkeypatch, body):
    apart = outcome(JsonReader(), body)
    monkeypatch.undo()
    assert outcome(JsonReader(), body) == apart


def test_a_process_that_reads_loads_no_tensorflow(all_apart):
    found = b"__import__('tf_groupvit.server.json_requests') and list(__import__('sys').modules)"
    modules = JsonReader().read(eval, found, Deadline(20))
    assert "numpy" in modules and not {"tensorflow", "keras"} & set(modules)


def test_the_faults_of_a_body_come_before_those_of_its_model(all_apart):
    none = Signatures({}, "serving_default", ("NOT_FOUND", "no such model"))
    assert outcome(JsonReader(), b"[1", none)[0] == "INVALID_ARGUMENT"
    assert outcome(JsonReader(), SMALL, none) == ("NOT_FOUND", "no such model")


def test_a_bug_keeps_its_traceback(all_apart):
    with pytest.raises(RuntimeError, match="JSONDecodeError"):
        JsonReader().read(json.loads, b"[", Deadline(20))


def asleep(monkeypatch, processes: list) -> None:
    """Processes that read bodies sleep instead, and are noted."""
    popen = subprocess.Popen

    def started(command, **options):
        processes.append(popen(["sleep", "60"], **options))
        return processes[-1]

    monkeypatch.setattr(json_reader.subprocess, "Popen", started)


def test_a_process_is_ended_at_the_deadline_and_others_wait_for_its_place_in_their_time(
    monkeypatch,
):
    processes: list = []
    asleep(monkeypatch, processes)
    reader = JsonReader(processes=1)
    first = threading.Thread(target=outcome, args=[reader, LARGE, TYPES, 1.0])
    first.start()
    until(lambda: processes)
    assert outcome(reader, SMALL)[0] == "row"
    assert outcome(reader, LARGE, seconds=0.05)[0] == "DEADLINE_EXCEEDED"
    first.join()
    assert [process.returncode for process in processes] == [-signal.SIGKILL]


def until(holds) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_process_that_is_killed_or_closed_is_told_to_the_caller(monkeypatch):
    processes: list = []
    asleep(monkeypatch, processes)
    reader = JsonReader()
    with ThreadPoolExecutor(1) as pool:
        for end in (lambda: os.kill(processes[-1].pid, signal.SIGKILL), reader.close):
            answer = pool.submit(outcome, reader, LARGE)
            until(lambda: processes and processes[-1].poll() is None)
            end()
            assert answer.result(20)[0] == "RESOURCE_EXHAUSTED"
    monkeypatch.undo()
    assert outcome(reader, LARGE)[2]["x"][0] == np.float32


KILLED = """
import sys
from tf_groupvit.server import json_reader
from tf_groupvit.server.admission import Deadline
json_reader.AT_ONCE = ()
json_reader.JsonReader().read(eval, sys.argv[1].encode(), Deadline(60))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends them")
def test_a_process_ends_with_a_server_that_is_killed():
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        waiting.settimeout(60)
        connect = f"__import__('socket').create_connection({waiting.getsockname()!r})"
        sleep = "__import__('time').sleep(20)"
        body = f"[(s.send(b'begun'), {sleep}, s.send(b'ended')) for s in [{connect}]]"
        with subprocess.Popen([sys.executable, "-c", KILLED, body]) as server:
            connection, _ = waiting.accept()
            with connection:
                assert connection.recv(5) == b"begun"
                server.kill()
                assert connection.recv(5) == b""


def test_where_no_process_can_be_started_the_answer_says_so(monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(json_reader.subprocess, "Popen", fails)
    code, text = outcome(JsonReader(), LARGE)
    assert code == "RESOURCE_EXHAUSTED" and "Resource temporarily unavailable" in text


@pytest.mark.parametrize("body", [LARGE, b'{"instances":[' + b"9" * 10**7 + b",1" * 1000 + b"]}"])
def test_large_bodies_are_not_read_in_the_servers_process(monkeypatch, body):
    processes: list = []
    asleep(monkeypatch, processes)
    reader = JsonReader()
    assert outcome(reader, b'{"instances":[' + b"1," * 5000 + b"1]}")[0] == "row"
    assert outcome(reader, b'{"signature_name": "text", "inputs":["' + b"a" * 10**7 + b'"]}')[2]
    assert not processes
    assert outcome(reader, body, seconds=0.2)[0] == "DEADLINE_EXCEEDED" and len(processes) == 1


@pytest.mark.parametrize("body", [b"[" * 16_000_000, b'{"instances":' + b"[" * 16_000_000])
def test_a_body_of_brackets_alone_is_refused(body):
    code, text = outcome(JsonReader(), body)
    assert code == "INVALID_ARGUMENT" and "Nested too deeply" in text


def test_more_strings_than_are_worked_on_are_refused_where_they_are_read():
    body = b'{"signature_name": "text", "instances": [' + b'"",' * 2**20 + b'""]}'
    code, text = outcome(JsonReader(), body)
    assert code == "INVALID_ARGUMENT" and "1,048,577 strings, at most 1,048,576" in text
