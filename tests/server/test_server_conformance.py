"""Every conformance case, over real sockets where the case is about one."""

import base64
import json
import shutil
import socket
import subprocess
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from conformance_cases import (
    array,
    ask,
    assert_same,
    body_of,
    check_route,
    plain,
    read_cases,
    type_name,
)
from google.protobuf import json_format
from known_differences import MISSING_FLAGS, NOT_COPIED, flag_of
from small_models import half_plus_two
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from tf_groupvit.server.config_files import ServedModel
from tf_groupvit.server.json_requests import read_predict
from tf_groupvit.server.json_responses import write_predict
from tf_groupvit.server.running import Options, Server
from tf_groupvit.server.status import StatusError
from tf_groupvit.server.tensor_protos import FIELDS, NUMBER_OF, read_tensor, write_tensor

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "conformance"
CASES = [
    case
    for name in ("rest_json_cases", "grpc_cases")
    for case in read_cases(FOLDER / f"{name}.jsonl")
]


def cases(kind: str) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", chosen, ids=[case["name"] for case in chosen])


@pytest.fixture(autouse=True)
def _listed_quirks_differ(request):
    """A quirk that is listed as not copied must not hold, lest the list grow stale."""
    case = getattr(request.node, "callspec", None) and request.node.callspec.params.get("case")
    if case and case["name"] in NOT_COPIED:
        assert case["level"] == "quirk", "core cases must hold"
        request.node.add_marker(pytest.mark.xfail(strict=True, reason=NOT_COPIED[case["name"]]))


@cases("parse_request")
def test_a_body_becomes_the_tensors_or_the_error_of_the_case(case):
    types = {name: type_name(given["dtype"]) for name, given in case["signature_inputs"].items()}
    if case["expect"] == "error":
        with pytest.raises(StatusError) as raised:
            read_predict(body_of(case), lambda signature: types)
        assert raised.value.code == case["code"]
        assert case["message_contains"] in raised.value.text
        assert raised.value.text == case.get("message", raised.value.text)
        return
    form, signature, arrays = read_predict(body_of(case), lambda signature: types)
    assert (form, signature) == (case["format"], case["signature_name"])
    assert {name: list(mine.shape) for name, mine in arrays.items()} == case["shapes"]
    for name, wanted in case["tensors"].items():
        assert_same(arrays[name].tolist(), plain(rounded(wanted, types[name])), name)


def rounded(values, type_):
    """Case values of a float32 tensor are decimal forms of the rounded float."""
    if isinstance(values, list):
        return [rounded(value, type_) for value in values]
    return float(np.float32(values)) if type_ == "float" and isinstance(values, float) else values


@cases("make_response")
def test_tensors_become_the_body_or_the_error_of_the_case(case):
    tensors = {name: array(given) for name, given in case["tensors"].items()}
    if case["expect"] == "error":
        with pytest.raises(StatusError) as raised:
            write_predict(tensors, case["format"])
        assert raised.value.code == case["code"]
        assert case["message_contains"] in raised.value.text
        assert raised.value.text == case.get("message", raised.value.text)
        return
    body = write_predict(tensors, case["format"])
    if "expect_json" in case:
        assert_same(json.loads(body), case["expect_json"])
    if "expect_text" in case:
        assert body.decode() == case["expect_text"]
    if "expect_body_b64" in case:
        assert body == base64.b64decode(case["expect_body_b64"])


@pytest.fixture(scope="module", params=["embedded", "tensorflow_model_server"])
def target(request, server, fixture_base_path, tmp_path_factory):
    """The server of a flag, embedded or real; servers with flags are started when first asked for."""
    if request.param == "tensorflow_model_server" and not shutil.which(request.param):
        pytest.skip("there is no tensorflow_model_server on the PATH")
    folder = tmp_path_factory.mktemp("flags")
    running: dict[tuple[str, str] | None, Any] = (
        {None: server} if request.param == "embedded" else {}
    )

    def started(case: dict) -> Any:
        flag = flag_of(case)
        if flag not in running:
            start = start_embedded if request.param == "embedded" else RealServer
            running[flag] = start(flag, fixture_base_path, folder)
        return running[flag]

    yield started
    for flagged in running.values():
        if flagged is not server:
            flagged.stop()


def monitoring_file(folder: Path) -> str:
    file = folder / "monitoring.config"
    file.write_text("prometheus_config { enable: true }")
    return str(file)


def start_embedded(flag: tuple[str, str] | None, base_path: Path, folder: Path) -> Server:
    assert flag is not None
    name, value = flag
    if name in MISSING_FLAGS or name not in {field.name for field in fields(Options)}:
        pytest.skip(f"this server has no --{name}: {MISSING_FLAGS.get(name, 'see DIFFERENCES.md')}")
    given = monitoring_file(folder) if name == "monitoring_config_file" else json.loads(value)
    model = ServedModel("half_plus_two", str(base_path), labels={"stable": 123})
    values: dict[str, Any] = {name: given}
    return Server([model], options=Options(**values)).start()


