"""JSON of REST answers: output arrays, errors and protobuf messages in; text as TensorFlow Serving
lays it out.

Predict's row form keeps each instance on one line; columnar form puts one number on a line
(contract, section 5).
"""

import base64
import json
from typing import Any

import numpy as np
from google.protobuf import json_format

from tf_groupvit.server.dtypes import type_of
from tf_groupvit.server.json_reading import COLUMNAR, ROW
from tf_groupvit.server.json_values import decimals, quoted
from tf_groupvit.server.status import invalid

_PAD = "    "
_WHOLE = {"int32", "int16", "int8", "uint8", "int64", "uint32", "uint64"}


def write_predict(outputs: dict[str, np.ndarray], form: str) -> bytes:
    """The body for the outputs, in the form of the request, sorted by name. Raises StatusError.

    A signature's own order is that of a hash, which another process seeds otherwise.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    outputs = dict(sorted(outputs.items()))
    if form == ROW:
        text = _rows(outputs)
    elif form == COLUMNAR:
        text = _columns(outputs)
    else:
        raise invalid("Invalid request format")
    return text.encode("utf-8", "surrogateescape")


def write_error(text: str) -> bytes:
    return f'{{\n    "error": {quoted(text)}\n}}'.encode("utf-8", "surrogateescape")


def _rows(outputs: dict[str, np.ndarray]) -> str:
    count = _batch(outputs)
    several = len(outputs) > 1
    depth = 3 if several else 2  # levels open where an instance's values start
    columns = {
        name: _one_line(leaves(name, array, depth + max(array.ndim - 1, 0)), array.shape)
        for name, array in outputs.items()
    }
    if not several:
        (items,) = columns.values()
        joined = ", ".join(items) + f"\n{_PAD}" if count else ""
    else:
        joined = ",".join(f"\n{_PAD * 2}{_object(columns, index)}" for index in range(count))
        joined += f"\n{_PAD}" if count else ""
    return f'{{\n{_PAD}"predictions": [{joined}]\n}}'


def _object(columns: dict[str, list[str]], index: int) -> str:
    lines = ",".join(
        f"\n{_PAD * 3}{quoted(name)}: {items[index]}" for name, items in columns.items()
    )
    return f"{{{lines}\n{_PAD * 2}}}"


def _batch(outputs: dict[str, np.ndarray]) -> int:
    """The 0-th dimension that all outputs share."""
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


def _columns(outputs: dict[str, np.ndarray]) -> str:
    several = len(outputs) > 1
    depth = 2 if several else 1
    texts = {
        name: _indented(leaves(name, array, depth + array.ndim), array.shape, depth)
        for name, array in outputs.items()
    }
    if several:
        lines = ",".join(f"\n{_PAD * 2}{quoted(name)}: {text}" for name, text in texts.items())
        value = f"{{{lines}\n{_PAD}}}"
    else:
        (value,) = texts.values()
    return f'{{\n{_PAD}"outputs": {value}\n}}'


def leaves(name: str, array: np.ndarray, depth: int) -> list[str]:
    """One text per element; ``depth`` is the number of levels open around an element. Raises
    StatusError.
    """
    flat = array.reshape(-1)
    type_ = type_of(array)
    if not flat.size:
        return []
    if type_ in ("float", "double"):
        return decimals(flat)
    if type_ in _WHOLE:
        return list(map(str, flat.tolist()))
    if type_ == "bool":
        return ["true" if value else "false" for value in flat.tolist()]
    if type_ != "string":
        raise invalid(f"Failed to write JSON value for tensor type: {type_}")
    if name.endswith("_bytes"):
        return [_bytes(value, depth) for value in flat.tolist()]
    return [quoted(value.decode("utf-8", "surrogateescape")) for value in flat.tolist()]


def _bytes(value: bytes, depth: int) -> str:
    text = base64.b64encode(value).decode()
    return f'{{\n{_PAD * (depth + 1)}"b64": "{text}"\n{_PAD * depth}}}'


def _grouped(texts: list[str], shape: tuple[int, ...], axis: int) -> list[list[str]]:
    """Texts in groups of one axis; a zero dimension gives empty groups, as many as the axes before
    it make.
    """
    size = shape[axis]
    count = int(np.prod(shape[:axis], dtype=np.int64))
    return [texts[index * size : (index + 1) * size] for index in range(count)]


def _one_line(texts: list[str], shape: tuple[int, ...]) -> list[str]:
    """The texts of the elements along the first axis."""
    for axis in range(len(shape) - 1, 0, -1):
        texts = [f"[{', '.join(group)}]" for group in _grouped(texts, shape, axis)]
    return texts


def _indented(texts: list[str], shape: tuple[int, ...], depth: int) -> str:
    """The text of the whole array, its brackets ``depth`` levels deep."""
    for axis in range(len(shape) - 1, -1, -1):
        inner, outer = _PAD * (depth + axis + 1), _PAD * (depth + axis)
        texts = [
            f"[\n{inner}" + f",\n{inner}".join(group) + f"\n{outer}]" if group else "[]"
            for group in _grouped(texts, shape, axis)
        ]
    return texts[0]


def proto_json(message: Any, proto_names: bool = False) -> str:
    """A message as JSON, with a line break at the end. ``proto_names`` keeps the names of the
    .proto file.

    Laid out as protobuf's C++ printer does and the documentation of TensorFlow Serving shows: one
    blank a level, every field there also where it has its default, those of a oneof after the
    others (contract, section 6).
    """
    options = {"preserving_proto_field_name": proto_names}
    try:
        value = json_format.MessageToDict(
            message, always_print_fields_with_no_presence=True, **options
        )
    except TypeError:  # protobuf before 5.26
        value = json_format.MessageToDict(message, including_default_value_fields=True, **options)
    return (
        json.dumps(_ordered(value, message.DESCRIPTOR, proto_names), indent=1, ensure_ascii=False)
        + "\n"
    )


def _ordered(value: Any, descriptor: Any, proto_names: bool) -> Any:
    """The members of a message's dict in the printer's order, and so on inwards; entries of maps by
    name.
    """
    if isinstance(value, list):
        return [_ordered(element, descriptor, proto_names) for element in value]
    if not isinstance(value, dict) or descriptor is None:
        return value
    if descriptor.GetOptions().map_entry:
        inner = descriptor.fields_by_name["value"].message_type
        return {key: _ordered(value[key], inner, proto_names) for key in sorted(value)}
    fields = sorted(
        descriptor.fields, key=lambda field: (field.containing_oneof is not None, field.number)
    )
    names = [
        (field.name if proto_names else field.json_name, field.message_type) for field in fields
    ]
    return {
        name: _ordered(value[name], inner, proto_names) for name, inner in names if name in value
    }
