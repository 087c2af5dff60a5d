"""The gRPC front: the calls of `answers` in; a listening grpc.Server with health and reflection
out.

Sizes and numbers are bounded by `CallLimits`, deadlines passed on to the graph, TLS and mutual TLS
from the real server's `--ssl-config-file` (contract, sections 1 and 7).
"""

import contextlib
import logging
import os
from concurrent import futures
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tf_groupvit.errors import ConfigError
from tf_groupvit.server.admission import Deadline
from tf_groupvit.server.answers import CALLS, MODEL, PREDICTION, Answers, Call
from tf_groupvit.server.config_files import read_config
from tf_groupvit.server.grpc_arrivals import MOST_WATCHES, CallArrivals
from tf_groupvit.server.ports import Port
from tf_groupvit.server.request_log import RequestLog
from tf_groupvit.server.status import StatusError, draining, valid_utf8

# Names under which the real server's health service answers.
HEALTH_NAMES = ("", "ModelService", "PredictionService")
_LONGEST_TEXT = 1024  # bytes of a status message
_STREAMS = 1000  # calls at once on one connection; further ones wait at the client
_QUEUES = 4  # calls for each thread; further ones are refused by grpc
_SPARE_THREADS = 8  # for status, health and for saying no, when every place in the gate is taken
_CODES = {code.name: code for code in grpc.StatusCode}
_SERVING, _NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


@dataclass(frozen=True)
class CallLimits:
    """What may be on its way at once: bytes of a message, calls without one, connections; and for
    how long.
    """

    bytes: int = 2**28
    arriving: int = 256
    connections: int = 1000
    seconds: float = 60.0


class GrpcFront:
    """A gRPC server around the calls."""

    def __init__(
        self,
        answers: Answers,
        log: RequestLog,
        limits: CallLimits = CallLimits(),
        ssl_config_file: str | None = None,
    ) -> None:
        self._answers, self._log = answers, log
        self._credentials = None if ssl_config_file is None else server_credentials(ssl_config_file)
        # A thread for each Watch: without one, a Watch that opens while another closes stops the
        # server for ever, as the servicer sends under the lock that the thread which completes the
        # sending waits for.
        self._health = health.HealthServicer(experimental_non_blocking=False)
        self._draining = False
        self.arrivals = CallArrivals(limits.arriving, limits.seconds)
        most = (
            answers.gate.running
            + answers.gate.waiting
            + limits.arriving
            + MOST_WATCHES
            + _SPARE_THREADS
        )
        milliseconds = int(limits.seconds * 1000)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(most, thread_name_prefix="grpc"),
            interceptors=[self.arrivals],
            options=[
                (
                    "grpc.max_receive_message_length",
                    limits.bytes,
                ),  # before gzip is unpacked, and again while it is
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
                ("grpc.max_concurrent_streams", _STREAMS),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                ("grpc.server_handshake_timeout_ms", milliseconds),
                ("grpc.max_connection_idle_ms", milliseconds),
            ],
            maximum_concurrent_rpcs=_QUEUES * most,
        )
        for service in (PREDICTION, MODEL):
            self._server.add_generic_rpc_handlers((self._handlers(service),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _describe_services()
        names = (PREDICTION, MODEL, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def _handlers(self, service: str) -> Any:
        methods = {
            path.rsplit("/", 1)[1]: grpc.unary_unary_rpc_method_handler(
                self._method(call), call.request.FromString, call.response.SerializeToString
            )
            for path, call in CALLS.items()
            if path.startswith(f"/{service}/")
        }
        return grpc.method_handlers_generic_handler(service, methods)

    def _method(self, call: Call) -> Any:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                with self._log.request("gRPC", call.path) as line:
                    if self._draining:
                        raise draining()
                    line.size = request.ByteSize()
                    line.what += _model(request)
                    deadline = Deadline(_seconds(context))
                    return call.run(self._answers, request, deadline, context.is_active)
            except StatusError as refusal:
                context.abort(_CODES[refusal.code], shortened(refusal.text))

        return answer

    def listen(self, port: Port) -> None:
        """Open the port that is held, and serve. Raises ServerError."""
        address = (
            f"[{port.host}]:{port.number}" if ":" in port.host else f"{port.host}:{port.number}"
        )
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

    def stop(self, grace: float) -> Any:
        """Close the port; calls still there have ``grace`` seconds. Gives the event of being done.

        Drain first: a call that reaches grpc while it stops is neither handled nor refused before
        the grace ends.
        """
        self.arrivals.stop()
        return self._server.stop(grace)


def _describe_services() -> None:
    """Load the services' descriptors for reflection; those of the API package 2.19 do not load, and
    names must do.
    """
    for module in ("prediction_service_pb2", "model_service_pb2"):
        with contextlib.suppress(AttributeError):
            import_module(f"tensorflow_serving.apis.{module}")


def _model(request: Any) -> str:
    """The model that a request is about, for its line in the log."""
    spec = getattr(request, "model_spec", None)
    return (
        f" {spec.name}" + (f":{spec.signature_name}" if spec.signature_name else "")
        if spec is not None
        else ""
    )


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


logging.getLogger("grpc._server").addFilter(
    lambda record: (
        "deserializing request" not in record.getMessage()
    )  # a caller's malformed bytes are no fault here
)
