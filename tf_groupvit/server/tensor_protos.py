"""Element types, and TensorProtos: messages of requests into arrays, arrays into answers.

Reading makes what TensorFlow's C++ `Tensor::FromProto` makes, which is lenient where
`tf.make_ndarray` is not: too many values are cut, too few repeat the last one, none give zeros,
values in another type's field count as none (contract, section 7). Tensors whose bytes are in
`tensor_content` are not copied.

Answers have their values in `float_val`, `int_val` and so on, which clients read, not in
`tensor_content` as `tf.make_tensor_proto` would write them. Appending a million floats one by one
costs a tenth of a second, so the packed field is written as its wire bytes and parsed by protobuf
in one go.
"""

from functools import cache
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import ml_dtypes  # noqa: F401 - comes with TensorFlow, and tells numpy of bfloat16
import numpy as np

from tf_groupvit.server.status import StatusError, invalid

if TYPE_CHECKING:  # TensorFlow is not imported here: a process that reads JSON needs none
    from tensorflow.core.framework.tensor_pb2 import TensorProto

# Number in types.proto: TensorFlow's name for the type, which every message of the server uses;
# numpy's name; the field of TensorProto that holds its values.
TYPES: dict[int, tuple[str, str, str]] = {
    1: ("float", "float32", "float_val"),
    2: ("double", "float64", "double_val"),
    3: ("int32", "int32", "int_val"),
    4: ("uint8", "uint8", "int_val"),
    5: ("int16", "int16", "int_val"),
    6: ("int8", "int8", "int_val"),
    7: ("string", "object", "string_val"),
    8: ("complex64", "complex64", "scomplex_val"),
    9: ("int64", "int64", "int64_val"),
    10: ("bool", "bool", "bool_val"),
    14: ("bfloat16", "bfloat16", "half_val"),
    17: ("uint16", "uint16", "int_val"),
    18: ("complex128", "complex128", "dcomplex_val"),
    19: ("half", "float16", "half_val"),
    22: ("uint32", "uint32", "uint32_val"),
    23: ("uint64", "uint64", "uint64_val"),
}
NUMBER_OF = {name: number for number, (name, _, _) in TYPES.items()}
FIELDS = {number: field for number, (_, _, field) in TYPES.items()}
_NAME_OF_NUMPY = {numpy_name: name for name, numpy_name, _ in TYPES.values()}
_STRING, _HALVES, _COMPLEX = 7, {14, 19}, {8: np.float32, 18: np.float64}
_STORED = {"int_val": np.int32, "half_val": np.int32}  # C++ then casts to the tensor's own type
_LENGTH_DELIMITED = 2
_VARINT = 5  # bytes of a string's length at most
_FEW = 64  # values that protobuf appends faster than numpy packs them
MAX_RANK = 64  # numpy's; TensorFlow's own is 254
# TensorFlow would allocate whatever a shape says. Here a tensor may not become much larger than its
# message: at most this many elements are filled in, and a string counts as its bytes and what is
# kept with them.
MOST_FILLED = 2**24
STRING_COST = 64
MOST_STRINGS = 2**20  # of a tensor, in which each may be a single byte of the message


@cache
def numpy_type(number: int) -> np.dtype | None:
    """The numpy type of a type number, or None where there is none."""
    return np.dtype(TYPES[number][1]) if number in TYPES else None


def type_of(array: np.ndarray) -> str:
    """TensorFlow's name for the element type of an array of any shape."""
    return _NAME_OF_NUMPY.get(array.dtype.name, array.dtype.name)


def check_strings(count: int, name: str) -> None:
    """Raises StatusError where a tensor has more strings than may be worked on."""
    if count > MOST_STRINGS:
        raise invalid(
            f"tensor parsing error: {name}: {count:,} strings, at most {MOST_STRINGS:,} are taken"
        )


def filling_cost(value: object) -> int:
    """What a further copy of a value counts: 1, and for a string its bytes and what is kept with
    them.
    """
    return STRING_COST + len(value) if isinstance(value, bytes) else 1


def read_tensor(proto: "TensorProto", name: str) -> np.ndarray:
    """The array of a message, in the message's shape and type.

    Raises StatusError for one that is no tensor, and, before it is made, for one too large.
    """
    malformed = invalid(f"tensor parsing error: {name}")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    type_ = numpy_type(proto.dtype)
    if type_ is None or len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise malformed
    if prod(max(size, 1) for size in shape) > np.iinfo(np.int64).max // 16:
        raise malformed
    count = prod(shape)
    if not count:
        return np.empty(shape, type_)
    if not proto.tensor_content:
        _check_filling(proto, count, name)
        return _filled(_values(proto, type_, count), count, type_).reshape(shape)
    if proto.dtype == _STRING:
        return _strings(proto, count, name, malformed).reshape(shape)
    if len(proto.tensor_content) != count * type_.itemsize:
        raise malformed
    flat = np.frombuffer(proto.tensor_content, type_)
    if type_ == np.bool_ and flat.view(np.uint8).max() > 1:
        raise malformed
    return flat.reshape(shape)


