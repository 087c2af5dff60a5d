"""The messages of the gRPC wire: those of TensorFlow Serving, without its classes or TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest

from tf_groupvit.errors import RequestError
from tf_groupvit.transport.messages import DTYPES, NUMPY_OF, fill, from_tensor, message_classes


@pytest.mark.parametrize(
    ("dtype", "field"), [(name, values) for _, name, _, values in DTYPES if name != "DT_STRING"]
)
def test_tensors_are_read_from_typed_fields_and_from_content(dtype, field):
    values = np.array([[0, 1], [1, 0]], NUMPY_OF[dtype])
    tensor = message_classes()["Tensor"]()
    fill(tensor, values)
    assert (from_tensor("x", tensor) == values).all() and from_tensor(
        "x", tensor
    ).dtype == values.dtype
    flat = (
        values.ravel().view(np.uint16).tolist() if dtype == "DT_HALF" else values.ravel().tolist()
    )
    getattr(tensor, field).extend(flat)
    tensor.ClearField("tensor_content")
    assert (from_tensor("x", tensor) == values).all() and from_tensor(
        "x", tensor
    ).dtype == values.dtype


def test_a_tensor_that_cannot_be_read_is_an_error():
    tensor = message_classes()["Tensor"](dtype=14)
    with pytest.raises(RequestError, match="type 14"):
        from_tensor("x", tensor)
    short = message_classes()["Tensor"](dtype=1, float_val=[1.0])
    short.tensor_shape.dim.add(size=3)
    with pytest.raises(RequestError, match="1 values for the shape"):
        from_tensor("x", short)


def test_the_client_loads_no_tensorflow_and_no_extra_unasked():
    code = """
import sys, tf_groupvit.client as c
assert not {"tensorflow", "keras", "httpx", "grpc", "google.protobuf"} & set(sys.modules)
c.Client("grpc://localhost:1"), c.Client("localhost:1")
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


SAME_BYTES = """
import numpy as np, sys
from tf_groupvit.transport.messages import message_classes, fill
ours = message_classes()
from tensorflow_serving.apis import get_model_metadata_pb2 as md, get_model_status_pb2 as st, model_pb2, predict_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
import tensorflow as tf
theirs = {
    "Dim": tensor_shape_pb2.TensorShapeProto.Dim, "Shape": tensor_shape_pb2.TensorShapeProto,
    "Tensor": tensor_pb2.TensorProto, "ModelSpec": model_pb2.ModelSpec, "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse, "GetModelStatusRequest": st.GetModelStatusRequest,
    "GetModelStatusResponse": st.GetModelStatusResponse, "VersionStatus": st.ModelVersionStatus,
    "GetModelMetadataRequest": md.GetModelMetadataRequest, "GetModelMetadataResponse": md.GetModelMetadataResponse,
    "SignatureDefMap": md.SignatureDefMap, "TensorInfo": meta_graph_pb2.TensorInfo,
    "SignatureDef": meta_graph_pb2.SignatureDef}
kinds = lambda f: "varint" if f.type == f.TYPE_ENUM or f.type == f.TYPE_INT32 else f.type
for name, generated in theirs.items():
    for f in ours[name].DESCRIPTOR.fields:
        g = generated.DESCRIPTOR.fields_by_name[f.name]
        same = (g.number, kinds(g), g.is_repeated, g.is_packed) == (f.number, kinds(f), f.is_repeated, f.is_packed)
        assert same, (name, f.name)
from tf_groupvit.transport.messages import NUMBER_OF
assert all(types_pb2.DataType.Value(name) == number for name, number in NUMBER_OF.items())
a, b = ours["PredictRequest"](), predict_pb2.PredictRequest()
a.model_spec.name = b.model_spec.name = "groupvit"
a.model_spec.version.value = 3; b.model_spec.version.value = 3
a.model_spec.signature_name = b.model_spec.signature_name = "segment"
fill(a.inputs["image_bytes"], [b"\\0\\xff", "dog"])
b.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([b"\\0\\xff", b"dog"]))
assert a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)
floats, integers = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.int64)
for values in (floats, integers, np.array([True, False]), np.float16([1.5, 2])):
    x = ours["Tensor"](); fill(x, values)
    assert (tf.make_ndarray(tensor_pb2.TensorProto.FromString(x.SerializeToString())) == values).all()
print("same")
"""


@pytest.mark.slow
def test_messages_are_byte_for_byte_those_of_tensorflow_serving():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SAME_BYTES], capture_output=True, text=True
    )
    assert done.stdout.endswith("same\n"), done.stderr[-2000:]
