"""Protobuf messages from a short description, and TensorFlow Serving's with their tensors.

TensorFlow Serving's own message classes import TensorFlow; a second copy under their names would
clash with it. So the few messages that a client needs are described here, in a pool of their own.
"""

import math
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from tf_groupvit.errors import RequestError

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto
    from google.protobuf.message import Message

# number and name of a dtype in tensorflow/core/framework/types.proto, its numpy type, and the field
# of a TensorProto that holds its values
_DTYPES = """
1 DT_FLOAT <f4 float_val; 2 DT_DOUBLE <f8 double_val; 3 DT_INT32 <i4 int_val; 4 DT_UINT8 u1 int_val;
5 DT_INT16 <i2 int_val; 6 DT_INT8 i1 int_val; 7 DT_STRING O string_val; 9 DT_INT64 <i8 int64_val;
10 DT_BOOL ? bool_val; 17 DT_UINT16 <u2 int_val; 19 DT_HALF <f2 half_val;
22 DT_UINT32 <u4 uint32_val; 23 DT_UINT64 <u8 uint64_val
"""
DTYPES = [row.split() for row in _DTYPES.split(";")]
NUMPY_OF = {name: np.dtype(kind) for _, name, kind, _ in DTYPES}
NUMBER_OF = {name: int(number) for number, name, _, _ in DTYPES}
NAME_OF = {number: name for name, number in NUMBER_OF.items()}
FIELD_OF = {name: values for _, name, _, values in DTYPES}
MOST_DIMENSIONS = 32  # NumPy 1's limit; TensorFlow's own is 254, of which nobody makes use

# One message a line: its fields as number, type, name; [] is repeated, {} a map from strings.
SERVING = """
Dim: 1 int64 size, 2 string name
Shape: 2 Dim[] dim, 3 bool unknown_rank
Tensor: 1 int32 dtype, 2 Shape tensor_shape, 4 bytes tensor_content, 5 float[] float_val,\
 6 double[] double_val, 7 int32[] int_val, 8 bytes[] string_val, 10 int64[] int64_val,\
 11 bool[] bool_val, 13 int32[] half_val, 16 uint32[] uint32_val, 17 uint64[] uint64_val
Version: 1 int64 value
ModelSpec: 1 string name, 2 Version version, 3 string signature_name, 4 string version_label
PredictRequest: 1 ModelSpec model_spec, 2 Tensor{} inputs
PredictResponse: 1 Tensor{} outputs, 2 ModelSpec model_spec
GetModelStatusRequest: 1 ModelSpec model_spec
Status: 1 int32 error_code, 2 string error_message
VersionStatus: 1 int64 version, 2 int32 state, 3 Status status
GetModelStatusResponse: 1 VersionStatus[] model_version_status
GetModelMetadataRequest: 1 ModelSpec model_spec, 2 string[] metadata_field
Any: 1 string type_url, 2 bytes value
GetModelMetadataResponse: 1 ModelSpec model_spec, 2 Any{} metadata
TensorInfo: 1 string name, 2 int32 dtype, 3 Shape tensor_shape
SignatureDef: 1 TensorInfo{} inputs, 2 TensorInfo{} outputs, 3 string method_name
SignatureDefMap: 1 SignatureDef{} signature_def
"""


@cache
def message_classes(description: str = SERVING) -> dict[str, type["Message"]]:
    """The message classes of a description, by name. Raises ImportError without protobuf."""
    protos = import_module("google.protobuf.descriptor_pb2")
    file = protos.FileDescriptorProto(
        name="tf_groupvit.proto", package="tf_groupvit", syntax="proto3"
    )
    for line in description.strip().splitlines():
        name, fields = line.split(": ")
        message = file.message_type.add(name=name)
        for number, kind, label in (entry.split() for entry in fields.split(", ")):
            if kind.endswith("{}"):
                entry = message.nested_type.add(name=f"{label.title().replace('_', '')}Entry")
                entry.options.map_entry = True
                _add_field(entry, 1, "string", "key")
                _add_field(entry, 2, kind[:-2], "value")
                kind = f"{name}.{entry.name}[]"
            _add_field(message, int(number), kind, label)
    pool = import_module("google.protobuf.descriptor_pool").DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    message_class = import_module("google.protobuf.message_factory").GetMessageClass
    return {
        message.name: message_class(pool.FindMessageTypeByName(f"tf_groupvit.{message.name}"))
        for message in file.message_type
    }


def _add_field(message: "DescriptorProto", number: int, kind: str, name: str) -> None:
    bare = kind.removesuffix("[]")
    added = message.field.add(name=name, number=number, label=3 if kind.endswith("[]") else 1)
    scalar = getattr(added, f"TYPE_{bare.upper()}", None)
    added.type = added.TYPE_MESSAGE if scalar is None else scalar
    if scalar is None:
        added.type_name = f".tf_groupvit.{bare}"


def fill(tensor: "Message", value: np.ndarray | list[str] | list[bytes]) -> None:
    """Write an array of any shape, or a list of strings, into a TensorProto."""
    array = value if isinstance(value, np.ndarray) else np.array(value, object)
    tensor.dtype = next(NUMBER_OF[name] for name, kind in NUMPY_OF.items() if kind == array.dtype)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        tensor.string_val.extend(
            item.encode() if isinstance(item, str) else item for item in array.ravel()
        )
    else:
        tensor.tensor_content = array.tobytes()


def from_tensor(name: str, tensor: "Message", expected: str | None = None) -> np.ndarray:
    """A TensorProto's values, in its shape, from tensor_content or from the field of its type.

    Raises:
        RequestError: its type is unknown or not the ``expected`` one, or shape and values do not
            fit together.
    """
    dtype, shape = NAME_OF.get(tensor.dtype), [dim.size for dim in tensor.tensor_shape.dim]
    if dtype is None:
        raise RequestError(
            "UNIMPLEMENTED",
            f"Output '{name}' is of TensorFlow's type {tensor.dtype}: ask for another.",
        )
    if dtype != (expected or dtype):
        raise RequestError(
            "DATA_LOSS", f"Output '{name}' is expected as {expected}, not as {dtype}."
        )
    if len(shape) > MOST_DIMENSIONS or any(size < 0 for size in shape):
        sizes = f"{len(shape)} dimensions" if len(shape) > MOST_DIMENSIONS else f"the sizes {shape}"
        raise RequestError("DATA_LOSS", f"Output '{name}' has {sizes}, as no tensor can have.")
    if dtype == "DT_STRING":
        as_bytes = name.endswith("_bytes")
        strings = [v if as_bytes else v.decode(errors="replace") for v in tensor.string_val]
        values = np.array(strings, object)
    elif tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, NUMPY_OF[dtype])
    elif dtype == "DT_HALF":  # the bits of each, as an integer
        values = np.array(tensor.half_val, np.uint16).view(np.float16)
    else:
        values = np.array(getattr(tensor, FIELD_OF[dtype]), NUMPY_OF[dtype])
    if values.size != math.prod(shape):
        raise RequestError(
            "DATA_LOSS", f"Output '{name}' has {values.size} values for the shape {shape}."
        )
    return values.reshape(shape)
