"""Warm-up records: run after loading and before AVAILABLE; a failing one fails the load."""

import os
import sys
import threading
from pathlib import Path

import pytest
import tensorflow as tf
from small_models import half_plus_two
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from test_server_versions import until

from tf_groupvit.errors import ServerError
from tf_groupvit.server import warmup
from tf_groupvit.server.batching import Scheduler, batched
from tf_groupvit.server.config_files import Parameters
from tf_groupvit.server.predict import predict_request
from tf_groupvit.server.running import Options, Server
from tf_groupvit.server.servable import load
from tf_groupvit.server.status import StatusError
from tf_groupvit.server.threads import step_back
from tf_groupvit.server.warmup import warm_up, warm_up_others


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return half_plus_two(tmp_path_factory.mktemp("warm"))


def predict_log(signature: str = "", output_filter=(), **inputs) -> PredictionLog:
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.version.value = "another", 99
    request.model_spec.signature_name = signature
    request.output_filter.extend(output_filter)
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def write(model: Path, *logs: PredictionLog | bytes) -> Path:
    file = model / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())
    return file


def refusal(model: Path) -> tuple[str, str]:
    with pytest.raises(StatusError) as raised:
        warm_up(load(str(model)))
    return raised.value.code, raised.value.text


def test_records_of_any_signature_are_run_and_those_without_a_log_skipped(model, caplog):
    caplog.set_level("INFO")
    write(model, predict_log(x=[1.0]), predict_log("total", x=[1.0, 2.0]), PredictionLog())
    done = warm_up(load(str(model)))
    assert done is not None and done.records == 3
    assert "Starting to read warmup data for model at" in caplog.text
    assert "Number of warmup records read: 3" in caplog.text


FAILING = [
    (predict_log("none", x=[1.0]), 'FAILED_PRECONDITION: Serving signature key "none" not found.'),
    (predict_log(x=[1]), "INVALID_ARGUMENT: Expects arg[0] to be float but int32 is provided"),
    (predict_log("", ["q"], x=[1.0]), "INVALID_ARGUMENT: output tensor alias not found in signature: q Outputs "
                                      "expected to be in the set {y}."),
    (PredictionLog(session_run_log={}), "UNIMPLEMENTED: Unsupported log_type for warmup: 5"),
    (PredictionLog(classify_log={}), "FAILED_PRECONDITION: No classification inputs found in SignatureDef: "),
    (PredictionLog(regress_log={}), "FAILED_PRECONDITION: No regression inputs found in SignatureDef: "),
    (b"\xff\xff", "INVALID_ARGUMENT: Failed to parse warmup record: "),
]  # fmt: skip


@pytest.mark.parametrize(("log", "text"), FAILING)
def test_a_failing_record_fails_the_load(model, log, text):
    write(model, predict_log(x=[1.0]), log)
    assert ": ".join(refusal(model)).startswith(text)


def test_a_server_does_not_start_with_a_record_that_fails_unless_warm_up_is_off(tmp_path):
    write(half_plus_two(tmp_path), FAILING[0][0])

    def server(**options) -> Server:
        flags = Options(max_num_load_retries=0, **options)
        return Server({"m": tmp_path}, port=None, rest_api_port=None, options=flags)

    text = "1 servable(s) did not become available: {{{name: m version: 123} due to error: "
    with pytest.raises(ServerError) as raised:
        server().start()
    assert text + FAILING[0][1] in str(raised.value)
    server(enable_model_warmup=False).start().stop(grace=0)


def test_at_most_a_thousand_records(model):
    write(model, *[PredictionLog()] * 1001)
    code, text = refusal(model)
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("Number of warmup records exceeds the maximum (1000) at ")


def test_a_file_that_is_no_tfrecord_is_data_loss(model):
    file = write(model)
    file.write_bytes(b"this is no record file at all")
    text = "corrupted record at 0. Please verify your warmup data is in TFRecord format."
    assert refusal(model) == ("DATA_LOSS", text)
    file.unlink()


def test_a_model_without_a_file_is_not_warmed(model, tmp_path):
    assert warm_up(load(str(half_plus_two(tmp_path)))) is None


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        (lambda folder: (folder / "saved_model.pb").unlink(),
         ("NOT_FOUND", "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                       "`saved_model.pb`)\nSpecified file path: ")),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"\xff\xff\xff"), ("DATA_LOSS", "Can't parse ")),
        (lambda folder: [file.unlink() for file in (folder / "variables").iterdir()], ("NOT_FOUND", "")),
    ],
)  # fmt: skip
def test_a_spoiled_folder_is_refused_with_a_code(tmp_path, spoil, refused):
    folder = half_plus_two(tmp_path)
    spoil(folder)
    with pytest.raises(StatusError) as raised:
        load(str(folder))
    assert raised.value.code == refused[0] and raised.value.text.startswith(refused[1])


def test_other_tags_are_looked_for_and_named(tmp_path):
    with pytest.raises(
        StatusError, match=r"Could not find meta graph def matching supplied tags: \{ gpu \}"
    ):
        load(str(half_plus_two(tmp_path)), ("gpu",))


def ran(monkeypatch) -> list[str]:
    """The signatures that are run from here on, in their order."""
    signatures, run = [], warmup.predict_request

    def counted(servable, request, timeout=None):
        signatures.append(request.model_spec.signature_name)
        return run(servable, request, timeout)

    monkeypatch.setattr(warmup, "predict_request", counted)
    return signatures


