"""Configuration files of the real server: text protos in; messages, a list of models, parameters of
batching out.

`--model-config-file` is a ModelServerConfig, which the API package brings. The SSL, monitoring and
batching configs are not in it (contract, section 14): their few fields are written down here and
become messages in a descriptor pool of our own. Parameters of batching are in one file for all
models, `--batching-parameters-file`, or in one beside each graph, with
`--enable-per-model-batching-parameters` (section 10).
"""

import os
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from tf_groupvit.errors import ConfigError, InputError
from tf_groupvit.server.status import StatusError, invalid, loggable

# message: fields in the order of their numbers; a type that is a name of this table is that message
MESSAGES = {
    "SSLConfig": {"server_key": "string", "server_cert": "string", "custom_ca": "string", "client_verify": "bool"},
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
    "Int64Value": {"value": "int64"},
    "BoolValue": {"value": "bool"},
    "StringValue": {"value": "string"},
    "BatchingParameters": {
        "max_batch_size": "Int64Value", "batch_timeout_micros": "Int64Value", "max_enqueued_batches": "Int64Value",
        "num_batch_threads": "Int64Value", "thread_pool_name": "StringValue", "allowed_batch_sizes": "repeated int64",
        "pad_variable_length_inputs": "bool", "enable_large_batch_splitting": "BoolValue",
        "max_execution_batch_size": "Int64Value",
    },
}  # fmt: skip
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
PLATFORM = "tensorflow"
PER_MODEL = "batching_params.pbtxt"  # beside a graph


@dataclass(frozen=True)
class Policy:
    """Which versions to serve: the latest few, all, or those named."""

    latest: int = 1
    all: bool = False
    specific: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Model:
    name: str
    base_path: str
    policy: Policy = Policy()
    labels: dict[str, int] = field(default_factory=dict)
    platform: str = PLATFORM


def check_model(name: str, base_path: str) -> None:
    """Raises InputError for a name that no request can give, and a path that TensorFlow cannot
    open.
    """
    if not name:
        raise InputError("The name of a model is empty: requests could not name it.")
    for what, text in (("The name of the model", name), ("The base path", base_path)):
        if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{what}, {loggable(text)}, is not UTF-8: give it another one.")


@cache
def message(name: str) -> Any:
    """The class of a message of the table."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(
        name="tf_groupvit_server.proto", package="tf_groupvit", syntax="proto3"
    )
    for message_name, fields in MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for number, (field_name, type_) in enumerate(fields.items(), start=1):
            _describe(described.field.add(name=field_name, number=number, label=1), type_)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tf_groupvit.{name}"))


def _describe(described: Any, type_: str) -> None:
    if type_ in MESSAGES:
        described.type, described.type_name = described.TYPE_MESSAGE, f".tf_groupvit.{type_}"
        return
    if type_.startswith("repeated "):
        described.label = described.LABEL_REPEATED
    types = {
        "bool": described.TYPE_BOOL,
        "int64": described.TYPE_INT64,
        "string": described.TYPE_STRING,
    }
    described.type = types[type_.removeprefix("repeated ")]


def read_config(file: str | os.PathLike[str], empty: Any) -> Any:
    """Fill a message from a text proto. Raises ConfigError in one line."""
    kind = type(empty).DESCRIPTOR.name
    try:
        return text_format.Parse(Path(file).read_text(encoding="utf-8"), empty)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as a {kind} text proto: {error}.") from error
    except text_format.ParseError as error:
        raise ConfigError(f"{file} is no {kind} text proto: line:column {error}") from error


def read_models(file: str | os.PathLike[str]) -> list[Model]:
    """The models of a --model-config-file. Raises ConfigError."""
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = read_config(file, ModelServerConfig())
    if config.WhichOneof("config") != "model_config_list":
        raise ConfigError(
            f"{file} lists no models: expected model_config_list {{ config {{ name: ... }} }}."
        )
    try:
        return models_of(config.model_config_list)
    except StatusError as refusal:
        raise ConfigError(f"{file}: {refusal.text}") from None


def models_of(config_list: Any, current: Iterable[Model] = ()) -> list[Model]:
    """The models of a ModelConfigList, checked as the server checks them. Raises StatusError."""
    _check_names_and_paths(config_list.config)
    platforms = {model.name: model.platform for model in current}
    wanted = {config.name: _platform(config) for config in config_list.config}
    for name, platform in wanted.items():
        if platforms.get(name, platform) != platform:
            raise invalid(
                f"Illegal to change a model's platform. For model {name} platform was"
                f" {platforms[name]} and new platform requested is {platform}"
            )
    for name, platform in wanted.items():
        if platform != PLATFORM:
            raise invalid(f"Model {name} requests unsupported platform {platform}")
    return [_model(config) for config in config_list.config]


def _check_names_and_paths(configs: Any) -> None:
    seen = set()
    for config in configs:
        if config.name in seen:
            raise invalid(f"Illegal to list model {config.name} multiple times in config list")
        seen.add(config.name)
    for config in configs:
        if not config.base_path.startswith("/") and "://" not in config.base_path:
            raise invalid(
                f"Expected model {config.name} to have an absolute path or URI; got"
                f" base_path()={config.base_path}"
            )


def _platform(config: Any) -> str:
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


def _model(config: Any) -> Model:
    choice = config.model_version_policy.WhichOneof("policy_choice")
    policy = Policy()
    if choice == "latest":
        policy = Policy(latest=max(config.model_version_policy.latest.num_versions, 1))
    elif choice == "all":
        policy = Policy(all=True)
    elif choice == "specific":
        policy = Policy(latest=0, specific=frozenset(config.model_version_policy.specific.versions))
    return Model(config.name, config.base_path, policy, dict(config.version_labels))


def prometheus_path(file: str | os.PathLike[str] | None) -> str | None:
    """The path that a --monitoring-config-file switches on, or None. Raises ConfigError."""
    if file is None:
        return None
    config = read_config(file, message("MonitoringConfig")()).prometheus_config
    return (config.path or PROMETHEUS_PATH) if config.enable else None


@dataclass(frozen=True)
class Parameters:
    """Parameters of batching, by default the real server's. Sizes are rows, that is first
    dimensions of inputs.
    """

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
        return self.enable_large_batch_splitting

    @property
    def batch_rows(self) -> int:
        """The most rows that run at once."""
        return (
            (self.max_execution_batch_size or self.max_batch_size)
            if self.splits
            else self.max_batch_size
        )

    def padded(self, rows: int) -> int:
        """The rows that a batch is padded up to."""
        sizes = self.allowed_batch_sizes
        index = bisect_left(sizes, rows)
        return sizes[index] if index < len(sizes) else rows

    def check(self) -> None:
        """Raises StatusError, which fails the load of a model that is to be batched so."""
        for name, least in (("num_batch_threads", 1), ("max_batch_size", 1), ("batch_timeout_micros", 0),
                            ("max_enqueued_batches", 0)):  # fmt: skip
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
    proto = read_config(file, message("BatchingParameters")())
    given = [(field.name, value) for field, value in proto.ListFields()]
    known = Parameters.__dataclass_fields__
    return Parameters(**{name: _parameter(name, value) for name, value in given if name in known})


def _parameter(name: str, value: Any) -> Any:
    if name == "allowed_batch_sizes":
        return tuple(value)
    return value if isinstance(value, bool) else value.value
