"""Batching parameters: a BatchingParameters text proto in; checked numbers, with the real server's defaults, out.

One file for all models, `--batching-parameters-file`, or one beside each graph, `batching_params.pbtxt`, with
`--enable-per-model-batching-parameters` (contract, section 10).
"""

import os
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tf_groupvit.server.config import message, read_config
from tf_groupvit.server.refusal import invalid

PER_MODEL = "batching_params.pbtxt"


@dataclass(frozen=True)
class Parameters:
    """Sizes are rows, that is first dimensions of inputs."""

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
        return (self.max_execution_batch_size or self.max_batch_size) if self.splits else self.max_batch_size

    def padded(self, rows: int) -> int:
        """The rows that a batch is padded up to."""
        sizes = self.allowed_batch_sizes
        index = bisect_left(sizes, rows)
        return sizes[index] if index < len(sizes) else rows

    def check(self) -> None:
        """Raises Refusal, which fails the load of a model that is to be batched so."""
        for name, least in (("num_batch_threads", 1), ("max_batch_size", 1), ("batch_timeout_micros", 0),
                            ("max_enqueued_batches", 0)):  # fmt: skip
            value = getattr(self, name)
            if value < least:
                raise invalid(f"{name} must be {'positive' if least else 'non-negative'}; was {value}")
        if self.splits and self.batch_rows > self.max_batch_size:
            raise invalid(
                f"max_execution_batch_size must be at most max_batch_size; was {self.batch_rows} with "
                f"{self.max_batch_size}"
            )
        sizes = self.allowed_batch_sizes
        if any(later <= size for size, later in pairwise(sizes)):
            raise invalid("allowed_batch_sizes entries must be monotonically increasing")
        if sizes and sizes[-1] != self.batch_rows:
            limit = "be equal to max_execution_batch_size" if self.splits else "match max_batch_size"
            raise invalid(
                f"Last entry in allowed_batch_sizes must {limit}; last entry was {sizes[-1]}; expected "
                f"{self.batch_rows}"
            )


def read_parameters(file: str | os.PathLike[str] | None) -> Parameters:
    """The parameters of a file, or the defaults. Raises ConfigError."""
    if file is None:
        return Parameters()
    proto = read_config(file, message("BatchingParameters")())
    return Parameters(**{name: _value(proto, name) for name in _given(proto)})


def _given(proto: Any) -> list[str]:
    known = Parameters.__dataclass_fields__
    return [field.name for field, _ in proto.ListFields() if field.name in known]


def _value(proto: Any, name: str) -> Any:
    value = getattr(proto, name)
    if name == "allowed_batch_sizes":
        return tuple(value)
    return value if isinstance(value, bool) else value.value
