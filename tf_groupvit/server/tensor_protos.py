"""TensorProtos: messages of requests into numpy arrays, and arrays into messages of answers.

Reading makes what TensorFlow's C++ `Tensor::FromProto` makes, which is lenient where
`tf.make_ndarray` is not: too many values are cut, too few repeat the last one, none give zeros,
values in another type's field count as none (contract, section 7). Tensors whose bytes are in
`tensor_content` are not copied.

Answers have their values in `float_val`, `int_val` and so on, which clients read, not in
`tensor_content` as `tf.make_tensor_proto` would write them. Appending a million floats one by one
costs a tenth of a second, so the packed field is written as its wire bytes and parsed by protobuf
in one go.
"""

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from tf_groupvit.server.dtypes import NUMBER_OF, numpy_type, type_of
from tf_groupvit.server.status import invalid

# field of TensorProto that holds each type's values
FIELDS = {
    1: "float_val", 2: "double_val", 3: "int_val", 4: "int_val", 5: "int_val", 6: "int_val", 7: "string_val",
    8: "scomplex_val", 9: "int64_val", 10: "bool_val", 14: "half_val", 17: "int_val", 18: "dcomplex_val",
    19: "half_val", 22: "uint32_val", 23: "uint64_val",
}  # fmt: skip
_STRING, _HALVES, _COMPLEX = 7, {14, 19}, {8: np.float32, 18: np.float64}
_STORED = {"int_val": np.int32, "half_val": np.int32}  # C++ then casts to the tensor's own type
_LENGTH_DELIMITED = 2
_VARINT = 5  # bytes of a string's length at most
_FEW = 64  # values that protobuf appends faster than numpy packs them
_MAX_RANK = 64  # numpy's; TensorFlow's own is 254
# TensorFlow would allocate whatever a shape says. Here a request may not become much larger than it
# came: where values are missing, a tensor has at most so many, and a string counts as what it costs
# beside its bytes.
MOST_FILLED = 2**24
STRING_COST = 64
MOST_STRINGS = 2**20  # of a tensor, which may come as one byte each


class Malformed(Exception):  # noqa: N818 - the caller knows the input's name and refuses
    """The message is no tensor."""


def read_tensor(proto: Any, name: str) -> np.ndarray:
    """The array of a TensorProto. Raises StatusError, before the array is made, for one that is too
    large.
    """
    try:
        return _array(proto, name)
    except Malformed:
        raise invalid(f"tensor parsing error: {name}") from None


def check_strings(count: int, name: str) -> None:
    """Raises StatusError where a tensor has more strings than may be worked on."""
    if count > MOST_STRINGS:
        raise invalid(
            f"tensor parsing error: {name}: {count:,} strings, at most {MOST_STRINGS:,} are taken"
        )


def _array(proto: Any, name: str) -> np.ndarray:
    shape = [dim.size for dim in proto.tensor_shape.dim]
    type_ = numpy_type(proto.dtype)
    if type_ is None or len(shape) > _MAX_RANK or any(size < 0 for size in shape):
        raise Malformed
    if prod(max(size, 1) for size in shape) > np.iinfo(np.int64).max // 16:
        raise Malformed
    count = prod(shape)
    if not count:
        return np.empty(shape, type_)
    content = proto.tensor_content
    if content:
        flat = (
            _strings(proto, count, name) if proto.dtype == _STRING else _raw(content, count, type_)
        )
    else:
        _check_filling(proto, count, name)
        flat = _filled(_values(proto, type_, count), count, type_)
    return flat.reshape(shape)


def _check_filling(proto: Any, count: int, name: str) -> None:
    """Raises StatusError where too few values stand for too many."""
    values = getattr(proto, FIELDS[proto.dtype])
    given = len(values) // 2 if proto.dtype in _COMPLEX else len(values)
    if proto.dtype == _STRING:
        check_strings(min(given, count), name)
    cost = filling_cost(values[-1] if values else b"") if proto.dtype == _STRING else 1
    if (count - given) * cost > MOST_FILLED:
        raise invalid(
            f"tensor parsing error: {name}: its shape has {count:,} elements and {given:,} came; at"
            f" most {MOST_FILLED // cost:,} are filled up"
        )


def filling_cost(value: Any) -> int:
    """What a further copy of a value counts: 1, and for a string its bytes and what goes with them."""
    return STRING_COST + len(value) if isinstance(value, bytes) else 1


