"""States of versions, metadata and reloads over sockets (contract, sections 6 and 8)."""

import json
import shutil
import time

import grpc
import pytest
import tensorflow as tf
from rest_calls import get, predict, refusal
from small_models import echo, half_plus_two
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

from tf_groupvit.server.config_files import ServedModel, VersionPolicy
from tf_groupvit.server.running import Options, Server

MODEL = "/v1/models/m"
PREDICT = "/v1/models/m:predict"
ONE = '{"instances": [1]}'
QUICK = Options(
    file_system_poll_wait_seconds=0.02, max_num_load_retries=0, load_retry_interval_micros=0
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Versions of half_plus_two, written once: they answer 1 with 1.5, 2.5 and 3.5."""
    folder = tmp_path_factory.mktemp("store")
    for number in (1, 2, 3):
        half_plus_two(folder, number, plus=float(number))
    (folder / "broken").mkdir()
    return folder


def publish(store, version, base_path, name=None):
    """Put a version where a server looks, all at once."""
    staging = base_path.parent / f"staging-{version}"
    shutil.copytree(store / str(version), staging)
    staging.rename(base_path / (name or str(version)))


@pytest.fixture
def base_path(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    return folder


def states(server) -> list[tuple[str, str]]:
    entries = json.loads(get(server, MODEL)[1])["model_version_status"]
    return [(entry["version"], entry["state"]) for entry in entries]


def answer(server) -> float:
    return json.loads(predict(server, ONE, PREDICT)[1])["predictions"][0]


def until(server, wanted):
    end = time.monotonic() + 20
    while states(server) != wanted:
        assert time.monotonic() < end, states(server)
        time.sleep(0.01)


STATUS = """{
 "model_version_status": [
  {
   "version": "123",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
"""


def test_the_status_is_the_documented_text(server):
    for path in ("", "/versions/123", "/labels/stable", "/labels/none", "/METADATA"):
        assert get(server, f"/v1/models/half_plus_two{path}") == (200, STATUS)


@pytest.mark.parametrize("path", ["", "/versions/123", "/labels/stable"])
def test_metadata_is_laid_out_as_documented(server, path):
    status, text = get(server, f"/v1/models/half_plus_two{path}/metadata")
    assert status == 200 and text.startswith('{\n"model_spec":{\n "name": "half_plus_two",\n')
    assert (
        text.endswith("  }\n }\n}\n}\n}\n")
        and ' "version": "123",\n "signature_name": ""\n' in text
    )
    signatures = json.loads(text)["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) >= {"serving_default", "segment", "__saved_model_init_op"}
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    x = {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "serving_default_x:0"}
    default = signatures["serving_default"]
    assert default["inputs"] == {"x": x} and default["outputs"]["y"]["tensor_shape"] == shape
    assert default["method_name"] == "tensorflow/serving/predict" and default["defaults"] == {}


def test_an_unknown_rank_is_said_in_metadata(tmp_path):
    echo(tmp_path, tf.float32)
    with Server({"m": tmp_path}, port=None) as running:
        text = json.loads(get(running, f"{MODEL}/metadata")[1])
    signature = text["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["tensor_shape"] == {"dim": [], "unknown_rank": True}


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("foo", 404, "Could not find any versions of model foo"),
        ("foo/metadata", 404, "Servable not found for request: Latest(foo)"),
        ("foo/labels/l", 404, "Could not find any versions of model foo"),
        ("half_plus_two/versions/9", 404, "Could not find version 9 of model half_plus_two"),
        (
            "half_plus_two/versions/9/metadata",
            404,
            "Servable not found for request: Specific(half_plus_two, 9)",
        ),
        ("half_plus_two/labels/none/metadata", 400, "Unrecognized servable version label: none"),
        ("foo/labels/none/metadata", 400, "Unrecognized servable version label: none"),
        ("foo/versions/1", 404, "Could not find version 1 of model foo"),
    ],
)
def test_what_is_not_there_is_refused_in_each_routes_words(server, path, code, text):
    assert get(server, f"/v1/models/{path}") == (code, json.dumps({"error": text}, indent=4))


def test_versions_come_newest_first_and_the_highest_answers(store, base_path):
    for number in (1, 2, 3):
        publish(store, number, base_path)
    (base_path / "note.txt").touch()
    (base_path / "v4").mkdir()
    with Server(
        [ServedModel("m", str(base_path), VersionPolicy(all=True))], port=None, options=QUICK
    ) as running:
        until(running, [("3", "AVAILABLE"), ("2", "AVAILABLE"), ("1", "AVAILABLE")])
        assert answer(running) == 3.5
        assert predict(running, ONE, f"{MODEL}/versions/1:predict")[0] == 200


def test_a_new_version_takes_over_its_predecessor_ends_and_stays_listed(store, base_path):
    publish(store, 1, base_path)
    with Server({"m": base_path}, options=QUICK) as running:
        assert answer(running) == 1.5
        publish(store, 2, base_path)
        until(running, [("2", "AVAILABLE"), ("1", "END")])
        assert answer(running) == 2.5
        assert get(running, f"{MODEL}/versions/1")[0] == 200
        gone = (404, "Servable not found for request: Specific(m, 1)")
        assert refusal(running, ONE, f"{MODEL}/versions/1:predict") == gone
        assert json.loads(get(running, f"{MODEL}/versions/1/metadata")[1])["error"] == gone[1]
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            request = GetModelStatusRequest()
            request.model_spec.name = "m"
            listed = (
                ModelServiceStub(channel).GetModelStatus(request, timeout=10).model_version_status
            )
            assert [(entry.version, int(entry.state)) for entry in listed] == [(2, 30), (1, 50)]
        shutil.rmtree(base_path / "2")
        until(running, [("2", "END"), ("1", "AVAILABLE")])
        assert answer(running) == 1.5
        shutil.rmtree(base_path / "1")
        until(running, [("2", "END"), ("1", "END")])
        assert refusal(running, ONE, PREDICT) == (404, "Servable not found for request: Latest(m)")


def test_a_version_that_fails_ends_with_its_error_and_the_old_one_stays(store, base_path):
    publish(store, 1, base_path)
    with Server({"m": base_path}, port=None, options=QUICK) as running:
        publish(store, "broken", base_path, "7")
        until(running, [("7", "END"), ("1", "AVAILABLE")])
        entry = json.loads(get(running, f"{MODEL}/versions/7")[1])["model_version_status"][0]
        assert entry["status"] == {
            "error_code": "NOT_FOUND",
            "error_message": (
                "Specified file path does not appear to contain a SavedModel bundle (should have a"
                f" file called `saved_model.pb`)\nSpecified file path: {base_path}/7"
            ),
        }
        assert answer(running) == 1.5
        shutil.rmtree(base_path / "7")
        time.sleep(0.1)  # a few polls
        publish(store, 2, base_path, "7")
        until(running, [("7", "AVAILABLE"), ("1", "END")])


def test_a_loaded_version_is_never_read_again(store, base_path):
    publish(store, 1, base_path)
    with Server({"m": base_path}, port=None, options=QUICK) as running:
        shutil.rmtree(base_path / "1" / "variables")
        shutil.copytree(store / "2", base_path / "1", dirs_exist_ok=True)
        time.sleep(0.1)  # a few polls
        assert answer(running) == 1.5 and states(running) == [("1", "AVAILABLE")]


def test_a_file_that_is_called_a_number_is_taken_for_a_version(store, base_path):
    publish(store, 1, base_path)
    with Server({"m": base_path}, port=None, options=QUICK) as running:
        (base_path / "8").touch()
        until(running, [("8", "END"), ("1", "AVAILABLE")])


def test_leading_zeros_make_the_same_number(store, base_path):
    publish(store, 1, base_path, "00000123")
    with Server({"m": base_path}, port=None, options=QUICK) as running:
        assert states(running) == [("123", "AVAILABLE")]
        assert predict(running, ONE, f"{MODEL}/versions/0123:predict")[0] == 200


def test_the_defaults_of_polling_and_retrying_are_the_real_servers():
    options = Options()
    assert options.file_system_poll_wait_seconds == 1.0
    assert (options.max_num_load_retries, options.load_retry_interval_micros) == (5, 60_000_000)
    assert (options.saved_model_tags, options.enable_model_warmup) == ("serve", True)
    assert ServedModel("m", "/m").policy == VersionPolicy(latest=1)


def test_a_reload_that_fails_leaves_only_its_code_and_text_to_the_caller(store, base_path):
    """And what was served goes on being served."""
    from google.protobuf import text_format
    from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest

    publish(store, 1, base_path)
    (base_path.parent / "n").mkdir()
    publish(store, "broken", base_path.parent / "n", "5")
    one = 'config {{ name: "{0}" base_path: "{1}" model_platform: "tensorflow" {2} }}'
    with (
        Server({"m": base_path}, options=QUICK) as running,
        grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        stub = ModelServiceStub(channel)

        def reload(*configs: str):
            text = f"config {{ model_config_list {{ {' '.join(configs)} }} }}"
            return stub.HandleReloadConfigRequest(
                text_format.Parse(text, ReloadConfigRequest()), timeout=30
            )

        mine = one.format("m", base_path, "")
        with pytest.raises(grpc.RpcError) as raised:
            reload(mine, one.format("n", base_path.parent / "n", ""))
        assert raised.value.code().name == "UNKNOWN"
        assert raised.value.details().startswith(
            "1 model(s) did not become available: {{{name: n version: 5} due to error: NOT_FOUND:"
            " Specified file path"
        )
        assert answer(running) == 1.5
        label = 'version_labels {{ key: "l" value: {} }}'
        with pytest.raises(grpc.RpcError) as raised:
            reload(one.format("m", base_path, label.format(9)))
        text = (
            "Request to assign label to version 9 of model m, which is not currently available for"
            " inference"
        )
        assert (raised.value.code().name, raised.value.details()) == ("FAILED_PRECONDITION", text)
        done = reload(one.format("m", base_path, label.format(1)))
        assert (done.status.error_code, done.status.error_message) == (0, "")
        assert predict(running, ONE, f"{MODEL}/labels/l:predict")[0] == 200
        reload(one.format("other", base_path, ""))
        until(running, [("1", "END")])
        assert predict(running, ONE, "/v1/models/other:predict")[0] == 200
        assert (
            refusal(running, ONE, f"{MODEL}/labels/l:predict")[1]
            == "Unrecognized servable version label: l"
        )
