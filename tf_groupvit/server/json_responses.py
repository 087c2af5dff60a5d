"""Write REST answers: output arrays, errors and protobuf messages as TensorFlow Serving's JSON.

Predict's row form keeps each instance on one line; columnar form puts one number on a line
(contract, section 5).
"""

import base64
from collections.abc import Callable
from math import prod

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message

from tf_groupvit.server.json_parsing import quoted
from tf_groupvit.server.json_requests import COLUMNAR, ROW
from tf_groupvit.server.status import invalid
from tf_groupvit.server.tensor_protos import type_of

_PAD = "    "
_WHOLE = {"int32", "int16", "int8", "uint8", "int64", "uint32", "uint64"}
_NOT_FINITE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_CHUNK = 2**15  # numbers written at a time, so that other requests run in between


def write_predict(
    outputs: dict[str, np.ndarray], form: str, check: Callable[[], object] = lambda: None
) -> bytes:
    """The body for outputs, each of any shape, in the form of the request, sorted by name.

    A signature's own order is that of a hash, which another process seeds otherwise. ``check`` is
    called now and then, and ends the writing by an exception. Raises StatusError where a form or a
    type cannot be written.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if form not in (ROW, COLUMNAR):
        raise invalid("Invalid request format")
    outputs = dict(sorted(outputs.items()))
    text = (_rows if form == ROW else _columns)(outputs, check)
    return text.encode("utf-8", "surrogateescape")


def write_error(text: str) -> bytes:
    """The body of a refusal."""
    return f'{{\n    "error": {quoted(text)}\n}}'.encode("utf-8", "surrogateescape")


def _rows(outputs: dict[str, np.ndarray], check: Callable[[], object]) -> str:
    count = _batch_size(outputs)
    depth = 3 if len(outputs) > 1 else 2  # levels open where an instance's values start
    columns = {
        name: _nested(
            _leaves(name, array, depth + max(array.ndim - 1, 0), check), array.shape, None, 1
        )
        for name, array in outputs.items()
    }
    if len(outputs) > 1:
        instances = (
            _members({name: texts[index] for name, texts in columns.items()}, 2)
            for index in range(count)
        )
        text = ",".join(f"\n{_PAD * 2}{instance}" for instance in instances)
    else:
        text = ", ".join(*columns.values())
    end = f"\n{_PAD}" if count else ""
    return f'{{\n{_PAD}"predictions": [{text}{end}]\n}}'


def _columns(outputs: dict[str, np.ndarray], check: Callable[[], object]) -> str:
    depth = 2 if len(outputs) > 1 else 1
    texts = {}
    for name, array in outputs.items():
        leaves = _leaves(name, array, depth + array.ndim, check)
        (texts[name],) = _nested(leaves, array.shape, depth, 0)
    value = _members(texts, 1) if len(texts) > 1 else texts.popitem()[1]
    return f'{{\n{_PAD}"outputs": {value}\n}}'


def _members(texts: dict[str, str], depth: int) -> str:
    """An object of values that are written already, ``depth`` levels deep."""
    pad = "\n" + _PAD * depth
    return "{" + ",".join(f"{pad}{_PAD}{quoted(n)}: {t}" for n, t in texts.items()) + pad + "}"


def _batch_size(outputs: dict[str, np.ndarray]) -> int:
    """The first dimension, which all outputs share."""
    size = -1
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if size >= 0 and array.shape[0] != size:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting:"
                f" {size}"
            )
        size = array.shape[0]
    return size


def _nested(
    texts: list[str], shape: tuple[int, ...], depth: int | None, first_axis: int
) -> list[str]:
    """Texts of an array's elements, joined to those of its parts along ``first_axis``.

    ``depth`` is the number of levels open around the array; None keeps each part on one line.
    """
    for axis in reversed(range(first_axis, len(shape))):
        start, between, end = "[", ", ", "]"
        if depth is not None:
            line = "\n" + _PAD * (depth + axis)
            start, between, end = f"[{line}{_PAD}", f",{line}{_PAD}", f"{line}]"
        size = shape[axis]
        groups = (texts[index * size : (index + 1) * size] for index in range(prod(shape[:axis])))
        texts = [start + between.join(group) + end if group else "[]" for group in groups]
    return texts


def _leaves(name: str, array: np.ndarray, depth: int, check: Callable[[], object]) -> list[str]:
    """One text for each element; ``depth`` is the number of levels open around an element."""
    check()
    flat, type_ = array.reshape(-1), type_of(array)
    if not flat.size:
        return []
    if type_ in ("float", "double"):
        return decimals(flat, check)
    if type_ in _WHOLE:
        return list(map(str, flat.tolist()))
    if type_ == "bool":
        return ["true" if value else "false" for value in flat.tolist()]
    if type_ != "string":
        raise invalid(f"Failed to write JSON value for tensor type: {type_}")
    if name.endswith("_bytes"):
        encoded = (base64.b64encode(value).decode() for value in flat.tolist())
        return [_members({"b64": f'"{text}"'}, depth) for text in encoded]
    return [quoted(value.decode("utf-8", "surrogateescape")) for value in flat.tolist()]


def decimals(values: np.ndarray, check: Callable[[], object] = lambda: None) -> list[str]:
    """(N,) float32 or float64 -> one text each: six significant digits where they read back as the
    value, else nine or seventeen; ".0" where neither a point nor an exponent occurs.
    """
    texts: list[str] = []
    for at in range(0, len(values), _CHUNK):
        check()
        texts += _decimals(values[at : at + _CHUNK])
    return texts


def _decimals(values: np.ndarray) -> list[str]:
    numbers = values.tolist()
    texts = (("%g," * len(numbers)) % tuple(numbers)).split(",")[:-1]
    finite = np.isfinite(values)
    with np.errstate(over="ignore"):
        read_back = np.array([float(text) for text in texts]).astype(values.dtype)
    full = "%.9g" if values.dtype == np.float32 else "%.17g"
    for index in np.flatnonzero(finite & (read_back != values)):
        texts[index] = full % numbers[index]
    for index in np.flatnonzero(~finite):
        texts[index] = _NOT_FINITE[texts[index]]
    for index in np.flatnonzero(finite & (values == np.trunc(values))):
        if "e" not in texts[index] and "." not in texts[index]:
            texts[index] += ".0"
    return texts


def proto_json(message: Message, proto_names: bool = False) -> str:
    """A message as JSON with every field, those that have their default too; a line break ends it.

    ``proto_names`` keeps the names of the .proto file (contract, section 6).
    """
    options = {"preserving_proto_field_name": proto_names, "indent": 1, "ensure_ascii": False}
    try:
        text = json_format.MessageToJson(
            message, always_print_fields_with_no_presence=True, **options
        )
    except TypeError:  # protobuf before 5.26
        text = json_format.MessageToJson(message, including_default_value_fields=True, **options)
    return text + "\n"
