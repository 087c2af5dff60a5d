"""Configuration files of TensorFlow Serving: models, TLS, monitoring and batching, as text protos.

The API package brings ModelServerConfig alone; the few fields of the others are written down here
(contract, section 14). Batching is set in one file for all models, or in one next to each graph
(section 10).
"""

import os
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from tf_groupvit.errors import ConfigError, InputError
from tf_groupvit.server.status import StatusError, invalid, loggable
from tf_groupvit.transport.messages import message_classes

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelConfigList

MESSAGES = """
SSLConfig: 1 string server_key, 2 string server_cert, 3 string custom_ca, 4 bool client_verify
PrometheusConfig: 1 bool enable, 2 string path
MonitoringConfig: 1 PrometheusConfig prometheus_config
Int64Value: 1 int64 value
BoolValue: 1 bool value
StringValue: 1 string value
BatchingParameters: 1 Int64Value max_batch_size, 2 Int64Value batch_timeout_micros,\
 3 Int64Value max_enqueued_batches, 4 Int64Value num_batch_threads, 5 StringValue thread_pool_name,\
 6 int64[] allowed_batch_sizes, 7 bool pad_variable_length_inputs,\
 8 BoolValue enable_large_batch_splitting, 9 Int64Value max_execution_batch_size
"""
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
PLATFORM = "tensorflow"
PER_MODEL = "batching_params.pbtxt"  # next to a graph


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions to serve: the latest few, all, or specific ones."""

    latest: int = 1
    all: bool = False
    specific: frozenset[int] = frozenset()

    def chosen(self, versions: dict[int, str]) -> dict[int, str]:
        """Those of the versions (number -> folder) that are to be served."""
        if self.all:
            return dict(versions)
        if self.specific:
            return {number: path for number, path in versions.items() if number in self.specific}
        newest = sorted(versions, reverse=True)[: self.latest]
        return {number: versions[number] for number in reversed(newest)}


@dataclass(frozen=True)
class ServedModel:
    """The configuration of one model."""

    name: str
    base_path: str
    policy: VersionPolicy = VersionPolicy()
    labels: dict[str, int] = field(default_factory=dict)
    platform: str = PLATFORM


def check_model(name: str, base_path: str) -> None:
    """Raises InputError for an empty name, and where name or path is not UTF-8."""
    if not name:
        raise InputError("The name of a model is empty: requests could not name it.")
    for what, text in (("The name of the model", name), ("The base path", base_path)):
        if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{what}, {loggable(text)}, is not UTF-8: give it another one.")


def read_config(file: str | os.PathLike[str], kind: str | type["Message"]) -> "Message":
    """The message in a text proto: a class, or a name of MESSAGES. Raises ConfigError."""
    message = (message_classes(MESSAGES)[kind] if isinstance(kind, str) else kind)()
    name = message.DESCRIPTOR.name
    try:
        return text_format.Parse(Path(file).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as a {name} text proto: {error}.") from error
    except text_format.ParseError as error:
        raise ConfigError(f"{file} is no {name} text proto: line:column {error}") from error


def read_models(file: str | os.PathLike[str]) -> list[ServedModel]:
    """The models of a --model-config-file. Raises ConfigError."""
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = read_config(file, ModelServerConfig)
    if config.WhichOneof("config") != "model_config_list":
        raise ConfigError(
            f"{file} lists no models: expected model_config_list {{ config {{ name: ... }} }}."
        )
    try:
        return models_of(config.model_config_list)
    except StatusError as error:
        raise ConfigError(f"{file}: {error.text}") from None


def models_of(
    config_list: "ModelConfigList", current: Iterable[ServedModel] = ()
) -> list[ServedModel]:
    """The models of a ModelConfigList, checked as the server checks them. Raises StatusError."""
    configs, names = config_list.config, set()
    for config in configs:
        if config.name in names:
            raise invalid(f"Illegal to list model {config.name} multiple times in config list")
        names.add(config.name)
    for config in configs:
        if not config.base_path.startswith("/") and "://" not in config.base_path:
            raise invalid(
                f"Expected model {config.name} to have an absolute path or URI; got"
                f" base_path()={config.base_path}"
            )
    platforms = {model.name: model.platform for model in current}
    wanted = {config.name: _platform(config) for config in configs}
    for name, platform in wanted.items():
        if platforms.get(name, platform) != platform:
            raise invalid(
                f"Illegal to change a model's platform. For model {name} platform was"
                f" {platforms[name]} and new platform requested is {platform}"
            )
    for name, platform in wanted.items():
        if platform != PLATFORM:
            raise invalid(f"Model {name} requests unsupported platform {platform}")
    return [
        ServedModel(config.name, config.base_path, _policy(config), dict(config.version_labels))
        for config in configs
    ]


def _platform(config: "ModelConfig") -> str:
    """The platform, also by the deprecated ``model_type``."""
    if config.model_type:
        if config.model_platform:
            raise invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and"
                " ModelServerConfig::model_platform."
            )
        if config.model_type != 1:  # TENSORFLOW
            raise invalid(
                f"ModelServerConfig::model_type choice {config.model_type} not supported."
            )
        return PLATFORM
    if not config.model_platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {config.name}"
        )
    return config.model_platform


def _policy(config: "ModelConfig") -> VersionPolicy:
    policy = config.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(all=True)
    if choice == "specific":
        return VersionPolicy(latest=0, specific=frozenset(policy.specific.versions))
    return VersionPolicy(latest=max(policy.latest.num_versions, 1))


def prometheus_path(file: str | os.PathLike[str] | None) -> str | None:
    """The path that a --monitoring-config-file turns on, or None. Raises ConfigError."""
    if file is None:
        return None
    config = read_config(file, "MonitoringConfig").prometheus_config
    return (config.path or PROMETHEUS_PATH) if config.enable else None


@dataclass(frozen=True)
class Parameters:
    """Parameters of batching, by default the real server's; sizes count rows of inputs."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0  # with splitting; 0: as max_batch_size

    @property
    def splits(self) -> bool:
        """Whether requests of more rows than a batch holds are split."""
        return self.enable_large_batch_splitting

    @property
    def batch_rows(self) -> int:
        """The most rows that run at once."""
        return (self.splits and self.max_execution_batch_size) or self.max_batch_size

    def padded(self, rows: int) -> int:
        """The rows that a batch is padded up to."""
        sizes = self.allowed_batch_sizes
        index = bisect_left(sizes, rows)
        return sizes[index] if index < len(sizes) else rows

    def check(self) -> None:
        """Raises StatusError, which fails the load of a model."""
        least_of = {"num_batch_threads": 1, "max_batch_size": 1}
        least_of |= {"batch_timeout_micros": 0, "max_enqueued_batches": 0}
        for name, least in least_of.items():
            value = getattr(self, name)
            if value < least:
                raise invalid(
                    f"{name} must be {'positive' if least else 'non-negative'}; was {value}"
                )
        if self.splits and self.batch_rows > self.max_batch_size:
            raise invalid(
                f"max_execution_batch_size must be at most max_batch_size; was {self.batch_rows}"
                f" with {self.max_batch_size}"
            )
        sizes = self.allowed_batch_sizes
        if any(later <= size for size, later in pairwise(sizes)):
            raise invalid("allowed_batch_sizes entries must be monotonically increasing")
        if sizes and sizes[-1] != self.batch_rows:
            limit = (
                "be equal to max_execution_batch_size" if self.splits else "match max_batch_size"
            )
            raise invalid(
                f"Last entry in allowed_batch_sizes must {limit}; last entry was {sizes[-1]};"
                f" expected {self.batch_rows}"
            )


def read_parameters(file: str | os.PathLike[str] | None) -> Parameters:
    """The parameters of batching in a file, or the defaults. Raises ConfigError."""
    if file is None:
        return Parameters()
    given: dict[str, Any] = {}
    for described, value in read_config(file, "BatchingParameters").ListFields():
        if described.name == "allowed_batch_sizes":
            given[described.name] = tuple(value)
        elif described.name in Parameters.__dataclass_fields__:
            given[described.name] = value if isinstance(value, bool) else value.value
    return Parameters(**given)
