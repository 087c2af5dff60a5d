"""Large JSON bodies: a limit on their tokens, a deadline while they are read, and nobody who waits
for them.
"""

import io
import json
import os
import pickle
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from rest_calls import PREDICT

from tf_groupvit.server import json_apart, json_reading
from tf_groupvit.server.admission import Deadline
from tf_groupvit.server.json_apart import Reader, count_tokens
from tf_groupvit.server.json_reading import Signatures
from tf_groupvit.server.status import StatusError

TYPES = Signatures({"serving_default": {"x": "float"}, "text": {"t": "string"}}, "serving_default")
PAIR = b'{"signature_name": "text", "instances": ["\\ud83d\\ude00", "a\\tb"]}'


@pytest.fixture(scope="module")
def reader():
    given = Reader(processes=1)
    yield given
    given.close()


@pytest.fixture
def apart(reader, monkeypatch):
    """A reader that reads everything in its process."""
    monkeypatch.setattr(json_apart, "FEW", 0)
    return reader


def fails_here(*_):
    raise AssertionError("read in this process")


def outcome(predict, body: bytes, types: Signatures = TYPES):
    try:
        form, signature, arrays = predict(body, types, Deadline(20))
    except StatusError as refusal:
        return refusal.code, refusal.text
    return form, signature, {name: (array.dtype, array.tolist()) for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"1", 1),
        (b"[]", 2),
        (b'{"a": [1, 2]}', 5),
        (b'"a\\nb"', 2),
        (b'"a, b"', 2),
        (b"[" * 100, 101),
    ],
)
def test_tokens_are_counted_from_above(body, count):
    assert count_tokens(body, count) == count
    with pytest.raises(StatusError) as raised:
        count_tokens(body, count - 1)
    assert raised.value.code == "INVALID_ARGUMENT" and raised.value.http_status == 400
    assert (
        raised.value.text
        == f"The request body has more than {count - 1} JSON tokens: send fewer values, or use gRPC"
    )


def test_tokens_are_counted_across_chunks(monkeypatch):
    monkeypatch.setattr(json_apart, "_CHUNK", 3)
    assert count_tokens(b"[1, 2, 3, 4, 5]", 100) == 6


def test_a_body_of_too_many_tokens_is_refused_whatever_it_is_for(server, monkeypatch):
    monkeypatch.setattr(server.app, "reader", Reader(most_tokens=20))
    few, many = (json.dumps({"instances": [1] * count}).encode() for count in (15, 30))
    assert server.rest("POST", PREDICT, few).status_code == 200
    for target in (PREDICT, PREDICT.replace("predict", "classify"), "/v1/models/none:predict"):
        answer = server.rest("POST", target, many)
        assert (
            answer.status_code == 400
            and "more than 20 JSON tokens" in json.loads(answer.body)["error"]
        )


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1.5, 2]}', b'{"inputs": {"x": [[1], [2]]}}', PAIR, b'{"instances": ["a"]}', b"[1", b"",
        b'{"signature_name": "none", "instances": [1]}',
        b'{"signature_name": "text", "inputs": ["\xff", {"b64": "/w"}]}',
    ],
)  # fmt: skip
def test_a_body_read_apart_gives_the_same(apart, body):
    assert outcome(apart.predict, body) == outcome(
        lambda *given: json_reading.read_predict(*given[:2]), body
    )


def test_the_faults_of_a_body_come_before_those_of_its_model(apart):
    none = Signatures({}, "serving_default", ("NOT_FOUND", "no such model"))
    assert outcome(apart.predict, b"[1", none)[0] == "INVALID_ARGUMENT"
    assert outcome(apart.predict, b'{"instances": [1]}', none) == ("NOT_FOUND", "no such model")


def test_many_tokens_and_slow_ones_are_not_read_in_the_servers_process(reader, monkeypatch):
    monkeypatch.setattr(json_reading, "scan", fails_here)
    slow = b'{"signature_name": "text", "instances": ["\\ud83d\\ude00"' + b', "a"' * 3000 + b"]}"
    assert len(outcome(reader.predict, slow)[2]["t"][1]) == 3001
    monkeypatch.setattr(json_reading, "parse", fails_here)
    many = b'{"instances": [' + b"1, " * 60_000 + b"2]}"
    _, _, arrays = reader.predict(many, TYPES, Deadline(20))
    assert arrays["x"].dtype == np.float32 and arrays["x"].sum() == 60_002


def test_a_deadline_is_kept_while_a_body_is_read(reader):
    # Some ten seconds of the scanner.
    body = (
        b'{"signature_name": "text", "instances": ["\\ud83d\\ude00"' + b', "a"' * 1_000_000 + b"]}"
    )
    with pytest.raises(StatusError) as raised:
        reader.predict(body, TYPES, Deadline(0.3))
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert outcome(reader.predict, b'{"instances": [1]}')[0] == "row"


def test_while_another_body_is_read_a_small_one_does_not_wait_and_a_large_one_waits_in_its_time(
    reader, monkeypatch
):
    held = threading.Event()

    def slow(process, question):
        held.set()
        assert release.wait(20)
        return ask(process, question)

    release, ask = threading.Event(), json_apart._ask
    monkeypatch.setattr(json_apart, "_ask", slow)
    large = b'{"instances": [' + b"1, " * 60_000 + b"2]}"
    first = threading.Thread(target=outcome, args=[reader.predict, large])
    first.start()
    assert held.wait(20)
    assert outcome(reader.predict, b'{"instances": [1]}')[0] == "row"
    with pytest.raises(StatusError) as raised:
        reader.predict(large, TYPES, Deadline(0.05))
    assert raised.value.code == "DEADLINE_EXCEEDED"
    release.set()
    first.join()


def test_a_process_that_ends_is_replaced(apart):
    assert outcome(apart.predict, PAIR)[0] == "row"
    (process,) = apart._idle
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert outcome(apart.predict, PAIR)[0] == "RESOURCE_EXHAUSTED"
    assert outcome(apart.predict, PAIR)[0] == "row"


def test_a_process_ends_with_the_server_and_after_a_very_large_body(monkeypatch):
    monkeypatch.setattr(json_apart, "FEW", 0)
    monkeypatch.setattr(json_apart, "_MANY", 10)
    reader = Reader()
    assert outcome(reader.predict, b'{"instances": [1]}')[0] == "row"
    (process,) = reader._idle
    reader.close()
    assert process.returncode is not None
    assert outcome(reader.predict, b'{"instances": [1, 2, 3, 4, 5, 6, 7, 8, 9]}')[0] == "row"
    assert not reader._idle and not reader._all


def test_a_question_that_is_cut_off_ends_the_process_without_a_word(monkeypatch):
    monkeypatch.setattr(json_apart, "_end_with_parent", lambda: None)
    question = pickle.dumps(bytes(100_000))[:-50_000]
    monkeypatch.setattr(json_apart.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(question)))
    json_apart.main()
