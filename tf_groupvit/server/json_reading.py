"""REST predict bodies: JSON bytes in; the format asked for, the signature's name and one array per input out.

The order of checks and every message are those of the contract, section 3.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tf_groupvit.server.json_filling import Arrays, Filling, Types
from tf_groupvit.server.json_members import Doubt, careful_echo, find, has, is_object
from tf_groupvit.server.json_numbers import TooBig
from tf_groupvit.server.json_scanning import UNREAD, parse, scan
from tf_groupvit.server.refusal import Refusal, invalid

ROW, COLUMNAR = "row", "columnar"
_FLOAT = re.compile(r"[0-9][.eE]")


def top_level(value: Any) -> Any:
    if not is_object(value):
        raise invalid(f"JSON Value: {careful_echo(value)} Is not object")
    return value


def signature_of(value: Any) -> str:
    """The ``signature_name`` of a body, "" where it has none."""
    if not has(value, "signature_name"):
        return ""
    name = find(value, "signature_name")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {careful_echo(value)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_predict(body: bytes, types_of: Callable[[str], Types], scans: bool = True) -> tuple[str, str, Arrays]:
    """Format, signature name and input arrays of a predict body.

    ``types_of`` gives the inputs of a signature by name ("" is the default one) and raises Refusal where the model or
    the signature is unknown. Raises Refusal, and Slow as `read`.
    """
    return read(body, lambda value, filling: _predict(top_level(value), types_of, filling), scans)


class Slow(Exception):  # noqa: N818 - the body is to be read elsewhere
    """Only the scanner can read the body."""


def read(body: bytes, reader: Callable[[Any, Filling], Any], scans: bool = True) -> Any:
    """What ``reader`` makes of the body's value; a second time, from the scanner, where the fast parser left doubt.

    Raises Refusal, and Slow where the scanner is needed and may not be used.
    """
    value = parse(body)
    if value is UNREAD:
        return _scanned(body, reader, scans)
    try:
        return reader(value, Filling(exact=False))
    except (Doubt, TooBig):
        pass
    except Refusal as refusal:
        if not _FLOAT.search(refusal.text):
            raise
    return _scanned(body, reader, scans)  # also for an echo whose doubles may differ in the last digit


def _scanned(body: bytes, reader: Callable[[Any, Filling], Any], scans: bool) -> Any:
    if not scans:
        raise Slow
    return reader(scan(body), Filling(exact=True))


@dataclass(frozen=True)
class Signatures:
    """The types of inputs by signature, of a version or of what there is in its place."""

    types: dict[str, Types]
    default: str
    unknown: tuple[str, str] | None = None  # code and text of what is said where there is no version

    def __call__(self, name: str) -> Types:
        if self.unknown is not None:
            raise Refusal(*self.unknown)
        if (name or self.default) not in self.types:
            raise no_signature(name or self.default)
        return self.types[name or self.default]


def no_signature(name: str) -> Refusal:
    """The refusal of a signature that a version has not; worded otherwise than by gRPC."""
    return invalid(f'Serving signature name: "{name}" not found in signature def')


def _predict(value: Any, types_of: Callable[[str], Types], filling: Filling) -> tuple[str, str, Arrays]:
    signature = signature_of(value)
    types = types_of(signature)
    if not types:
        raise invalid(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    return _tensors(value, types, signature, filling)


def _tensors(value: Any, types: Types, signature: str, filling: Filling) -> tuple[str, str, Arrays]:
    if has(value, "instances"):
        if has(value, "inputs"):
            raise invalid(
                f"JSON Value: {careful_echo(value)} Not formatted correctly expecting only one of 'inputs' or "
                "'instances' keys to exist "
            )
        instances = find(value, "instances")
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {careful_echo(value)} Expecting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {careful_echo(value)} No values in 'instances' array")
        return ROW, signature, filling.rows(instances, types)
    if has(value, "inputs"):
        return COLUMNAR, signature, filling.columns(find(value, "inputs"), types)
    raise invalid("Missing 'inputs' or 'instances' key")