def _raw(content: bytes, count: int, type_: np.dtype) -> np.ndarray:
    if len(content) != count * type_.itemsize:
        raise Malformed
    flat = np.frombuffer(content, type_)
    if type_ == np.bool_ and flat.view(np.uint8).max() > 1:
        raise Malformed
    return flat


def _strings(proto: Any, count: int, name: str) -> np.ndarray:
    """Lengths as varints, then the strings' bytes, nothing before, between or after; as
    ``tensor_content`` has them.

    Not by `tf.io.parse_tensor`, which logs all of a message that it refuses.
    """
    content = proto.tensor_content
    if count > len(content):  # each has a length
        raise Malformed
    check_strings(count, name)
    lengths_end = (
        np.flatnonzero(np.frombuffer(content[: _VARINT * count], np.uint8) < 0x80)[:count] + 1
    )
    if len(lengths_end) < count or np.diff(lengths_end, prepend=0).max() > _VARINT:
        raise Malformed
    start = int(lengths_end[-1])
    sizes = type(proto).FromString(_field(proto, "uint32_val", content[:start])).uint32_val
    stops = np.cumsum([start, *sizes], dtype=np.int64).tolist()
    if stops[-1] != len(content):
        raise Malformed
    flat = np.empty(count, object)
    flat[:] = [content[begin:stop] for begin, stop in pairwise(stops)]
    return flat


def _values(proto: Any, type_: np.dtype, most: int) -> np.ndarray:
    """The first values that the message lists, ``most`` at most, in the tensor's own type."""
    values = getattr(proto, FIELDS[proto.dtype])
    if proto.dtype == _STRING:
        values = values[:most]
        flat = np.empty(len(values), object)
        flat[:] = values
        return flat
    if proto.dtype in _COMPLEX:
        parts = np.array(values, _COMPLEX[proto.dtype])
        return parts[: len(parts) // 2 * 2].view(type_)
    stored = np.array(values, _STORED.get(FIELDS[proto.dtype], type_))
    if proto.dtype in _HALVES:
        return stored.astype(np.uint16).view(type_)
    return stored.astype(type_, copy=False)


def _filled(values: np.ndarray, count: int, type_: np.dtype) -> np.ndarray:
    if len(values) >= count:
        return values[:count]
    flat = np.full(count, values[-1] if len(values) else b"" if type_.kind == "O" else 0, type_)
    flat[: len(values)] = values
    return flat


def write_tensor(array: np.ndarray, proto: Any) -> None:
    """Fill an empty TensorProto."""
    number = NUMBER_OF[type_of(array)]
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    field = FIELDS[number]
    flat = array.reshape(-1)
    if not flat.size:
        return
    if field == "string_val" or (flat.size <= _FEW and number not in _HALVES | _COMPLEX.keys()):
        getattr(proto, field).extend(flat.tolist())
        return
    proto.MergeFromString(_field(proto, field, packed(flat, number)))


def _field(proto: Any, name: str, payload: bytes) -> bytes:
    """The wire bytes of a packed field."""
    tag = proto.DESCRIPTOR.fields_by_name[name].number << 3 | _LENGTH_DELIMITED
    return varints(np.array([tag, len(payload)])) + payload


def packed(flat: np.ndarray, number: int) -> bytes:
    """The payload of the packed field: fixed-width floats, varints for everything else."""
    if number in _COMPLEX:
        return flat.view(_COMPLEX[number]).tobytes()
    if flat.dtype in (np.float32, np.float64, np.bool_):
        return flat.tobytes()
    if number in _HALVES:
        return varints(flat.view(np.uint16))
    return varints(flat)


def varints(values: np.ndarray) -> bytes:
    """Base-128 varints of whole numbers; negative ones as their 64-bit two's complement, ten bytes
    each.
    """
    if values.dtype == np.uint8 and int(values.max()) < 0x80:
        return values.tobytes()
    rest = (
        values.astype(np.int64, copy=False).view(np.uint64)
        if values.dtype.kind == "i"
        else values.astype(np.uint64)
    )
    width = max(1, -(-int(rest.max()).bit_length() // 7))
    groups = np.empty((len(rest), width), np.uint8)
    wanted = np.ones((len(rest), width), np.bool_)
    for index in range(width):
        groups[:, index] = (rest & np.uint64(0x7F)).astype(np.uint8)
        rest = rest >> np.uint64(7)
        more = rest > 0
        groups[:, index] |= more.astype(np.uint8) << 7
        if index + 1 < width:
            wanted[:, index + 1] = more
    return groups[wanted].tobytes()
