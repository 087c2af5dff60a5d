"""The API's calls: protobuf requests in; protobuf answers out, or a StatusError. What gRPC serves,
without gRPC.

`CALLS` maps each method's path to its function and its messages, so that a socket, a test or a
client in the same process reach the same code.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tf_groupvit.server.admission import ConcurrencyLimit, Deadline
from tf_groupvit.server.metrics import Metrics
from tf_groupvit.server.model_manager import ModelManager
from tf_groupvit.server.predict import METHOD_OF, predict_request, refuse_inference
from tf_groupvit.server.servable import DEFAULT_SIGNATURE
from tf_groupvit.server.status import StatusError, invalid, valid_utf8
from tf_groupvit.server.tensor_protos import write_tensor
from tf_groupvit.server.versions import Version
from tf_groupvit.transport.status_codes import CODES

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
IsActive = Callable[[], bool]


@dataclass(frozen=True)
class Call:
    """One method of the API."""

    path: str
    run: Callable[["Answers", Any, Deadline, IsActive], Any]
    request: Any
    response: Any


@dataclass
class Answers:
    """A server's calls."""

    models: ModelManager
    gate: ConcurrencyLimit
    metrics: Metrics

    def predict(self, request: Any, deadline: Deadline, is_active: IsActive) -> Any:
        started, name = time.perf_counter(), request.model_spec.name
        try:
            response = self._predict(request, deadline, is_active)
        except StatusError as refusal:
            self.metrics.answered(name, refusal.code)
            raise
        self.metrics.answered(name, "OK")
        self.metrics.succeeded(name, "Predict", "GRPC", time.perf_counter() - started)
        return response

    def _predict(self, request: Any, deadline: Deadline, is_active: IsActive) -> Any:
        _check_spec(request)
        with self.gate.admit() as ticket:
            ticket.start(deadline)
            if not is_active():
                raise StatusError("CANCELLED", "The caller has gone")
            with self.models.use(request.model_spec) as version:
                outcome = predict_request(version.loaded, request, deadline.remaining())
        self.metrics.ran(request.model_spec.name, outcome.run_seconds)
        response = predict_pb2.PredictResponse()
        spec = response.model_spec
        spec.name, spec.version.value = request.model_spec.name, version.number
        spec.signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        for alias, array in outcome.outputs.items():
            write_tensor(array, response.outputs[alias])
        return response

    def metadata(self, request: Any, deadline: Deadline, is_active: IsActive) -> Any:
        _check_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid(f"Metadata field {name} is not supported")
        with self.models.use(request.model_spec) as version:
            return metadata_of(version)

    def status(self, request: Any, deadline: Deadline, is_active: IsActive) -> Any:
        _check_spec(request)
        spec = request.model_spec  # whose label is ignored
        return self.status_of(
            spec.name,
            spec.version.value if spec.WhichOneof("version_choice") == "version" else None,
        )

    def status_of(self, name: str, number: int | None) -> Any:
        """GetModelStatusResponse of a model's versions, newest first, or of one. Raises StatusError."""
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in self.models.states(name, number):
            status = response.model_version_status.add(
                version=version.number, state=int(version.state)
            )
            status.status.error_code = CODES.index(version.error.code) if version.error else 0
            status.status.error_message = valid_utf8(version.error.text) if version.error else ""
        return response

    def reload(self, request: Any, deadline: Deadline, is_active: IsActive) -> Any:
        self.models.reload(request.config, deadline.remaining())
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response

    def classify(self, request: Any, deadline: Deadline, is_active: IsActive) -> Any:
        self._refuse(request, request.model_spec, "classify", _examples(request.input))

    def regress(self, request: Any, deadline: Deadline, is_active: IsActive) -> Any:
        self._refuse(request, request.model_spec, "regress", _examples(request.input))

    def multi_inference(self, request: Any, deadline: Deadline, is_active: IsActive) -> Any:
        for task in request.tasks:
            if task.method_name not in METHOD_OF:
                raise StatusError(
                    "UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}"
                )
            self._refuse(
                task, task.model_spec, METHOD_OF[task.method_name], _examples(request.input)
            )
        raise invalid("Inference request contains no tasks.")

    def _refuse(self, request: Any, spec: Any, method: str, examples: int) -> None:
        _check_spec(request)
        with self.models.use(spec) as version:
            refuse_inference(version.loaded, spec.signature_name, method, examples)


def metadata_of(version: Version) -> Any:
    """GetModelMetadataResponse with every signature, `__saved_model_init_op` included."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in version.loaded.signatures.items():
        signatures.signature_def[name].CopyFrom(signature.proto)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name, response.model_spec.version.value = version.model, version.number
    response.metadata["signature_def"].Pack(signatures)
    return response


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _examples(given: Any) -> int:
    if given.WhichOneof("kind") == "example_list_with_context":
        return len(given.example_list_with_context.examples)
    return len(given.example_list.examples)


# The service modules themselves are not imported: those of the API package 2.19 fail under today's
# protobuf.
CALLS: dict[str, Call] = {
    path: Call(path, run, request, response)
    for path, run, request, response in (
        (
            f"/{PREDICTION}/Predict",
            Answers.predict,
            predict_pb2.PredictRequest,
            predict_pb2.PredictResponse,
        ),
        (
            f"/{PREDICTION}/GetModelMetadata",
            Answers.metadata,
            get_model_metadata_pb2.GetModelMetadataRequest,
            get_model_metadata_pb2.GetModelMetadataResponse,
        ),
        (
            f"/{PREDICTION}/Classify",
            Answers.classify,
            classification_pb2.ClassificationRequest,
            classification_pb2.ClassificationResponse,
        ),
        (
            f"/{PREDICTION}/Regress",
            Answers.regress,
            regression_pb2.RegressionRequest,
            regression_pb2.RegressionResponse,
        ),
        (
            f"/{PREDICTION}/MultiInference",
            Answers.multi_inference,
            inference_pb2.MultiInferenceRequest,
            inference_pb2.MultiInferenceResponse,
        ),
        (
            f"/{MODEL}/GetModelStatus",
            Answers.status,
            get_model_status_pb2.GetModelStatusRequest,
            get_model_status_pb2.GetModelStatusResponse,
        ),
        (
            f"/{MODEL}/HandleReloadConfigRequest",
            Answers.reload,
            model_management_pb2.ReloadConfigRequest,
            model_management_pb2.ReloadConfigResponse,
        ),
    )
}