def _check_filling(proto: "TensorProto", count: int, name: str) -> None:
    """Raises StatusError where too few values stand for too many."""
    values = getattr(proto, FIELDS[proto.dtype])
    given, cost = len(values), 1
    if proto.dtype in _COMPLEX:
        given //= 2
    if proto.dtype == _STRING:
        check_strings(min(given, count), name)
        cost = filling_cost(values[-1] if values else b"")
    if (count - given) * cost > MOST_FILLED:
        raise invalid(
            f"tensor parsing error: {name}: its shape has {count:,} elements, {given:,} are"
            f" given; at most {MOST_FILLED // cost:,} are filled up"
        )


def _strings(proto: "TensorProto", count: int, name: str, malformed: StatusError) -> np.ndarray:
    """(count,) strings of ``tensor_content``: lengths as varints, then the strings' bytes, nothing
    before, between or after.

    Not by `tf.io.parse_tensor`, which logs all of a message that it refuses.
    """
    content = proto.tensor_content
    if count > len(content):  # each has a length
        raise malformed
    check_strings(count, name)
    lengths = np.frombuffer(content[: _VARINT * count], np.uint8)
    lengths_end = np.flatnonzero(lengths < 0x80)[:count] + 1
    if len(lengths_end) < count or np.diff(lengths_end, prepend=0).max() > _VARINT:
        raise malformed
    start = int(lengths_end[-1])
    sizes = type(proto).FromString(_wire_field(proto, "uint32_val", content[:start])).uint32_val
    stops = np.cumsum([start, *sizes], dtype=np.int64).tolist()
    if stops[-1] != len(content):
        raise malformed
    return np.array([content[begin:stop] for begin, stop in pairwise(stops)], object)


def _values(proto: "TensorProto", type_: np.dtype, most: int) -> np.ndarray:
    """The first values that the message lists, ``most`` at most, in the tensor's own type."""
    field = FIELDS[proto.dtype]
    values = getattr(proto, field)
    if proto.dtype == _STRING:
        return np.array(values[:most], object)
    if proto.dtype in _COMPLEX:
        parts = np.array(values, _COMPLEX[proto.dtype])
        return parts[: len(parts) // 2 * 2].view(type_)
    stored = np.array(values, _STORED.get(field, type_))
    if proto.dtype in _HALVES:
        return stored.astype(np.uint16).view(type_)
    return stored.astype(type_, copy=False)


def _filled(values: np.ndarray, count: int, type_: np.dtype) -> np.ndarray:
    """(count,) values, cut, or the last one repeated."""
    if len(values) >= count:
        return values[:count]
    flat = np.full(count, values[-1] if len(values) else b"" if type_.kind == "O" else 0, type_)
    flat[: len(values)] = values
    return flat


def write_tensor(array: np.ndarray, proto: "TensorProto") -> None:
    """Fill an empty message with an array of any shape."""
    number = NUMBER_OF[type_of(array)]
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    field, flat = FIELDS[number], array.reshape(-1)
    odd = number in _HALVES or number in _COMPLEX
    if field == "string_val" or (flat.size <= _FEW and not odd):
        getattr(proto, field).extend(flat.tolist())
    else:
        proto.MergeFromString(_wire_field(proto, field, _packed(flat, number)))


def _wire_field(proto: "TensorProto", name: str, payload: bytes) -> bytes:
    """The wire bytes of a packed field."""
    tag = proto.DESCRIPTOR.fields_by_name[name].number << 3 | _LENGTH_DELIMITED
    return varints(np.array([tag, len(payload)])) + payload


def _packed(flat: np.ndarray, number: int) -> bytes:
    """The payload of the packed field: fixed-width floats, varints for everything else."""
    if number in _COMPLEX:
        return flat.view(_COMPLEX[number]).tobytes()
    if flat.dtype in (np.float32, np.float64, np.bool_):
        return flat.tobytes()
    return varints(flat.view(np.uint16) if number in _HALVES else flat)


def varints(values: np.ndarray) -> bytes:
    """(N,) whole numbers as base-128 varints; negative ones as their 64-bit two's complement, ten
    bytes each.
    """
    if not values.size or (values.dtype == np.uint8 and int(values.max()) < 0x80):
        return values.astype(np.uint8).tobytes()
    signed = values.dtype.kind == "i"
    rest = values.astype(np.int64 if signed else np.uint64, copy=False).view(np.uint64)
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
