"""The benchmark: it measures every front, and says so when a client fails."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts/benchmarks"


@pytest.fixture
def fronts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    from engines import server_fronts

    return server_fronts


def request(model: str = "half_plus_two") -> PredictRequest:
    message = PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = model, "segment"
    for name in ("image_bytes", "class_names"):
        message.inputs[name].CopyFrom(tf.make_tensor_proto([b"abc"]))
    return message


def test_a_request_becomes_a_rest_body(fronts):
    value = {"b64": "YWJj"}
    wanted = {
        "signature_name": "segment",
        "instances": [{"image_bytes": value, "class_names": value}],
    }
    assert json.loads(fronts.as_json(request())) == wanted


def test_every_front_is_measured(server, fronts):
    rows = fronts.measure(server, request(), clients=(2,), seconds=0.5)
    assert [(row.front, row.clients) for row in rows] == [
        ("in-process", 2),
        ("gRPC", 2),
        ("REST", 2),
    ]
    assert all(row.per_second > 0 and 0 < row.p50_ms <= row.p99_ms for row in rows)


def test_a_setting_is_measured_over_rest_under_its_name(server, fronts):
    row = fronts.over_rest("intra 1", server.rest_api_port, request(), clients=2, seconds=0.5)
    assert (row.front, row.clients) == ("intra 1", 2) and row.per_second > 0


def test_a_setting_has_variables_and_then_flags(fronts):
    from serve import told_apart

    assert told_apart("") == ({}, [])
    assert told_apart("A=1 B=c=d --flag e=f --other") == (
        {"A": "1", "B": "c=d"},
        ["--flag", "e=f", "--other"],
    )


def test_a_client_that_fails_is_told(server, fronts):
    with pytest.raises(RuntimeError, match="no_such_model"):
        fronts.measure(server, request("no_such_model"), clients=(1,), seconds=0.2)
