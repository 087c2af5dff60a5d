"""TensorFlow Serving's gRPC services: their handlers, and the server that listens for calls.

`CALLS` maps the path of each method to its handler and messages, so that the server, a test or a
client in the same process reach the same code. TLS comes from the real server's
`--ssl-config-file` (contract, sections 1 and 7).
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tf_groupvit.errors import ConfigError
from tf_groupvit.server.admission import ConcurrencyLimit, Deadline
from tf_groupvit.server.config_files import read_config
from tf_groupvit.server.grpc_arrivals import MOST_WATCHES, CallArrivals
from tf_groupvit.server.model_manager import ModelManager
from tf_groupvit.server.monitoring import Metrics, logged_request
from tf_groupvit.server.options import Options
from tf_groupvit.server.ports import Port
from tf_groupvit.server.predict import METHOD_OF, predict_request, refuse_inference
from tf_groupvit.server.servable import DEFAULT_SIGNATURE
from tf_groupvit.server.status import StatusError, draining, invalid, valid_utf8
from tf_groupvit.server.tensor_protos import write_tensor
from tf_groupvit.server.versions import Version
from tf_groupvit.transport.status_codes import CODES

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
# Names under which the real server's health service answers.
HEALTH_NAMES = ("", "ModelService", "PredictionService")
_LONGEST_TEXT = 1024  # bytes of a status message
_STREAMS = 1000  # calls at once on one connection; further ones wait at the client
_QUEUES = 4  # calls for each thread; further ones are refused by grpc
_SPARE_THREADS = 8  # for status, health and refusals, when every place is taken
_SERVING, _NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


@dataclass(frozen=True)
class CallContext:
    """How long a call may take, and whether its caller still waits."""

    deadline: Deadline
    is_active: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class GrpcService:
    """The handlers: a request and its context in, a response out, or a StatusError."""

    models: ModelManager
    limit: ConcurrencyLimit
    metrics: Metrics

    def predict(
        self, request: predict_pb2.PredictRequest, context: CallContext
    ) -> predict_pb2.PredictResponse:
        """Run a signature."""
        started, name = time.perf_counter(), request.model_spec.name
        try:
            response = self._predict(request, context)
        except StatusError as error:
            self.metrics.answered(name, error.code)
            raise
        self.metrics.answered(name, "OK")
        self.metrics.succeeded(name, "Predict", "GRPC", time.perf_counter() - started)
        return response

    def _predict(
        self, request: predict_pb2.PredictRequest, context: CallContext
    ) -> predict_pb2.PredictResponse:
        _check_spec(request)
        with self.limit.admit() as ticket:
            ticket.start(context.deadline)
            if not context.is_active():
                raise StatusError("CANCELLED", "The caller has gone")
            with self.models.use(request.model_spec) as version:
                left = context.deadline.remaining()
                outcome = predict_request(version.loaded, request, left)
        self.metrics.ran(request.model_spec.name, outcome.run_seconds)
        response = predict_pb2.PredictResponse()
        spec = response.model_spec
        spec.name, spec.version.value = request.model_spec.name, version.number
        spec.signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        for alias, array in outcome.outputs.items():
            write_tensor(array, response.outputs[alias])
        return response

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: CallContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a model."""
        _check_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid(f"Metadata field {name} is not supported")
        with self.models.use(request.model_spec) as version:
            return metadata_response(version)

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: CallContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of a model's versions."""
        _check_spec(request)
        spec = request.model_spec  # whose label is ignored
        numbered = spec.WhichOneof("version_choice") == "version"
        return status_response(self.models, spec.name, spec.version.value if numbered else None)

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest, context: CallContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serve other models."""
        self.models.reload(request.config, context.deadline.remaining())
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response

    def classify(
        self, request: classification_pb2.ClassificationRequest, context: CallContext
    ) -> NoReturn:
        """Refuse, as the real server does for signatures that are made for predict."""
        self._refuse(request, "classify", request.input)

    def regress(self, request: regression_pb2.RegressionRequest, context: CallContext) -> NoReturn:
        """Refuse, as `classify`."""
        self._refuse(request, "regress", request.input)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, context: CallContext
    ) -> NoReturn:
        """Refuse the first task."""
        for task in request.tasks:
            if task.method_name not in METHOD_OF:
                raise StatusError(
                    "UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}"
                )
            self._refuse(task, METHOD_OF[task.method_name], request.input)
        raise invalid("Inference request contains no tasks.")

    def _refuse(self, request: Message, method: str, given: Input) -> NoReturn:
        _check_spec(request)
        with_context = given.WhichOneof("kind") == "example_list_with_context"
        listed = given.example_list_with_context if with_context else given.example_list
        with self.models.use(request.model_spec) as version:
            signature = request.model_spec.signature_name
            refuse_inference(version.loaded, signature, method, len(listed.examples))
        raise AssertionError("refuse_inference refuses")


def status_response(
    models: ModelManager, name: str, number: int | None
) -> get_model_status_pb2.GetModelStatusResponse:
    """The states of a model's versions, newest first, or of one. Raises StatusError."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in models.states(name, number):
        status = response.model_version_status.add(version=version.number, state=int(version.state))
        status.status.error_code = CODES.index(version.error.code) if version.error else 0
        status.status.error_message = valid_utf8(version.error.text) if version.error else ""
    return response


