"""What a client can want of a server, and the words that both wires share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from tf_groupvit.errors import InputError, RequestError, one_line

# Canonical status names in the order of their numbers (google/rpc/code.proto), and those of HTTP
# statuses.
CODES = """OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED
    RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS
    UNAUTHENTICATED""".split()
SIDES = ("inputs", "outputs")
SLOW = "allow it more with timeout=, or warm the model up."
GONE = (
    "is the server running, is it this host and port, and is it REST (http://) or gRPC (grpc://)?"
)
ModelSpec = tuple[str, int | str | None]  # name, and version number or label


@dataclass(frozen=True)
class Ask:
    """What is wanted of a server: ``verb`` is predict, status or metadata."""

    verb: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    signature: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)  # dtypes by name, as in the signature
    rows: bool = False  # in REST: an object for each row, not an array for each input
    optional: tuple[str, ...] = ()  # those of the outputs that not every export has


class NotReachedError(RequestError):
    """Nothing listens at the address (yet): the connection was refused."""


def too_large(most: int) -> RequestError:
    return RequestError(
        "OUT_OF_RANGE",
        f"The answer has more than {most:,} bytes: ask for less, or allow more with"
        " max_answer_bytes=.",
    )


def not_ours(
    address: str, came: str, error: Exception | None = None, code: str = "UNKNOWN"
) -> RequestError:
    """The error for an answer that no server of this kind gives."""
    reason = f" ({one_line(f'{type(error).__name__}: {error}', 100)})" if error else ""
    return RequestError(
        code,
        f"{address} does not answer as TensorFlow Serving does, but {came}: check address and"
        f" port.{reason}",
    )


def needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module.split('.')[0]} is not installed: pip install tf-groupvit[serve] brings it."
        ) from error
