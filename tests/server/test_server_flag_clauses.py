"""Clauses of the contract, sections 1, 8 and 11: defaults, ports, flags."""

import json
import os
import re
import socket
import threading
import time
from dataclasses import fields

import click
import grpc
import pytest
from click.testing import CliRunner
from rest_calls import get, predict, refusal
from served import ROOT
from small_models import half_plus_two, slow
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from test_server_versions import until

from tf_groupvit.cli.serve import command
from tf_groupvit.server import running
from tf_groupvit.server.running import Options, Server


def default(flag: str):
    return next(
        option.get_default(click.Context(command))
        for option in command.params
        if option.name == flag
    )


def test_flags_that_both_servers_have_have_the_same_defaults():
    real = {
        "port": 8500, "rest_api_timeout_in_ms": 30_000, "file_system_poll_wait_seconds": 1, "max_num_load_retries": 5,
        "load_retry_interval_micros": 60_000_000, "saved_model_tags": "serve", "enable_model_warmup": True,
        "tensorflow_intra_op_parallelism": 0, "tensorflow_inter_op_parallelism": 0, "enable_batching": False,
        "rest_api_enable_cors_support": False, "allow_version_labels_for_unavailable_models": False,
        "enable_per_model_batching_parameters": False, "num_request_iterations_for_warmup": 0,
    }  # fmt: skip
    assert {flag: default(flag) for flag in real} == real
    assert {flag: getattr(Options(), flag) for flag in real if flag != "port"} == {
        flag: value for flag, value in real.items() if flag != "port"
    }


def test_threads_are_bounded_as_there_and_sizes_as_the_table_of_differences_says(fixture_base_path):
    server = Server({"m": fixture_base_path})  # not started
    assert server.limit.running == 4 * (os.cpu_count() or 1)
    ours = {
        "max_request_bytes": 2**28, "max_json_tokens": 2**24, "max_receiving": 256, "max_receiving_bytes": 2**30,
        "max_connections": 1000, "receive_timeout_seconds": 60.0,
    }  # fmt: skip
    assert {flag: default(flag) for flag in ours} == ours
    assert {flag: getattr(Options(), flag) for flag in ours} == ours
    assert default("rest_api_port") == 8501  # as in the Docker image; the binary alone has REST off


def test_an_unknown_flag_is_an_error_in_one_line():
    result = CliRunner().invoke(command, ["/nowhere", "--no-such-flag"])
    assert result.exit_code == 2 and "No such option '--no-such-flag'" in result.output


def test_flags_that_are_said_to_be_missing_are_missing():
    text = (ROOT / "tf_groupvit" / "server" / "DIFFERENCES.md").read_text()
    table = text.partition("## Not there")[2].partition("## Different on purpose")[0]
    missing = set(re.findall(r"`--([a-z_]+)`", table))
    assert len(missing) > 10 and not missing & {field.name for field in fields(Options)}


def test_ports_open_only_when_every_model_is_available(fixture_base_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    go, load = threading.Event(), running.load
    monkeypatch.setattr(running, "load", lambda *given: go.wait(20) and load(*given))
    server = Server({"half_plus_two": fixture_base_path}, port=None, rest_api_port=port)
    starting = threading.Thread(target=server.start)
    starting.start()
    time.sleep(0.2)
    with socket.socket() as early:
        assert early.connect_ex(("127.0.0.1", port)) != 0
    go.set()
    starting.join(20)
    try:
        assert json.loads(predict(server, '{"instances": [1]}')[1]) == {"predictions": [2.5]}
    finally:
        server.stop()


def test_the_readiness_probe_of_the_real_servers_own_tests_works(server):
    request = PredictRequest()
    request.model_spec.name = "this_model_does_not_exist"
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        PredictionServiceStub(channel).Predict(request, timeout=10)
    assert "Servable" in raised.value.details()


def test_services_that_are_not_there_are_unimplemented(server):
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        channel.unary_unary("/tensorflow.ProfilerService/Profile")(b"", timeout=10)
    assert raised.value.code().name == "UNIMPLEMENTED"


def test_a_rest_request_over_its_time_is_504(tmp_path):
    slow(tmp_path)
    with Server(
        {"slow": tmp_path}, port=None, options=Options(rest_api_timeout_in_ms=500)
    ) as running:
        body = '{"inputs": {"x": [1.0], "work": 1000000}}'
        late = (504, "Timed out waiting for notification")
        assert refusal(running, body, "/v1/models/slow:predict") == late
        short = '{"inputs": {"x": [1.0], "work": 1}}'
        until(lambda: predict(running, short, "/v1/models/slow:predict")[0] == 200)


def test_a_waiting_server_opens_its_ports_when_a_version_comes(tmp_path):
    """`--wait-for-versions` is how the real server starts."""
    base_path = tmp_path / "m"
    base_path.mkdir()
    options = Options(wait_for_versions=True, file_system_poll_wait_seconds=0.02)
    server = Server({"m": base_path}, port=None, options=options)
    starting = threading.Thread(target=server.start)
    starting.start()
    time.sleep(0.1)
    assert not server.started
    half_plus_two(base_path)
    until(lambda: server.started)
    starting.join()
    assert get(server, "/v1/models/m")[0] == 200
    server.stop()
