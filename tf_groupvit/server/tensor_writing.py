"""TensorProtos of answers: a numpy array in; a message with its values in the typed field out.

The server answers in `float_val`, `int_val` and so on, not in `tensor_content` (contract, section 7), and clients read
those. Appending a million floats one by one costs a tenth of a second, so the packed field is written as its wire
bytes and parsed by protobuf in one go.
"""

from typing import Any

import numpy as np

from tf_groupvit.server.dtypes import NUMBER_OF, type_of
from tf_groupvit.server.tensor_reading import FIELDS

_HALVES = {14, 19}
_COMPLEX = {8: np.float32, 18: np.float64}
_LENGTH_DELIMITED = 2
_FEW = 64  # values that protobuf appends faster than numpy packs them


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
    tag = proto.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED
    payload = packed(flat, number)
    proto.MergeFromString(varints(np.array([tag, len(payload)])) + payload)


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
    """Base-128 varints of whole numbers; negative ones as their 64-bit two's complement, ten bytes each."""
    if values.dtype == np.uint8 and int(values.max()) < 0x80:
        return values.tobytes()
    rest = values.astype(np.int64, copy=False).view(np.uint64) if values.dtype.kind == "i" else values.astype(np.uint64)
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
