"""A running server: models and options in; open ports, or the bare calls for use in one process,
out.

    with Server({"half_plus_two": "/models/half_plus_two"}, port=0, rest_api_port=0) as server:
        print(server.port, server.rest_api_port)

Ports open when every model is available. With ``port=None`` or ``rest_api_port=None`` that front
does not listen; `Server.rest` and `Server.call` answer without sockets.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from tf_groupvit.errors import ConfigError, InputError, ServerError
from tf_groupvit.memory import Growth
from tf_groupvit.server.admission import Arrivals, ConcurrencyLimit, Deadline, open_files
from tf_groupvit.server.answers import CALLS, Answers
from tf_groupvit.server.batching import Scheduler, batched
from tf_groupvit.server.config_files import (
    PROMETHEUS_PATH,
    Parameters,
    ServedModel,
    check_model,
    prometheus_path,
    read_parameters,
)
from tf_groupvit.server.grpc_front import CallLimits, GrpcFront
from tf_groupvit.server.json_apart import Reader
from tf_groupvit.server.metrics import Metrics
from tf_groupvit.server.model_manager import ModelManager
from tf_groupvit.server.pixels import PixelGate
from tf_groupvit.server.ports import Ports
from tf_groupvit.server.request_log import RequestLog
from tf_groupvit.server.rest_answers import Answer, RestAnswers
from tf_groupvit.server.rest_connection import Connections
from tf_groupvit.server.rest_front import RestApp, RestFront
from tf_groupvit.server.servable import Servable, load
from tf_groupvit.server.threads import lasting
from tf_groupvit.server.versions import Retries, Versions
from tf_groupvit.server.warmup import warm_up, warm_up_others

_MEMORY_SECONDS = 2.0  # between two looks at the memory of the process
_SPARE_FILES = 200  # that are no connections
_DRAIN_SECONDS = 0.5  # in which callers who come again are told that the server goes
ModelPaths = Mapping[str, str | os.PathLike[str]]


@dataclass(frozen=True)
class Options:
    """What the flags of ``tf-groupvit serve`` set; the names and defaults are the real server's
    where it has them.
    """

    file_system_poll_wait_seconds: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    saved_model_tags: str = "serve"
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0  # 0: once
    background_warmup: bool = False  # at the start, of all signatures but the default one
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    ssl_config_file: str | None = None
    monitoring_config_file: str | None = None
    enable_batching: bool = False
    batching_parameters_file: str | None = None
    enable_per_model_batching_parameters: bool = False
    max_in_flight: int = 0  # 0: four for each CPU
    max_queued: int = 64
    max_pixels_at_work: int = 100_000_000  # 0: any number
    max_request_bytes: int = 2**28
    max_json_tokens: int = 2**24
    max_receiving: int = 256
    max_receiving_bytes: int = 2**30
    max_connections: int = 1000
    receive_timeout_seconds: float = 60.0
    wait_for_versions: bool = False


class Server:
    """An embedded server. Raises ServerError, ConfigError or InputError when it cannot start.

    ``ports`` that are held already take the place of ``host``, ``port`` and ``rest_api_port``.
    ``on_fault`` is called, in any thread, where a front ends by an exception.
    """

    def __init__(
        self,
        models: ModelPaths | list[ServedModel],
        host: str = "127.0.0.1",
        port: int | None = 0,
        rest_api_port: int | None = 0,
        options: Options = Options(),
        ports: Ports | None = None,
        on_fault: Callable[[], None] = lambda: None,
    ) -> None:
        self._configs = model_configs(models)
        self.started = False
        self._stopped = threading.Event()
        self.ports = ports or Ports(host, port, rest_api_port)
        self.host = self.ports.host
        self.options = options
        self.metrics = Metrics(lambda: self.models.names)
        self.gate = ConcurrencyLimit(
            options.max_in_flight or 4 * (os.cpu_count() or 1), options.max_queued
        )
        self._pixels = PixelGate(options.max_pixels_at_work)
        retries = Retries(options.max_num_load_retries, options.load_retry_interval_micros / 1e6)
        self.models = ModelManager(
            Versions(self._load, retries),
            options.file_system_poll_wait_seconds,
            options.allow_version_labels_for_unavailable_models,
        )
        self._batching = batching_parameters(options)
        self._batches: Scheduler | None = None
        self.answers = Answers(self.models, self.gate, self.metrics)
        log = RequestLog()
        self.rest_answers = RestAnswers(
            self.answers,
            log,
            options.rest_api_timeout_in_ms / 1e3 if options.rest_api_timeout_in_ms > 0 else None,
            options.rest_api_enable_cors_support,
            prometheus_path(options.monitoring_config_file),
            Reader(options.max_json_tokens),
            options.max_request_bytes,
        )
        arrivals = Arrivals(
            options.max_receiving, max(options.max_receiving_bytes, options.max_request_bytes)
        )
        self.app = RestApp(
            self.rest_answers, arrivals, options.max_request_bytes, options.receive_timeout_seconds
        )
        connections = Connections(options.max_connections, options.receive_timeout_seconds)
        self._rest = RestFront(self.app, connections, on_fault)
        # gRPC closes whoever comes when its connections are too many: it has what REST and models'
        # files leave.
        connected = max(
            open_files() - options.max_connections - _SPARE_FILES, options.max_connections
        )
        calls = CallLimits(
            options.max_request_bytes,
            options.max_receiving,
            connected,
            options.receive_timeout_seconds,
        )
        self.grpc_front = GrpcFront(self.answers, log, calls, options.ssl_config_file)

    @property
    def port(self) -> int | None:
        """Of gRPC; None where it does not listen, 0 until it is known."""
        return self.ports.grpc.number

    @property
    def rest_api_port(self) -> int | None:
        return self.ports.rest.number

    def start(self) -> "Server":
        """Take the ports, load the models, then listen."""
        self.ports.hold()
        if self._batching is not None:
            self._batches = Scheduler(self._batching.num_batch_threads)
        try:
            self.models.start(self._configs, self.options.wait_for_versions)
            if self.rest_api_port is not None:
                self._rest.listen(self.ports.rest)
            if self.port is not None:
                self.grpc_front.listen(self.ports.grpc)
        except BaseException:
            self.stop(grace=0)
            raise
        lasting("memory", partial(self._watch_memory, self._stopped)).start()
        self.started = True
        return self

    def _watch_memory(self, stopped: threading.Event) -> None:
        """Give back what requests have freed, those too that no handler has seen, as a message that
        is too large.
        """
        growth = Growth()
        while not stopped.wait(_MEMORY_SECONDS):
            if not self.gate.admitted:
                growth.look()

    def stop(self, grace: float = 30.0) -> bool:
        """Refuse new requests, finish those under way within ``grace`` seconds, unload everything.

        Gives whether all has ended: a load or a warm-up that is under way is given up, and its
        thread ends later.
        """
        end = time.monotonic() + grace
        self._stopped.set()
        self._stopped = threading.Event()  # for the next start
        self.grpc_front.drain()
        self._rest.drain()
        listens = self.started and (self.port, self.rest_api_port) != (None, None)
        quiet = time.monotonic() + (_DRAIN_SECONDS if listens else 0.0)
        while time.monotonic() < min(end, quiet) or (
            (self.gate.admitted or len(self.app.arrivals)) and time.monotonic() < end
        ):
            time.sleep(0.01)
        done = self.grpc_front.stop(_DRAIN_SECONDS)
        self._rest.stop(_DRAIN_SECONDS)
        self.rest_answers.reader.close()
        done.wait(_DRAIN_SECONDS + 1)
        if self._batches is not None:
            self._batches.close()
        ended = self.models.stop()
        self.ports.release()
        self.started = False
        return ended

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def rest(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Answer a REST request without a socket. ``target`` is the raw path and query."""
        lowered = {name.lower(): value for name, value in (headers or {}).items()}
        return self.rest_answers.answer(method, target, lowered, body)

    def call(self, path: str, request: Any, timeout: float | None = None) -> Any:
        """Answer a call such as "/tensorflow.serving.PredictionService/Predict" without a socket.
        Raises StatusError.
        """
        return CALLS[path].run(self.answers, request, Deadline(timeout), lambda: True)

    def _load(self, path: str) -> Servable:
        options = self.options
        servable = load(path, tuple(options.saved_model_tags.split(",")), session_config(options))
        try:
            if self._batches is not None and self._batching is not None:
                per_model = options.enable_per_model_batching_parameters
                servable = batched(servable, self._batches, self._batching, per_model)
            servable.pixels = self._pixels
            if options.enable_model_warmup:
                self._warm_up(servable)
        except BaseException:
            servable.close()
            raise
        return servable

    def _warm_up(self, servable: Servable) -> None:
        """Run the version's records, or at the start, with the flag, those of the default
        signature, and others later.

        A version that takes another one's place is warmed up whole before it does.
        """
        iterations = self.options.num_request_iterations_for_warmup or 1
        in_background = self.options.background_warmup and not self.started
        warmup = warm_up(servable, iterations, in_background)
        if warmup is None:
            return
        self.metrics.warmed(servable.path, warmup.records, warmup.seconds)

        def others(stopped: Callable[[], bool]) -> None:
            later = warm_up_others(servable, iterations, stopped)
            self.metrics.warmed(servable.path, later.records, later.seconds)

        if in_background:
            servable.afterwards = others


