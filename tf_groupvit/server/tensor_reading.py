"""TensorProtos of requests: a message in; the numpy array that TensorFlow's C++ `Tensor::FromProto` makes of it out.

That reading is lenient where `tf.make_ndarray` is not: too many values are cut, too few repeat the last one, none
give zeros, values in another type's field count as none (contract, section 7). Tensors whose bytes are in
`tensor_content` are not copied.
"""

from math import prod
from typing import Any

import numpy as np

from tf_groupvit.server.dtypes import numpy_type
from tf_groupvit.server.refusal import invalid

# field of TensorProto that holds each type's values
FIELDS = {
    1: "float_val", 2: "double_val", 3: "int_val", 4: "int_val", 5: "int_val", 6: "int_val", 7: "string_val",
    8: "scomplex_val", 9: "int64_val", 10: "bool_val", 14: "half_val", 17: "int_val", 18: "dcomplex_val",
    19: "half_val", 22: "uint32_val", 23: "uint64_val",
}  # fmt: skip
_STRING, _HALVES, _COMPLEX = 7, {14, 19}, {8: np.float32, 18: np.float64}
_STORED = {"int_val": np.int32, "half_val": np.int32}  # C++ then casts to the tensor's own type
_MAX_RANK = 64  # numpy's; TensorFlow's own is 254
# TensorFlow would allocate whatever a shape says. Here a request may not become much larger than it came: where values
# are missing, a tensor has at most so many, and a string counts as what it costs beside its bytes.
MOST_FILLED = 2**24
STRING_COST = 64
MOST_STRINGS = 2**20  # of a tensor, which may come as one byte each


class Malformed(Exception):  # noqa: N818 - the caller knows the input's name and refuses
    """The message is no tensor."""


def read_tensor(proto: Any, name: str) -> np.ndarray:
    """The array of a TensorProto. Raises Refusal, before the array is made, for one that is too large."""
    try:
        return _array(proto, name)
    except Malformed:
        raise invalid(f"tensor parsing error: {name}") from None


def check_strings(count: int, name: str) -> None:
    """Raises Refusal where a tensor has more strings than may be worked on."""
    if count > MOST_STRINGS:
        raise invalid(f"tensor parsing error: {name}: {count:,} strings, at most {MOST_STRINGS:,} are taken")


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
        flat = _strings(content, count, name) if proto.dtype == _STRING else _raw(content, count, type_)
    else:
        _check_filling(proto, count, name)
        flat = _filled(_values(proto, type_, count), count, type_)
    return flat.reshape(shape)


def _check_filling(proto: Any, count: int, name: str) -> None:
    """Raises Refusal where too few values stand for too many."""
    values = getattr(proto, FIELDS[proto.dtype])
    given = len(values) // 2 if proto.dtype in _COMPLEX else len(values)
    if proto.dtype == _STRING:
        check_strings(min(given, count), name)
    cost = filling_cost(values[-1] if values else b"") if proto.dtype == _STRING else 1
    if (count - given) * cost > MOST_FILLED:
        raise invalid(
            f"tensor parsing error: {name}: its shape has {count:,} elements and {given:,} came; at most "
            f"{MOST_FILLED // cost:,} are filled up"
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


def _strings(content: bytes, count: int, name: str) -> np.ndarray:
    """Lengths as varints, then the strings' bytes, nothing before, between or after."""
    if count > len(content):  # each has a length
        raise Malformed
    check_strings(count, name)
    sizes, at = [], 0
    for _ in range(count):
        size, at = _varint(content, at)
        sizes.append(size)
    if at + sum(sizes) != len(content):
        raise Malformed
    flat = np.empty(count, object)
    for index, size in enumerate(sizes):
        flat[index] = content[at : at + size]
        at += size
    return flat


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(content):
            raise Malformed
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFF, at
    raise Malformed


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
    flat = np.full(count, b"", object) if type_.kind == "O" else np.zeros(count, type_)
    flat[: len(values)] = values
    if len(values):
        flat[len(values) :] = values[-1]
    return flat
