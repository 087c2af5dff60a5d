"""Messages as TensorFlow Serving's, without its classes or TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest

from tf_groupvit.errors import RequestError
from tf_groupvit.transport.messages import (
    DTYPES,
    NUMBER_OF,
    NUMPY_OF,
    fill,
    from_tensor,
    message_classes,
)


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


def test_messages_are_byte_for_byte_those_of_tensorflow_serving():
    tf = pytest.importorskip("tensorflow")
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        predict_pb2,
    )

    ours = message_classes()
    modules = (get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2, meta_graph_pb2)
    theirs = {name: getattr(m, name) for m in modules for name in ours if hasattr(m, name)} | {
        "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
        "Shape": tensor_shape_pb2.TensorShapeProto,
        "Tensor": tensor_pb2.TensorProto,
        "VersionStatus": get_model_status_pb2.ModelVersionStatus,
    }
    assert ours.keys() - theirs.keys() == {"Any", "Status", "Version"}
    for name, generated in theirs.items():
        for field in ours[name].DESCRIPTOR.fields:
            assert layout(field) == layout(generated.DESCRIPTOR.fields_by_name[field.name])
    assert {name: types_pb2.DataType.Value(name) for name in NUMBER_OF} == NUMBER_OF

    a, b = ours["PredictRequest"](), predict_pb2.PredictRequest()
    for request in (a, b):
        request.model_spec.name, request.model_spec.signature_name = "groupvit", "segment"
        request.model_spec.version.value = 3
    fill(a.inputs["image_bytes"], [b"\0\xff", "dog"])
    b.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([b"\0\xff", b"dog"]))
    assert a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)
    floats, integers = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.int64)
    for values in (floats, integers, np.array([True, False]), np.float16([1.5, 2])):
        tensor = ours["Tensor"]()
        fill(tensor, values)
        read = tensor_pb2.TensorProto.FromString(tensor.SerializeToString())
        assert (tf.make_ndarray(read) == values).all()


def layout(field):
    """How a field is written: an enum as an int32 is."""
    kind = field.TYPE_INT32 if field.type == field.TYPE_ENUM else field.type
    return field.number, kind, field.is_repeated, field.is_packed
