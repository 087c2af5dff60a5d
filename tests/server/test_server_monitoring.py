"""The page of metrics over sockets, and names from outside in metrics and in the log."""

import json
import logging

import grpc
import numpy as np
import pytest
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from rest_calls import call, get, predict
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tf_groupvit.server.monitoring import JsonFormatter, Metrics, TextFormatter, logged_request
from tf_groupvit.server.running import Options, Server
from tf_groupvit.server.status import StatusError, loggable

FORGED = "m\n2026-01-01 00:00:00,000 INFO all is well\x1b[2J"
METRICS = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def measured(fixture_base_path, tmp_path_factory):
    file = tmp_path_factory.mktemp("monitoring") / "monitoring.config"
    file.write_text("prometheus_config { enable: true }")
    with Server(
        {"half_plus_two": fixture_base_path}, options=Options(monitoring_config_file=str(file))
    ) as running:
        request = PredictRequest()
        request.model_spec.name = "half_plus_two"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones(2, np.float32)))
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            stub = PredictionServiceStub(channel)
            for _ in range(2):
                stub.Predict(request, timeout=10)
            request.model_spec.name = "unknown"
            with pytest.raises(grpc.RpcError):
                stub.Predict(request, timeout=10)
        for body in ('{"instances": [1]}', "", '{"instances": [true]}'):
            predict(running, body)
        predict(running, '{"instances": [1]}', "/v1/models/nobody:predict")
        yield running


def test_the_page_is_text_at_its_default_path_for_any_method(measured):
    for method in ("GET", "POST"):
        status, text, headers = call(measured, method, METRICS)
        assert (status, headers["content-type"]) == (200, "text/plain") and text.endswith("\n")
    status, text, headers = call(measured, "GET", f"{METRICS}?x=1")
    assert (status, headers["content-type"]) == (400, "text/plain")
    assert text == f"Unexpected path: {METRICS}?x=1. Should be {METRICS}"
    assert get(measured, f"{METRICS}/")[0] == 404


def test_without_the_file_the_path_is_nowhere(server):
    assert get(server, METRICS)[0] == 404


def test_requests_are_counted_by_model_and_code_over_both_fronts(measured):
    page = get(measured, METRICS)[1]
    assert "# TYPE :tensorflow:serving:request_count counter\n" in page
    counts = {
        'model_name="half_plus_two",status="OK"': 3,
        'model_name="half_plus_two",status="INVALID_ARGUMENT"': 2,
        'model_name="unknown",status="NOT_FOUND"': 1,
        'model_name="nobody",status="NOT_FOUND"': 1,
    }
    for labels, count in counts.items():
        assert f":tensorflow:serving:request_count{{{labels}}} {count}\n" in page


def test_latencies_are_histograms_of_the_successes_alone(measured):
    page = get(measured, METRICS)[1]
    for name, labels, count in (
        ("request_latency", 'model_name="half_plus_two",API="Predict",entrypoint="GRPC"', 2),
        ("request_latency", 'model_name="half_plus_two",API="predict",entrypoint="REST"', 1),
        ("runtime_latency", 'model_name="half_plus_two",API="Predict",runtime="TF1"', 3),
    ):
        assert f"# TYPE :tensorflow:serving:{name} histogram\n" in page
        series = f":tensorflow:serving:{name}"
        buckets = [
            line for line in page.splitlines() if line.startswith(f"{series}_bucket{{{labels},le=")
        ]
        limits = [line.partition('le="')[2].partition('"')[0] for line in buckets]
        assert limits == [*(f"{10 * 1.8**index:g}" for index in range(33)), "+Inf"]
        values = [int(line.rpartition(" ")[2]) for line in buckets]
        assert values == sorted(values) and values[-1] == count
        assert (
            f"{series}_count{{{labels}}} {count}\n" in page and f"{series}_sum{{{labels}}} " in page
        )
    assert "unknown" not in page.partition("request_latency histogram")[2].partition("# TYPE")[0]