def metadata_response(version: Version) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Every signature, `__saved_model_init_op` included."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in version.loaded.signatures.items():
        signatures.signature_def[name].CopyFrom(signature.proto)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name, response.model_spec.version.value = version.model, version.number
    response.metadata["signature_def"].Pack(signatures)
    return response


def _check_spec(request: Message) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


@dataclass(frozen=True)
class Call:
    """One method of the API: its handler, and the classes of its messages."""

    run: Callable[[GrpcService, Any, CallContext], Message]
    request: type[Message]
    response: type[Message]


# The modules of the services are not imported: those of the API package 2.19 fail under today's
# protobuf.
CALLS = {
    f"/{service}/{method}": Call(
        run, getattr(module, f"{message}Request"), getattr(module, f"{message}Response")
    )
    for service, method, run, module, message in (
        (PREDICTION, "Predict", GrpcService.predict, predict_pb2, "Predict"),
        (
            PREDICTION,
            "GetModelMetadata",
            GrpcService.metadata,
            get_model_metadata_pb2,
            "GetModelMetadata",
        ),
        (PREDICTION, "Classify", GrpcService.classify, classification_pb2, "Classification"),
        (PREDICTION, "Regress", GrpcService.regress, regression_pb2, "Regression"),
        (
            PREDICTION,
            "MultiInference",
            GrpcService.multi_inference,
            inference_pb2,
            "MultiInference",
        ),
        (MODEL, "GetModelStatus", GrpcService.status, get_model_status_pb2, "GetModelStatus"),
        (
            MODEL,
            "HandleReloadConfigRequest",
            GrpcService.reload,
            model_management_pb2,
            "ReloadConfig",
        ),
    )
}


