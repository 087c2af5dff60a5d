"""Arrays in, TensorFlow Serving's gRPC messages out, and back: without its classes, which import
TensorFlow.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from tf_groupvit.errors import RequestError
from tf_groupvit.wires.asks import needed
from tf_groupvit.wires.dtypes import FIELD_OF, NAME_OF, NUMBER_OF, NUMPY_OF

# The messages of TensorFlow Serving that are needed, [] repeated, {} a map from strings, in a pool
# of their own: importing the generated ones imports TensorFlow, and a second copy under their names
# would clash with it.
MESSAGES = """
Dim: 1 int64 size, 2 string name
Shape: 2 Dim[] dim, 3 bool unknown_rank
Tensor: 1 int32 dtype, 2 Shape tensor_shape, 4 bytes tensor_content, 5 float[] float_val, 6 double[] double_val,\
 7 int32[] int_val, 8 bytes[] string_val, 10 int64[] int64_val, 11 bool[] bool_val, 13 int32[] half_val,\
 16 uint32[] uint32_val, 17 uint64[] uint64_val
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


MOST_DIMENSIONS = 32  # NumPy 1's limit; TensorFlow's own is 254, of which nobody makes use


@cache
def message_classes() -> dict[str, Any]:
    """The message classes by name, from ``MESSAGES``."""
    protos = needed("google.protobuf.descriptor_pb2")
    file = protos.FileDescriptorProto(
        name="tf_groupvit/serving.proto", package="tf_groupvit", syntax="proto3"
    )
    for line in MESSAGES.strip().splitlines():
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
    pool = needed("google.protobuf.descriptor_pool").DescriptorPool()
    (
        pool.Add(file)
        if not hasattr(pool, "AddSerializedFile")
        else pool.AddSerializedFile(file.SerializeToString())
    )
    factory = needed("google.protobuf.message_factory")
    return {
        m.name: factory.GetMessageClass(pool.FindMessageTypeByName(f"tf_groupvit.{m.name}"))
        for m in file.message_type
    }


def _add_field(message: Any, number: int, kind: str, name: str) -> None:
    protos = needed("google.protobuf.descriptor_pb2").FieldDescriptorProto
    bare = kind.removesuffix("[]")
    added = message.field.add(name=name, number=number, label=3 if kind.endswith("[]") else 1)
    if hasattr(protos, f"TYPE_{bare.upper()}"):
        added.type = getattr(protos, f"TYPE_{bare.upper()}")
    else:
        added.type, added.type_name = protos.TYPE_MESSAGE, f".tf_groupvit.{bare}"


def fill(tensor: Any, value: Any) -> None:
    """Write an array, or a list of strings, into a TensorProto."""
    array = value if isinstance(value, np.ndarray) else np.array(value, object)
    dtype = next(name for name, kind in NUMPY_OF.items() if kind == array.dtype)
    tensor.dtype = NUMBER_OF[dtype]
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        tensor.string_val.extend(
            item.encode() if isinstance(item, str) else item for item in array.ravel()
        )
    else:
        tensor.tensor_content = array.tobytes()


def from_tensor(name: str, tensor: Any, expected: str | None = None) -> np.ndarray:
    """A TensorProto's values, from tensor_content or from the field of its type.

    Raises ``RequestError`` for a type that is unknown or not the ``expected`` one, and where shape
    and values do not go together.
    """
    dtype, shape = NAME_OF.get(tensor.dtype), [dim.size for dim in tensor.tensor_shape.dim]
    if dtype is None:
        raise RequestError(
            "UNIMPLEMENTED",
            f"Output '{name}' is of TensorFlow's type {tensor.dtype}: ask for another.",
        )
    if dtype != (expected or dtype):
        raise RequestError("DATA_LOSS", f"Output '{name}' is expected as {expected}, {dtype} came.")
    if len(shape) > MOST_DIMENSIONS or any(size < 0 for size in shape):
        sizes = f"{len(shape)} dimensions" if len(shape) > MOST_DIMENSIONS else f"the sizes {shape}"
        raise RequestError("DATA_LOSS", f"Output '{name}' came with {sizes}: no tensor has such.")
    if dtype == "DT_STRING":
        strings = [
            value if name.endswith("_bytes") else value.decode(errors="replace")
            for value in tensor.string_val
        ]
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
