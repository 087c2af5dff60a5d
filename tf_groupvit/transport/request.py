"""Requests that a client can make, and what both transports share to read a server's answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tf_groupvit.errors import InputError, RequestError, one_line
from tf_groupvit.transport.messages import NAME_OF
from tf_groupvit.transport.status_codes import CODES

if TYPE_CHECKING:
    import numpy as np

STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
SIDES = ("inputs", "outputs")
ModelSpec = tuple[str, int | str | None]  # name, and version number or label
Inputs = Mapping[str, "np.ndarray | list[str] | list[bytes]"]  # by the names of the signature


@dataclass(frozen=True)
class Request:
    """A request to a server: ``verb`` is predict, status or metadata."""

    verb: str
    inputs: Inputs = field(default_factory=dict)
    signature: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)  # dtypes by name, as in the signature
    rows: bool = False  # in REST: an object for each row, not an array for each input
    optional: tuple[str, ...] = ()  # outputs that not every export has


class NotReachedError(RequestError):
    """Nothing listens at the address (yet): the connection was refused."""


def too_large(most: int) -> RequestError:
    """The error for an answer of more than ``most`` bytes."""
    return RequestError(
        "OUT_OF_RANGE",
        f"The answer has more than {most:,} bytes: ask for less, or allow more with"
        " max_answer_bytes=.",
    )


def not_reached(address: str, reason: str, refused: bool) -> RequestError:
    """The error for an address where no connection can be made."""
    kind = NotReachedError if refused else RequestError
    return kind(
        "UNAVAILABLE",
        f"{address} cannot be reached ({reason}): is the server running, is it this host and port,"
        " and is it REST (http://) or gRPC (grpc://)?",
    )


def timed_out(address: str, reason: str) -> RequestError:
    """The error for an answer that is too late."""
    return RequestError(
        "DEADLINE_EXCEEDED",
        f"{address} did not answer in time ({reason}): allow it more with timeout=, or warm the"
        " model up.",
    )


def unexpected_answer(
    address: str, received: str, error: Exception | None = None, code: str = "UNKNOWN"
) -> RequestError:
    """The error for an answer that TensorFlow Serving does not give."""
    reason = f" ({one_line(f'{type(error).__name__}: {error}', 100)})" if error else ""
    return RequestError(
        code,
        f"{address} does not answer as TensorFlow Serving does, but {received}: check address and"
        f" port.{reason}",
    )


def import_extra(module: str) -> Any:
    """A module that the extra ``serve`` brings. Raises InputError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module.split('.')[0]} is not installed: pip install tf-groupvit[serve] brings it."
        ) from error


# Answers to status and metadata requests, as JSON from either transport: with numbers or names,
# defaults written or left out.


def model_versions(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The versions in a GetModelStatusResponse: version, state, error_code, error_message."""
    return [{
        "version": int(entry.get("version", 0)),
        "state": _name(entry.get("state", 0), STATES),
        "error_code": _name(entry.get("status", {}).get("error_code", 0), dict(enumerate(CODES))),
        "error_message": _text(entry.get("status", {}).get("error_message", "")),
    } for entry in body["model_version_status"]]  # fmt: skip


def _text(value: object) -> str:
    """A server's text on one line. Raises TypeError for what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return one_line(value)


def _name(value: int | str, names: dict[int, str]) -> str:
    """The name of a number, which REST writes as a name; UNKNOWN for what the table lacks."""
    found = names.get(value) if isinstance(value, int) else value
    return found if isinstance(found, str) and found in names.values() else "UNKNOWN"


def model_metadata(body: dict[str, Any]) -> dict[str, Any]:
    """Name, version and signatures of a model, from a GetModelMetadataResponse."""
    spec = _part(body, "model_spec")
    signatures = _part(body["metadata"]["signature_def"], "signature_def")
    return {
        "name": _text(spec.get("name", "")),
        "version": int(spec.get("version", 0)),
        "signatures": {
            name: {
                side: {key: _tensor_info(info) for key, info in entry.get(side, {}).items()}
                for side in SIDES
            }
            for name, entry in signatures.items()
            if name != "__saved_model_init_op"  # listed by the server, not for clients
        },
    }


def _part(message: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a message. Other servers, such as OpenVINO's, write signatureDef for signature_def,
    as protobuf does unless told otherwise. Raises KeyError where it is not there.
    """
    first, *others = name.split("_")
    written = first + "".join(map(str.capitalize, others))
    found: dict[str, Any] = message[written if written in message else name]
    return found


def _tensor_info(info: dict[str, Any]) -> dict[str, Any]:
    """dtype and shape of an input or output; the shape is None where the rank is unknown."""
    dtype, shape = info.get("dtype", 0), _part({"tensor_shape": {}, **info}, "tensor_shape")
    named = isinstance(dtype, str)
    sizes = [int(dim.get("size", 0)) for dim in shape.get("dim", [])]
    return {
        "dtype": one_line(dtype, 40) if named else NAME_OF.get(dtype, f"DT_{dtype}"),
        "shape": None if shape.get("unknown_rank") or shape.get("unknownRank") else sizes,
    }