def test_the_default_signature_is_run_once_and_the_rest_later(model, monkeypatch, caplog):
    caplog.set_level("INFO")
    write(model, predict_log("total", x=[1.0]), predict_log(x=[1.0]), predict_log("serving_default", x=[2.0]),
          predict_log("mask", x=[1.0]), PredictionLog())  # fmt: skip
    servable, signatures = load(str(model)), ran(monkeypatch)
    done = warm_up(servable, 2, only_first=True)
    assert done is not None and (done.records, done.left) == (2, 3)
    assert signatures == ["", ""]
    signatures.clear()
    assert warm_up_others(servable, 1, lambda: False).records == 3
    assert signatures == ["total", "serving_default", "mask"]
    said = [text.partition(" in ")[0] for text in caplog.messages if text.startswith("Warmed up")]
    default, others = "Warmed up serving_default", ["Warmed up total", "Warmed up mask"]
    assert said == [default, others[0], default, others[1]]
    signatures.clear()
    assert warm_up_others(servable, 1, lambda: bool(signatures)).records == 1
    assert signatures == ["total"]


def test_nothing_is_done_later_where_nothing_is_left(tmp_path):
    version = half_plus_two(tmp_path)
    write(version, predict_log(x=[1.0]))
    options = Options(background_warmup=True)
    server = Server({"m": tmp_path}, port=None, rest_api_port=None, options=options)
    assert server._load(str(version)).afterwards is None
    write(version, predict_log(x=[1.0]), predict_log("total", x=[1.0]))
    assert server._load(str(version)).afterwards is not None


def test_a_record_that_fails_later_is_an_error_in_the_log(model, monkeypatch, caplog):
    write(model, predict_log("total", x=[1]), predict_log("mask", x=[1.0]))
    servable, signatures = load(str(model)), ran(monkeypatch)
    assert warm_up_others(servable, 1, lambda: False).records == 2 and signatures == [
        "total",
        "mask",
    ]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (
        record.getMessage()
        == "A warm-up record of total fails, for which tensorflow_model_server would not load this"
        " version: INVALID_ARGUMENT: Expects arg[0] to be float but int32 is provided"
    )


@pytest.mark.parametrize(
    "logs",
    [
        [predict_log(x=[1.0]), predict_log("none", x=[1.0])],
        [predict_log(x=[1]), predict_log(x=[1.0])],
        [predict_log(x=[1.0]), PredictionLog(session_run_log={})],
    ],
)
def test_what_is_seen_at_once_fails_the_load_in_any_case(model, logs):
    write(model, *logs)
    with pytest.raises(StatusError):
        warm_up(load(str(model)), only_first=True)


def test_a_run_aside_answers_the_same_and_leaves_the_batches_alone(model):
    plain, batches = load(str(model)), Scheduler(1)
    aside = batched(plain, batches, Parameters(), per_model=False).aside()
    batches.close()  # it would refuse whatever came
    request = predict_log(x=[1.0]).predict_log.request
    (ran,) = predict_request(aside, request).outputs.values()
    assert ran.tolist() == predict_request(plain, request).outputs["y"].tolist() == [2.5]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_only_the_thread_that_steps_back_does():
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found, before = [], priority()

    def run():
        step_back()
        found.append(priority())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [max(before, 10)] and priority() == before


@pytest.mark.parametrize(("iterations", "times"), [(0, 1), (1, 1), (3, 3)])
def test_records_run_as_often_as_the_flag_says_before_the_version_is_available(
    tmp_path, monkeypatch, iterations, times
):
    version, states, run = half_plus_two(tmp_path), [], warmup.predict_request
    options = Options(num_request_iterations_for_warmup=iterations)
    server = Server({"m": tmp_path}, port=None, rest_api_port=None, options=options)

    def counted(servable, request, timeout=None):
        states.append(server.models.states("m", None)[0].state.name)
        return run(servable, request, timeout)

    monkeypatch.setattr(warmup, "predict_request", counted)
    write(version, predict_log(x=[1.0]), predict_log("total", x=[1.0]))
    with server:
        assert states == ["LOADING"] * 2 * times
        page = server.metrics.page()
    labels = f'model_path="{version}",status="OK"'
    assert f":tensorflow:serving:model_warmup_records_read{{{labels}}} 2" in page
    assert f":tensorflow:serving:model_warmup_latency_count{{{labels}}} 1" in page


@pytest.mark.parametrize(
    ("background", "states"), [(True, ["LOADING", "AVAILABLE"]), (False, ["LOADING"] * 2)]
)
def test_a_version_serves_when_the_default_signature_is_warm(
    tmp_path, monkeypatch, background, states
):
    version, seen, run, go = half_plus_two(tmp_path), [], warmup.predict_request, threading.Event()
    write(version, predict_log(x=[1.0]), predict_log("total", x=[1.0]))
    options = Options(background_warmup=background)
    server = Server({"m": tmp_path}, port=None, rest_api_port=None, options=options)

    def counted(servable, request, timeout=None):
        if request.model_spec.signature_name == "total" and background:
            assert go.wait(10)
        seen.append(server.models.states("m", None)[0].state.name)
        return run(servable, request, timeout)

    monkeypatch.setattr(warmup, "predict_request", counted)
    labels = f'model_path="{version}",status="OK"'
    with server:
        assert (
            server.rest("POST", "/v1/models/m:predict", b'{"instances": [1.0]}').status_code == 200
        )
        assert seen == states[:1] if background else states
        assert (
            f"model_warmup_records_read{{{labels}}} {1 if background else 2}"
            in server.metrics.page()
        )
        go.set()
        until(lambda: seen == states)
        write(half_plus_two(tmp_path, 124), predict_log("total", x=[1.0]))
        server.models.poll()
        until(lambda: server.models.states("m", 124)[0].state.name == "AVAILABLE")
        assert seen == [*states, "LOADING"]  # what replaces another version is warm before it does
        until(lambda: f"model_warmup_records_read{{{labels}}} 2" in server.metrics.page())