class RealServer:
    """tensorflow_model_server on ports of its own."""

    def __init__(self, flag: tuple[str, str] | None, base_path: Path, folder: Path) -> None:
        models = folder / "models.config"
        models.write_text(
            f'model_config_list {{ config {{ name: "half_plus_two" base_path: "{base_path}" '
            'model_platform: "tensorflow" version_labels { key: "stable" value: 123 } } }'
        )
        self.port, self.rest_api_port = free_port(), free_port()
        arguments = [
            f"--port={self.port}",
            f"--rest_api_port={self.rest_api_port}",
            f"--model_config_file={models}",
        ]
        arguments.append("--allow_version_labels_for_unavailable_models=true")
        if flag is not None:
            value = monitoring_file(folder) if flag[0] == "monitoring_config_file" else flag[1]
            arguments.append(f"--{flag[0]}={value}")
        self._process = subprocess.Popen(["tensorflow_model_server", *arguments])
        end = time.monotonic() + 60
        while (
            not reachable(self.port) and time.monotonic() < end
        ):  # its ports open when the models are there
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def reachable(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@cases("route")
def test_a_route_answers_as_the_case_says(case, target):
    check_route(case, *ask(target(case).rest_api_port, case))


@cases("grpc")
def test_a_call_answers_as_the_case_says(case, target, fixture_base_path):
    with grpc.insecure_channel(f"127.0.0.1:{target(case).port}") as channel:
        if case["expect_code"] != "OK":
            with pytest.raises(grpc.RpcError) as raised:
                send(channel, case, fixture_base_path)
            assert raised.value.code().name == case["expect_code"], raised.value.details()
            assert case.get("message", raised.value.details()) == raised.value.details()
            assert case.get("message_contains", "") in raised.value.details()
            return
        check_response(send(channel, case, fixture_base_path), case.get("expect_response", {}))


def send(channel, case, base_path):
    request = json.loads(json.dumps(case["request"]).replace("<same base path>", str(base_path)))
    method = case["rpc"].split("/")[1]
    stub = (
        prediction_service_pb2_grpc.PredictionServiceStub(channel)
        if case["rpc"].startswith("Prediction")
        else model_service_pb2_grpc.ModelServiceStub(channel)
    )
    return getattr(stub, method)(MESSAGES[method](request), timeout=30)


def predict_message(request):
    message = PredictRequest(output_filter=request.get("output_filter", []))
    spec(message, request)
    for name, given in request.get("inputs", {}).items():
        fill(message.inputs[name], given)
    return message


def fill(proto, given):
    """A TensorProto as the case gives it: values of a shape, or raw fields."""
    if "values" in given and "field" not in given:
        write_tensor(array(given), proto)
        return
    proto.dtype = NUMBER_OF[type_name(given["dtype"])]
    for size in given.get("shape", []):
        proto.tensor_shape.dim.add().size = size
    if "tensor_content_b64" in given:
        proto.tensor_content = base64.b64decode(given["tensor_content_b64"])
    for field in set(FIELDS.values()) & given.keys():
        getattr(proto, field).extend(plain(given[field]))
    if "field" in given:
        getattr(proto, given["field"]).extend(plain(given["values"]))


def spec(message, request):
    if "model_spec" in request:
        message.model_spec.SetInParent()
        given = dict(request["model_spec"])
        if "version" in given:
            message.model_spec.version.value = given.pop("version")
        for name, value in given.items():
            setattr(message.model_spec, name, value)


def metadata_message(request):
    message = GetModelMetadataRequest(metadata_field=request.get("metadata_field", []))
    spec(message, request)
    return message


def status_message(request):
    message = GetModelStatusRequest()
    spec(message, request)
    return message


MESSAGES = {
    "Predict": predict_message,
    "GetModelMetadata": metadata_message,
    "GetModelStatus": status_message,
    "HandleReloadConfigRequest": lambda request: json_format.ParseDict(
        request, ReloadConfigRequest()
    ),
}


def check_response(response, wanted):
    if "model_spec" in wanted:
        got = {"name": response.model_spec.name, "version": response.model_spec.version.value}
        if response.model_spec.signature_name:
            got["signature_name"] = response.model_spec.signature_name
        assert got == wanted["model_spec"]
        assert not response.model_spec.version_label
    for name, given in wanted.get("outputs", {}).items():
        tensor = read_tensor(response.outputs[name], name)
        assert list(tensor.shape) == given["shape"]
        assert_same(tensor.tolist(), plain(given["values"]), name)
    if "outputs" in wanted:
        assert response.outputs.keys() == wanted["outputs"].keys()
    for name, field in wanted.get("outputs_field", {}).items():
        assert (
            len(getattr(response.outputs[name], field))
            and not response.outputs[name].tensor_content
        )
    if "model_version_status" in wanted:
        got = json_format.MessageToDict(response, always_print_fields_with_no_presence=True)
        states = [
            entry | {"version": int(entry["version"])} for entry in got["model_version_status"]
        ]
        assert states == wanted["model_version_status"]
    if "signature_names" in wanted:
        signatures = SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        assert set(signatures.signature_def) >= set(wanted["signature_names"])


def test_every_difference_that_is_listed_exists():
    assert set(NOT_COPIED) <= {case["name"] for case in CASES if case.get("level") == "quirk"}


def test_the_fixture_is_the_one_that_the_cases_assume(tmp_path):
    fixture = next(case for case in CASES if case["kind"] == "fixture")
    path = half_plus_two(tmp_path, 7)
    from tf_groupvit.server.servable import load

    signatures = load(str(path)).signatures
    assert set(signatures) == set(fixture["signatures"])
    for name, given in fixture["signatures"].items():
        wanted = {alias: type_name(info["dtype"]) for alias, info in given["inputs"].items()}
        assert signatures[name].input_types == wanted
