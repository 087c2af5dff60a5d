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
# A few values may stand for many. TensorFlow would allocate whatever the shape says; here a request of a few bytes
# may not take more than this.
_INFLATED_BYTES = 2**28


class Malformed(Exception):  # noqa: N818 - the caller knows the input's name and refuses
    """The message is no tensor."""


def read_tensor(proto: Any, name: str) -> np.ndarray:
    """The array of a TensorProto. Raises Refusal."""
    try:
        return _array(proto)
    except Malformed:
        raise invalid(f"tensor parsing error: {name}") from None


def _array(proto: Any) -> np.ndarray:
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
        flat = _strings(content, count) if proto.dtype == _STRING else _raw(content, count, type_)
    else:
        flat = _filled(_values(proto, type_), count, type_)
    return flat.reshape(shape)


def _raw(content: bytes, count: int, type_: np.dtype) -> np.ndarray:
    if len(content) != count * type_.itemsize:
        raise Malformed
    flat = np.frombuffer(content, type_)
    if type_ == np.bool_ and flat.view(np.uint8).max() > 1:
        raise Malformed
    return flat


def _strings(content: bytes, count: int) -> np.ndarray:
    """Lengths as varints, then the strings' bytes, nothing before, between or after."""
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


def _values(proto: Any, type_: np.dtype) -> np.ndarray:
    """The values that the message lists, in the tensor's own type."""
    field = FIELDS[proto.dtype]
    values = getattr(proto, field)
    if proto.dtype == _STRING:
        flat = np.empty(len(values), object)
        flat[:] = values
        return flat
    if proto.dtype in _COMPLEX:
        parts = np.array(values, _COMPLEX[proto.dtype])
        return parts[: len(parts) // 2 * 2].view(type_)
    stored = np.fromiter(values, _STORED.get(field, type_), len(values))
    if proto.dtype in _HALVES:
        return stored.astype(np.uint16).view(type_)
    return stored.astype(type_, copy=False)


def _filled(values: np.ndarray, count: int, type_: np.dtype) -> np.ndarray:
    if len(values) >= count:
        return values[:count]
    if count * type_.itemsize > max(_INFLATED_BYTES, values.nbytes):
        raise Malformed
    flat = np.full(count, b"", object) if type_.kind == "O" else np.zeros(count, type_)
    flat[: len(values)] = values
    if len(values):
        flat[len(values) :] = values[-1]
    return flat
