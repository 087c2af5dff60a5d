"""What a server says of its model, as JSON from either wire, in; versions and signatures out."""

from typing import Any

from tf_groupvit.errors import one_line
from tf_groupvit.wires.asks import CODES, SIDES, Ask
from tf_groupvit.wires.dtypes import NAME_OF

STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


def versions_of(_: Ask, body: dict[str, Any]) -> list[dict[str, Any]]:
    """GetModelStatusResponse as JSON, from either wire: with numbers or names, defaults written or
    left out.
    """
    return [{
        "version": int(entry.get("version", 0)),
        "state": _named(entry.get("state", 0), STATES),
        "error_code": _named(entry.get("status", {}).get("error_code", 0), dict(enumerate(CODES))),
        "error_message": one_line(entry.get("status", {}).get("error_message", "")),
    } for entry in body["model_version_status"]]  # fmt: skip


def _named(value: int | str, names: dict[int, str]) -> str:
    """The name of a number, which REST writes as a name; a number or a name that is none is
    UNKNOWN.
    """
    found = names.get(value) if isinstance(value, int) else value
    return found if isinstance(found, str) and found in names.values() else "UNKNOWN"


def signatures_of(_: Ask, body: dict[str, Any]) -> dict[str, Any]:
    """GetModelMetadataResponse as JSON, from either wire."""
    signatures = body["metadata"]["signature_def"]["signature_def"]
    return {
        "name": one_line(body["model_spec"].get("name", "")),
        "version": int(body["model_spec"].get("version", 0)),
        "signatures": {
            name: {
                side: {key: _declared(info) for key, info in entry.get(side, {}).items()}
                for side in SIDES
            }
            for name, entry in signatures.items()
            if name != "__saved_model_init_op"  # listed by the server, not for clients
        },
    }


def _declared(info: dict[str, Any]) -> dict[str, Any]:
    dtype, shape = info.get("dtype", 0), info.get("tensor_shape", {})
    sizes = (
        None
        if shape.get("unknown_rank")
        else [int(dim.get("size", 0)) for dim in shape.get("dim", [])]
    )
    return {
        "dtype": one_line(dtype, 40)
        if isinstance(dtype, str)
        else NAME_OF.get(dtype, f"DT_{dtype}"),
        "shape": sizes,
    }
