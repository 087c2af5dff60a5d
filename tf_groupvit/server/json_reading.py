"""REST bodies of predict, classify and regress: JSON bytes in; the signature's name and the inputs
out.

The order of checks and every message are those of the contract, section 3. Classify and regress are
answered for signatures made for them only; GroupViT's are not, and the refusal must come in the
right order: first the body, then the model, then the signature (section 14). So their examples are
checked and counted, no more.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tf_groupvit.server.json_filling import Arrays, Filling, Types, unescape
from tf_groupvit.server.json_numbers import TooBig, as_stored
from tf_groupvit.server.json_scanning import UNREAD, parse, scan
from tf_groupvit.server.json_values import (
    Doubt,
    careful_echo,
    find,
    has,
    is_base64,
    is_object,
    kind,
    members,
)
from tf_groupvit.server.status import StatusError, invalid

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
            f"JSON Value: {careful_echo(value)} not formatted correctly. 'signature_name' key must"
            " be a string value."
        )
    return name


def read_predict(
    body: bytes, types_of: Callable[[str], Types], scans: bool = True
) -> tuple[str, str, Arrays]:
    """Format, signature name and input arrays of a predict body.

    ``types_of`` gives the inputs of a signature by name ("" is the default one) and raises StatusError
    where the model or the signature is unknown. Raises StatusError, and Slow as `read`.
    """
    return read(body, lambda value, filling: _predict(top_level(value), types_of, filling), scans)


class Slow(Exception):  # noqa: N818 - the body is to be read elsewhere
    """Only the scanner can read the body."""


def read(body: bytes, reader: Callable[[Any, Filling], Any], scans: bool = True) -> Any:
    """What ``reader`` makes of the body's value; a second time, from the scanner, where the fast
    parser left doubt.

    Raises StatusError, and Slow where the scanner is needed and may not be used.
    """
    value = parse(body)
    if value is UNREAD:
        return _scanned(body, reader, scans)
    try:
        return reader(value, Filling(exact=False))
    except (Doubt, TooBig):
        pass
    except StatusError as refusal:
        if not _FLOAT.search(refusal.text):
            raise
    return _scanned(
        body, reader, scans
    )  # also for an echo whose doubles may differ in the last digit


def _scanned(body: bytes, reader: Callable[[Any, Filling], Any], scans: bool) -> Any:
    if not scans:
        raise Slow
    return reader(scan(body), Filling(exact=True))


@dataclass(frozen=True)
class Signatures:
    """The types of inputs by signature, of a version or of what there is in its place."""

    types: dict[str, Types]
    default: str
    unknown: tuple[str, str] | None = (
        None  # code and text of what is said where there is no version
    )

    def __call__(self, name: str) -> Types:
        if self.unknown is not None:
            raise StatusError(*self.unknown)
        if (name or self.default) not in self.types:
            raise no_signature(name or self.default)
        return self.types[name or self.default]


def no_signature(name: str) -> StatusError:
    """The refusal of a signature that a version has not; worded otherwise than by gRPC."""
    return invalid(f'Serving signature name: "{name}" not found in signature def')


def _predict(
    value: Any, types_of: Callable[[str], Types], filling: Filling
) -> tuple[str, str, Arrays]:
    signature = signature_of(value)
    types = types_of(signature)
    if not types:
        raise invalid(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    return _tensors(value, types, signature, filling)


def _tensors(value: Any, types: Types, signature: str, filling: Filling) -> tuple[str, str, Arrays]:
    if has(value, "instances"):
        if has(value, "inputs"):
            raise invalid(
                f"JSON Value: {careful_echo(value)} Not formatted correctly expecting only one of"
                " 'inputs' or 'instances' keys to exist "
            )
        instances = find(value, "instances")
        if not isinstance(instances, list):
            raise invalid(
                f"JSON Value: {careful_echo(value)} Expecting 'instances' to be an list/array"
            )
        if not instances:
            raise invalid(f"JSON Value: {careful_echo(value)} No values in 'instances' array")
        return ROW, signature, filling.rows(instances, types)
    if has(value, "inputs"):
        return COLUMNAR, signature, filling.columns(find(value, "inputs"), types)
    raise invalid("Missing 'inputs' or 'instances' key")


def read_examples(body: bytes, scans: bool = True) -> tuple[str, int]:
    """The signature's name and how many examples the body holds. Raises StatusError, and Slow as
    `read`.
    """
    return read(body, _examples, scans)


def _examples(value: Any, filling: Filling) -> tuple[str, int]:
    signature = signature_of(top_level(value))
    if has(value, "context"):
        _check_example(find(value, "context"))
    if not has(value, "examples"):
        raise invalid(
            f"JSON Value: {careful_echo(value)} When method is classify, key 'examples' is expected"
            " and was not found"
        )
    examples = find(value, "examples")
    if not isinstance(examples, list):
        raise invalid(
            f"JSON Value: {careful_echo(value)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid(f"JSON Value: {careful_echo(value)} 'examples' value is an empty array")
    for example in examples:
        _check_example(example)
    return signature, len(examples)


def _check_example(example: Any) -> None:
    if not is_object(example):
        raise invalid(f"Example must be JSON object but got JSON {kind(example)}")
    for name, content in members(example):
        held = ""
        for value in content if isinstance(content, list) else [content]:
            found = _feature_kind(name, value)
            if held not in ("", found):
                raise invalid(f"Unexpected element type in feature: {name} expecting type: {held}")
            held = found


def _feature_kind(name: str, value: Any) -> str:
    """What an element makes its feature a list of."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = as_stored(value)
    if value is None or isinstance(value, list) or (is_object(value) and not is_base64(value)):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {kind(value)}")
    if is_object(value):
        unescape(value["b64"])
    if not isinstance(value, int | float):
        return "bytes"
    if isinstance(value, int) and value >= 2**63:
        raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    return "float" if isinstance(value, float) else "int64"
