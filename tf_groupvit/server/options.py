"""The options of a server, as the flags of ``tf-groupvit serve`` set them."""

import math
from dataclasses import dataclass

from tf_groupvit.errors import InputError

# The least that each takes. A limit below it would be none at all, or refuse every request.
_LEAST = {
    "max_num_load_retries": 0,
    "load_retry_interval_micros": 0,
    "num_request_iterations_for_warmup": 0,
    "tensorflow_intra_op_parallelism": 0,
    "tensorflow_inter_op_parallelism": -1,  # no threads but those of the requests
    "max_in_flight": 0,
    "max_queued": 0,
    "max_pixels_at_work": 0,
    "max_request_bytes": 1,
    "max_json_tokens": 1,
    "max_receiving": 1,
    "max_receiving_bytes": 1,
    "max_connections": 1,
    "receive_timeout_seconds": 0.001,
    "shutdown_grace_seconds": 0,
}
# The most, by the name or its last word: longer cannot be waited for, threads must be made, and
# gRPC's own numbers have 32 bits, of which milliseconds are some.
_MOST = {
    "max_request_bytes": 2**31 - 1,
    "max_connections": 2**30,
    "receive_timeout_seconds": 10**6,
    "seconds": 10**9,
    "micros": 10**15,
    "ms": 10**12,
    "parallelism": 4096,
}


@dataclass(frozen=True)
class Options:
    """Names and defaults are the real server's where it has them.

    Raises InputError for a number that is too small, too large, or not finite.
    """

    file_system_poll_wait_seconds: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    wait_for_versions: bool = False
    saved_model_tags: str = "serve"
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0  # 0: once
    background_warmup: bool = False  # at the start, of all but the default signature's first record
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    rest_api_timeout_in_ms: int = 30_000  # 0: none
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
    max_receiving: int = 256  # requests, of each front end
    max_receiving_bytes: int = 2**30
    max_connections: int = 1000
    receive_timeout_seconds: float = 60.0
    shutdown_grace_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            flag, least = f"--{name.replace('_', '-')}", _LEAST.get(name)
            most = _MOST.get(name, _MOST.get(name.rpartition("_")[2], 2**62))
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{flag} is {value}: expected a finite number.")
            if least is not None and value < least:
                raise InputError(f"{flag} is {value}: expected a number from {least}.")
            if isinstance(value, int | float) and value > most:
                raise InputError(f"{flag} is {value}: expected a number up to {most:,}.")