class GrpcServer:
    """The calls on a port, with health and reflection; ``connections`` may be open at once."""

    def __init__(self, service: GrpcService, options: Options, connections: int) -> None:
        file = options.ssl_config_file
        self._service = service
        self._credentials = None if file is None else server_credentials(file)
        # A thread for each Watch: without one, a Watch that opens while another closes stops the
        # server for ever, as the servicer sends under the lock that the thread which completes the
        # sending waits for.
        self._health = health.HealthServicer(experimental_non_blocking=False)
        self._draining = False
        self.arrivals = CallArrivals(options.max_receiving, options.receive_timeout_seconds)
        threads = service.limit.places + options.max_receiving + MOST_WATCHES + _SPARE_THREADS
        milliseconds = int(options.receive_timeout_seconds * 1000)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
            interceptors=[self.arrivals],
            options=[
                # before gzip is unpacked, and again while it is
                ("grpc.max_receive_message_length", options.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
                ("grpc.max_concurrent_streams", _STREAMS),
                ("grpc.max_allowed_incoming_connections", connections),
                ("grpc.server_handshake_timeout_ms", milliseconds),
                ("grpc.max_connection_idle_ms", milliseconds),
            ],
            maximum_concurrent_rpcs=_QUEUES * threads,
        )
        for name in (PREDICTION, MODEL):
            methods = {
                path.rpartition("/")[2]: self._handler(path, call)
                for path, call in CALLS.items()
                if path.startswith(f"/{name}/")
            }
            handler = grpc.method_handlers_generic_handler(name, methods)
            self._server.add_generic_rpc_handlers((handler,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        # Descriptors for reflection; those of the API package 2.19 do not load, and names must do.
        for module in ("prediction_service_pb2", "model_service_pb2"):
            with contextlib.suppress(AttributeError):
                import_module(f"tensorflow_serving.apis.{module}")
        names = (PREDICTION, MODEL, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def _handler(self, path: str, call: Call) -> grpc.RpcMethodHandler:
        def answer(request: Message, context: grpc.ServicerContext) -> Message | None:
            try:
                with logged_request("gRPC", path) as line:
                    if self._draining:
                        raise draining()
                    line.size = request.ByteSize()
                    if (spec := getattr(request, "model_spec", None)) is not None:
                        line.request += f" {_shown(spec)}"
                    deadline = Deadline(_seconds(context))
                    return call.run(
                        self._service, request, CallContext(deadline, context.is_active)
                    )
            except StatusError as error:
                context.abort(grpc.StatusCode[error.code], shortened(error.text))
                return None  # abort raises

        return grpc.unary_unary_rpc_method_handler(
            answer, call.request.FromString, call.response.SerializeToString
        )

    def listen(self, port: Port) -> None:
        """Open the port that is held, and serve. Raises ServerError."""
        host = f"[{port.host}]" if ":" in port.host else port.host
        address = f"{host}:{port.number}"
        port.release()  # gRPC opens ports by number alone
        try:
            if self._credentials is None:
                opened = self._server.add_insecure_port(address)
            else:
                opened = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise port.refused("is it in use?") from error
        if not opened:
            raise port.refused("is it in use?")
        self._server.start()
        self.arrivals.start()
        for name in HEALTH_NAMES:
            self._health.set(name, _SERVING)

    def drain(self) -> None:
        """Health says NOT_SERVING, and new calls are refused, from now on."""
        self._draining = True
        for name in HEALTH_NAMES:
            self._health.set(name, _NOT_SERVING)

    def stop(self, grace: float) -> threading.Event:
        """Close the port; calls still there have ``grace`` seconds. The event is set when done.

        Drain first: a call that reaches grpc while it stops is neither handled nor refused before
        the grace ends.
        """
        self.arrivals.stop()
        return self._server.stop(grace)


def _shown(spec: ModelSpec) -> str:
    """The model that a request is about, for the log."""
    return f"{spec.name}:{spec.signature_name}" if spec.signature_name else spec.name


def _seconds(context: grpc.ServicerContext) -> float | None:
    """Seconds until the caller's deadline; gRPC says years where there is none."""
    seconds = context.time_remaining()
    return seconds if seconds is not None and seconds < 1e6 else None


def shortened(text: str) -> str:
    """The text as a status message carries it: UTF-8, at most 1024 bytes."""
    data = valid_utf8(text).encode()
    if len(data) <= _LONGEST_TEXT:
        return data.decode()
    return data[:_LONGEST_TEXT].decode("utf-8", "ignore") + "...TRUNCATED"


def server_credentials(file: str | os.PathLike[str]) -> grpc.ServerCredentials:
    """TLS from an SSLConfig text proto, with PEM texts in it. Raises ConfigError."""
    config = read_config(file, "SSLConfig")
    if not config.server_key or not config.server_cert:
        raise ConfigError(f"{file} names no server_key or no server_cert: both are PEM texts.")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(
            f"{file} asks for client_verify: give the PEM text of the authority as custom_ca."
        )
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


# A caller's malformed bytes are no fault here.
logging.getLogger("grpc._server").addFilter(
    lambda record: "deserializing request" not in record.getMessage()
)
