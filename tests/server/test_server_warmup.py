"""Warm-up records: run after loading and before AVAILABLE; a failing one fails the load."""

import threading
from pathlib import Path

import pytest
import tensorflow as tf
from small_models import half_plus_two
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from test_server_versions import until

from tf_groupvit.server import warmup
from tf_groupvit.server.running import Options, Server
from tf_groupvit.server.servable import load
from tf_groupvit.server.status import StatusError
from tf_groupvit.server.warmup import warm_up, warm_up_others


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return half_plus_two(tmp_path_factory.mktemp("warm"))


def predict_log(signature: str = "", **inputs) -> PredictionLog:
    log = PredictionLog()
    log.predict_log.request.model_spec.name = "whatever"
    log.predict_log.request.model_spec.signature_name = signature
    for name, value in inputs.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def warmed(model: Path, records: list[bytes]):
    file = model / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    return warm_up(load(str(model)))


def refusal(model: Path, records: list[bytes]) -> tuple[str, str]:
    with pytest.raises(StatusError) as raised:
        warmed(model, records)
    return raised.value.code, raised.value.text


def test_records_of_any_signature_are_run_and_those_without_a_log_skipped(model, caplog):
    caplog.set_level("INFO")
    records = [predict_log(x=[1.0]), predict_log("total", x=[1.0, 2.0]), PredictionLog()]
    done = warmed(model, [record.SerializeToString() for record in records])
    assert done is not None and done.records == 3
    assert "Starting to read warmup data for model at" in caplog.text
    assert "Number of warmup records read: 3" in caplog.text


@pytest.mark.parametrize(
    ("log", "refused"),
    [
        (
            predict_log("none", x=[1.0]),
            ("FAILED_PRECONDITION", 'Serving signature key "none" not found.'),
        ),
        (
            predict_log(x=[1]),
            ("INVALID_ARGUMENT", "Expects arg[0] to be float but int32 is provided"),
        ),
        (
            PredictionLog(session_run_log={}),
            ("UNIMPLEMENTED", "Unsupported log_type for warmup: 5"),
        ),
    ],
)
def test_a_failing_record_fails_the_load(model, log, refused):
    assert refusal(model, [log.SerializeToString()]) == refused


def test_at_most_a_thousand_records(model):
    code, text = refusal(model, [PredictionLog().SerializeToString()] * 1001)
    assert code == "INVALID_ARGUMENT" and text.startswith(
        "Number of warmup records exceeds the maximum (1000) at "
    )


def test_a_file_that_is_no_tfrecord_is_data_loss(model):
    file = model / "assets.extra" / "tf_serving_warmup_requests"
    warmed(model, [])
    file.write_bytes(b"this is no record file at all")
    with pytest.raises(StatusError) as raised:
        warm_up(load(str(model)))
    assert raised.value.code == "DATA_LOSS"
    assert (
        raised.value.text
        == "corrupted record at 0. Please verify your warmup data is in TFRecord format."
    )
    file.unlink()


def test_a_record_that_is_no_prediction_log_is_named(model):
    assert refusal(model, [b"\xff\xff"])[1].startswith("Failed to parse warmup record: ")


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


def write(model: Path, *logs: PredictionLog) -> None:
    warmed(model, [])
    with tf.io.TFRecordWriter(str(model / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def test_the_default_signature_is_run_first_and_the_others_later(model, monkeypatch, caplog):
    caplog.set_level("INFO")
    write(model, predict_log("total", x=[1.0]), predict_log(x=[1.0]), predict_log("serving_default", x=[2.0]),
          predict_log("mask", x=[1.0]), PredictionLog())  # fmt: skip
    servable, signatures = load(str(model)), ran(monkeypatch)
    done = warm_up(servable, 2, only_default=True)
    assert done is not None and done.records == 3
    assert signatures == ["", "", "serving_default", "serving_default"]
    signatures.clear()
    assert warm_up_others(servable, 1, lambda: False).records == 2
    assert signatures == ["total", "mask"]
    said = [text.partition(" in ")[0] for text in caplog.messages if text.startswith("Warmed up")]
    assert said == ["Warmed up serving_default", "Warmed up total", "Warmed up mask"]
    signatures.clear()
    assert warm_up_others(servable, 1, lambda: bool(signatures)).records == 1
    assert signatures == ["total"]


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
    "log", [predict_log("none", x=[1.0]), predict_log(x=[1]), PredictionLog(session_run_log={})]
)
def test_what_is_seen_at_once_fails_the_load_in_any_case(model, log):
    write(model, predict_log(x=[1.0]), log)
    with pytest.raises(StatusError):
        warm_up(load(str(model)), only_default=True)


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
