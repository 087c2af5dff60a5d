"""An export loads and answers through TensorFlow's loader in C++, the one of model servers."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_groupvit.export.version_folder import check_requests

STRING = tf.string.as_datatype_enum
STRING_BYTES = 24  # sizeof(TF_TString)
POINTERS = (
    "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_LoadSessionFromSavedModel TF_Message"
    " TF_GraphOperationByName TF_AllocateTensor TF_TensorData TF_StringGetDataPointer"
).split()
SIZES = "TF_TensorByteSize TF_Dim TF_StringGetSize".split()
At = ctypes.c_void_p


class Output(ctypes.Structure):
    _fields_ = [("operation", At), ("index", ctypes.c_int)]


def library():
    file = next(Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*"))
    found = ctypes.CDLL(str(file))
    for name in POINTERS:
        getattr(found, name).restype = At
    for name in SIZES:
        getattr(found, name).restype = ctypes.c_int64
    return found


def tensor_of(c, value):
    """An array, or strings as an array of bytes, as a TF_Tensor."""
    value = np.ascontiguousarray(value)
    is_text = value.dtype.kind in "SO"
    kind = STRING if is_text else tf.as_dtype(value.dtype).as_datatype_enum
    sides = (ctypes.c_int64 * max(value.ndim, 1))(*value.shape)
    size = value.size * STRING_BYTES if is_text else value.nbytes
    made = At(c.TF_AllocateTensor(kind, sides, value.ndim, ctypes.c_size_t(size)))
    data = c.TF_TensorData(made)
    if not is_text:
        ctypes.memmove(data, value.ctypes.data, size)
        return made
    for number, text in enumerate(value.ravel()):
        place = At(data + number * STRING_BYTES)
        c.TF_StringInit(place)
        c.TF_StringCopy(place, text, ctypes.c_size_t(len(text)))
    return made


def array_of(c, tensor):
    """A TF_Tensor as an array."""
    shape = [c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor))]
    kind, data = tf.as_dtype(c.TF_TensorType(tensor)), c.TF_TensorData(tensor)
    if kind != tf.string:
        found = ctypes.string_at(data, c.TF_TensorByteSize(tensor))
        return np.frombuffer(found, kind.as_numpy_dtype).reshape(shape)
    places = [At(data + number * STRING_BYTES) for number in range(int(np.prod(shape)))]
    texts = [
        ctypes.string_at(c.TF_StringGetDataPointer(place), c.TF_StringGetSize(place))
        for place in places
    ]
    return np.array(texts, object).reshape(shape)


def ask(c, session, graph, status, signature, inputs):
    """The outputs of one request, by name."""

    def ends(infos):
        parts = [info.name.partition(":") for info in infos]
        found = [
            Output(c.TF_GraphOperationByName(graph, name.encode()), int(index))
            for name, _, index in parts
        ]
        return (Output * len(found))(*found)

    feeds = [tensor_of(c, value) for value in inputs.values()]
    answers = (At * len(signature.outputs))()
    c.TF_SessionRun(
        session, None, ends([signature.inputs[name] for name in inputs]),
        (At * len(feeds))(*feeds), len(feeds), ends(signature.outputs.values()), answers,
        len(answers), None, 0, None, status,
    )  # fmt: skip
    assert c.TF_GetCode(status) == 0, ctypes.string_at(c.TF_Message(status))
    found = {name: array_of(c, At(at)) for name, at in zip(signature.outputs, answers, strict=True)}
    for tensor in (*feeds, *map(At, answers)):
        c.TF_DeleteTensor(tensor)
    return found


@pytest.mark.slow
def test_every_signature_answers_through_the_loader_in_cpp_as_in_python(export):
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    signatures = parse_saved_model(str(export.path)).meta_graphs[0].signature_def
    in_python = tf.saved_model.load(str(export.path)).signatures
    c = library()
    status, graph, options = At(c.TF_NewStatus()), At(c.TF_NewGraph()), At(c.TF_NewSessionOptions())
    tags, path = (ctypes.c_char_p * 1)(b"serve"), str(export.path).encode()
    session = At(c.TF_LoadSessionFromSavedModel(options, None, path, tags, 1, graph, None, status))
    assert c.TF_GetCode(status) == 0
    requests = dict(check_requests(export.path, export.segmenter))  # the last of each signature
    for name, inputs in requests.items():
        kinds = {key: tf.as_dtype(info.dtype) for key, info in signatures[name].inputs.items()}
        given = {key: tf.constant(value, kinds[key]) for key, value in inputs.items()}
        # ``segment`` is another name of the default, which Python's loader does not have.
        wanted = in_python["serving_default" if name == "segment" else name](**given)
        arrays = {key: value.numpy() for key, value in given.items()}
        found = ask(c, session, graph, status, signatures[name], arrays)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            if value.dtype.is_floating:
                np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(found[key], value, err_msg=f"{name}: {key}")
    assert set(requests) == set(signatures) - {"__saved_model_init_op"}
    c.TF_DeleteSession(session, status)
    c.TF_DeleteSessionOptions(options)
    c.TF_DeleteGraph(graph)
    c.TF_DeleteStatus(status)