def session_config(options: Options) -> tf.compat.v1.ConfigProto:
    """How TensorFlow runs a model.

    One pass over the graph finds what two find. Measured: of an export of the demo checkpoint, the
    first request of a signature takes 0.7 of the processor's time, and later ones the same.
    """
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism,
    )
    config.graph_options.rewrite_options.meta_optimizer_iterations = RewriterConfig.ONE
    return config


def batching_parameters(options: Options) -> Parameters | None:
    """The parameters of all models under batching, or None without. Raises ConfigError."""
    if options.enable_batching:
        return read_parameters(options.batching_parameters_file)
    if options.batching_parameters_file is not None:
        raise ConfigError(
            "A batching parameters file is given without batching: add --enable-batching."
        )
    return None


def model_configs(models: ModelPaths | list[ServedModel]) -> list[ServedModel]:
    """Configs of models given as name -> base path."""
    if isinstance(models, Mapping):
        models = [ServedModel(name, absolute(path)) for name, path in models.items()]
    if not models:
        raise InputError(
            "No model to serve: give at least one, e.g. {'groupvit': 'models/groupvit'}."
        )
    for model in models:
        check_model(model.name, model.base_path)
    return list(models)


def absolute(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if "://" in text else os.path.abspath(text)


__all__ = [
    "PROMETHEUS_PATH",
    "Options",
    "ServedModel",
    "Server",
    "ServerError",
    "absolute",
    "model_configs",
]
