"""An embedded server: models and options, open ports, or direct calls within one process.

    with Server({"half_plus_two": "/models/half_plus_two"}, port=0, rest_api_port=0) as server:
        print(server.port, server.rest_api_port)

Ports open when every model is available. With ``port=None`` or ``rest_api_port=None`` that front
end does not listen; `Server.rest` and `Server.call` answer without sockets.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType

from google.protobuf.message import Message
from starlette.responses import Response
from tensorflow.core.protobuf.config_pb2 import ConfigProto

from tf_groupvit.errors import ConfigError, InputError
from tf_groupvit.memory import Growth, give_back_freed_memory
from tf_groupvit.server.admission import ConcurrencyLimit, Deadline, open_files
from tf_groupvit.server.batching import Scheduler, batched
from tf_groupvit.server.config_files import Parameters, ServedModel, check_model, read_parameters
from tf_groupvit.server.grpc_service import CALLS, CallContext, GrpcServer, GrpcService
from tf_groupvit.server.model_manager import ModelManager
from tf_groupvit.server.monitoring import Metrics
from tf_groupvit.server.options import Options as Options
from tf_groupvit.server.pixel_limit import PixelLimit
from tf_groupvit.server.ports import Ports
from tf_groupvit.server.rest_app import RestApp
from tf_groupvit.server.rest_server import RestServer
from tf_groupvit.server.servable import Servable, load
from tf_groupvit.server.threads import lasting, step_back
from tf_groupvit.server.versions import Retries, Versions
from tf_groupvit.server.warmup import warm_up, warm_up_others

_MEMORY_SECONDS = 2.0  # between two looks at the memory of the process
_SPARE_FILES = 200  # that are no connections
_DRAIN_SECONDS = 0.5  # in which callers who try again get UNAVAILABLE
ModelPaths = Mapping[str, str | os.PathLike[str]]


class Server:
    """An embedded server. Raises ServerError, ConfigError or InputError when it cannot start.

    ``ports`` that are held already take the place of ``host``, ``port`` and ``rest_api_port``.
    ``on_fault`` is called, in any thread, where a front end ends by an exception.
    """

    def __init__(
        self,
        models: ModelPaths | list[ServedModel],
        host: str = "127.0.0.1",
        port: int | None = 0,
        rest_api_port: int | None = 0,
        options: Options | None = None,
        ports: Ports | None = None,
        on_fault: Callable[[], None] = lambda: None,
    ) -> None:
        self._configs = served_models(models)
        self.started = False
        self._stopped = threading.Event()
        self.ports = ports or Ports(host, port, rest_api_port)
        self.host = self.ports.host
        self.options = options = options or Options()
        self.metrics = Metrics(lambda: self.models.names)
        running = options.max_in_flight or 4 * (os.cpu_count() or 1)
        self.limit = ConcurrencyLimit(running, options.max_queued)
        self.pixel_limit = PixelLimit(options.max_pixels_at_work)
        retries = Retries(options.max_num_load_retries, options.load_retry_interval_micros / 1e6)
        self.models = ModelManager(
            Versions(self._load, retries),
            options.file_system_poll_wait_seconds,
            options.allow_version_labels_for_unavailable_models,
        )
        self._batching = batching_parameters(options)
        self._batches: Scheduler | None = None
        self.app = RestApp(self.models, self.limit, self.metrics, options)
        self._rest_server = RestServer(self.app, options, on_fault)
        self.service = GrpcService(self.models, self.limit, self.metrics)
        # gRPC closes new connections when there are too many: it may have what REST and the files
        # of models leave.
        most = options.max_connections
        self.grpc_server = GrpcServer(
            self.service, options, connections=max(open_files() - most - _SPARE_FILES, most)
        )

    @property
    def port(self) -> int | None:
        """The port of gRPC; None where it does not listen, 0 until it is known."""
        return self.ports.grpc.number

    @property
    def rest_api_port(self) -> int | None:
        """The port of REST, likewise."""
        return self.ports.rest.number

    def start(self) -> "Server":
        """Take the ports, load the models, then listen."""
        self.ports.hold()
        if self._batching is not None:
            self._batches = Scheduler(self._batching.num_batch_threads)
        try:
            self.models.start(self._configs, self.options.wait_for_versions)
            if self.rest_api_port is not None:
                self._rest_server.listen(self.ports.rest)
            if self.port is not None:
                self.grpc_server.listen(self.ports.grpc)
        except BaseException:
            self.stop(grace=0)
            raise
        lasting("memory", partial(self._watch_memory, self._stopped)).start()
        self.started = True
        return self

    def _watch_memory(self, stopped: threading.Event) -> None:
        """Return freed memory to the system, also of requests that no handler has seen."""
        growth = Growth()
        while not stopped.wait(_MEMORY_SECONDS):
            if not self.limit.admitted:
                growth.look()

    def stop(self, grace: float = 30.0) -> bool:
        """Refuse new requests, finish those under way within ``grace`` seconds, unload everything.

        Gives whether all has ended: a load or a warm-up that is under way is given up, and its
        thread ends later.
        """
        end = time.monotonic() + grace
        self._stopped.set()
        self._stopped = threading.Event()  # for the next start
        self.grpc_server.drain()
        self._rest_server.drain()
        listens = self.started and (self.port, self.rest_api_port) != (None, None)
        quiet = time.monotonic() + (_DRAIN_SECONDS if listens else 0.0)
        while time.monotonic() < min(end, quiet) or (
            (self.limit.admitted or len(self.app.arrivals)) and time.monotonic() < end
        ):
            time.sleep(0.01)
        done = self.grpc_server.stop(_DRAIN_SECONDS)
        self._rest_server.stop(_DRAIN_SECONDS)
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
    ) -> Response:
        """Answer a REST request without a socket. ``target`` is the raw path and query."""
        lowered = {name.lower(): value for name, value in (headers or {}).items()}
        return self.app.answer(method, target, lowered, body)

    def call(self, path: str, request: Message, timeout: float | None = None) -> Message:
        """Answer a call such as "/tensorflow.serving.PredictionService/Predict" without a socket.

        ``timeout`` is in seconds. Raises StatusError.
        """
        return CALLS[path].run(self.service, request, CallContext(Deadline(timeout)))

    def _load(self, path: str) -> Servable:
        options = self.options
        servable = load(path, tuple(options.saved_model_tags.split(",")), session_config(options))
        try:
            if self._batches is not None and self._batching is not None:
                per_model = options.enable_per_model_batching_parameters
                servable = batched(servable, self._batches, self._batching, per_model)
            servable.pixel_limit = self.pixel_limit
            if options.enable_model_warmup:
                self._warm_up(servable)
        except BaseException:
            servable.close()
            raise
        return servable

    def _warm_up(self, servable: Servable) -> None:
        """Run the version's warm-up records; with the flag, at the start, most of them later.

        The first one of the default signature is run at once. A version that replaces another one
        is always warmed up whole before it does.
        """
        iterations = self.options.num_request_iterations_for_warmup or 1
        in_background = self.options.background_warmup and not self.started
        warmup = warm_up(servable, iterations, in_background)
        give_back_freed_memory()
        if warmup is None:
            return
        self.metrics.warmed(servable.path, warmup.records, warmup.seconds)

        def others(stopped: Callable[[], bool]) -> None:
            step_back()
            later = warm_up_others(servable, iterations, stopped)
            self.metrics.warmed(servable.path, later.records, later.seconds)
            give_back_freed_memory()

        if warmup.left:
            servable.afterwards = others


def session_config(options: Options) -> ConfigProto:
    """How TensorFlow runs a model.

    Its optimizer works on each function when it is first called, as the call says, and not on the
    whole graph before. The whole graph would be optimized under a lock that every request takes:
    measured, requests waited up to 23 s while other signatures were warmed up; now it is 0.8 s, or
    4 on a busier machine. Later requests take the same time.
    """
    config = ConfigProto(
        intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism,
    )
    config.graph_options.rewrite_options.disable_meta_optimizer = True
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


def served_models(models: ModelPaths | list[ServedModel]) -> list[ServedModel]:
    """Configs of models given as name -> base path."""
    if isinstance(models, Mapping):
        paths = {name: os.fspath(path) for name, path in models.items()}
        models = [
            ServedModel(name, path if "://" in path else os.path.abspath(path))
            for name, path in paths.items()
        ]
    if not models:
        raise InputError(
            "No model to serve: give at least one, e.g. {'groupvit': 'models/groupvit'}."
        )
    for model in models:
        check_model(model.name, model.base_path)
    return list(models)