def test_prometheus_own_library_reads_the_page(measured):
    families = {
        family.name: family for family in text_string_to_metric_families(get(measured, METRICS)[1])
    }
    prefix = ":tensorflow:serving:"
    types = {name.removeprefix(prefix): family.type for name, family in families.items()}
    assert types == {
        "request_count": "counter",
        "request_latency": "histogram",
        "runtime_latency": "histogram",
    }
    counts = {
        (s.labels["model_name"], s.labels["status"]): s.value
        for s in families[f"{prefix}request_count"].samples
    }
    assert counts[("half_plus_two", "OK")] == 3 and counts[("unknown", "NOT_FOUND")] == 1
    for sample in families[f"{prefix}runtime_latency"].samples:
        if sample.name.endswith("_count") or sample.labels.get("le") == "+Inf":
            assert sample.value == 3


def test_another_path_may_be_configured(fixture_base_path, tmp_path):
    (tmp_path / "monitoring.config").write_text(
        'prometheus_config { enable: true path: "/metrics" }'
    )
    options = Options(monitoring_config_file=str(tmp_path / "monitoring.config"))
    with Server({"half_plus_two": fixture_base_path}, port=None, options=options) as running:
        assert get(running, "/metrics")[0] == 200 and get(running, METRICS)[0] == 404
        assert predict(running, '{"instances": [1]}')[0] == 200


def test_names_from_outside_cannot_fill_the_memory_of_the_metrics():
    metrics = Metrics()
    for index in range(3000):
        metrics.answered(f"model{index}", "NOT_FOUND")
    assert metrics.page().count("\n") < 1010
    assert 'model_name="(other)",status="NOT_FOUND"} 2000' in metrics.page()


def test_label_values_are_escaped():
    metrics = Metrics()
    metrics.answered('a"b\\c\nd\udcff', "OK")
    assert 'model_name="a\\"b\\\\c\\nd\ufffd"' in metrics.page()


def test_a_label_of_the_metrics_has_no_escape_codes():
    metrics = Metrics()
    metrics.answered("a\x1b[2J\r\n", "NOT_FOUND")
    assert r'model_name="a\\x1b[2J\\r\n",status="NOT_FOUND"' in metrics.page()


def test_a_name_is_shown_on_one_line_without_escape_codes_and_cut():
    assert loggable("étoile 1") == "étoile 1"
    assert loggable("a\r\nb\x1b[2J\x00\u2028\u202e\udcff") == r"a\r\nb\x1b[2J\x00\u2028\u202e\xff"
    assert loggable("x" * 10_000) == "x" * 200
    assert len(loggable("\n" * 10_000)) == 200


def lines_of(formatter, log) -> list[str]:
    """What a handler with that formatter writes while ``log`` runs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(formatter.format(record))
    logger = logging.getLogger("tf_groupvit.server")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        log()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
    return lines


def fail(name: str, error: Exception) -> None:
    with pytest.raises(StatusError), logged_request("REST", f"GET /{name}"):
        raise error


@pytest.mark.parametrize(
    "error", [StatusError("NOT_FOUND", FORGED), ValueError(FORGED)], ids=["refusal", "bug"]
)
def test_a_name_forges_no_line_of_the_log(error):
    for line in lines_of(TextFormatter("%(levelname)s %(message)s"), lambda: fail(FORGED, error)):
        first, *rest = line.split("\n")
        assert first.startswith(("INFO ", "ERROR ")) and all(
            more.startswith("    ") for more in rest
        )
        assert "\x1b" not in line
    for line in lines_of(JsonFormatter(), lambda: fail(FORGED, error)):
        entry = json.loads(line)
        assert "\n" not in entry["message"] + entry.get("request", "") + entry.get("error", "")


def test_a_name_of_megabytes_takes_no_more_of_the_log_and_the_metrics_than_its_beginning():
    long = "n" * 10_000_000
    for formatter in (TextFormatter("%(message)s"), JsonFormatter()):
        lines = lines_of(formatter, lambda: fail(long, StatusError("NOT_FOUND", long)))
        assert sum(map(len, lines)) < 2000
    metrics = Metrics()
    metrics.answered(long, "NOT_FOUND")
    assert len(metrics.page()) < 400
    assert f'model_name="{"n" * 200}",status="NOT_FOUND"' in metrics.page()


def test_unknown_names_do_not_take_the_series_of_models_that_are_served():
    metrics = Metrics(lambda: ["served"])
    for index in range(2000):
        metrics.answered(f"name {index}", "NOT_FOUND")
    metrics.answered("served", "OK")
    assert 'model_name="served",status="OK"} 1' in metrics.page()
    assert 'model_name="(other)",status="NOT_FOUND"} 1000' in metrics.page()
