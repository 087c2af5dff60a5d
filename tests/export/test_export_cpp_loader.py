"""An export loads and answers through TensorFlow's loader in C++, the one of model servers."""

import ctypes
from pathlib import Path

import numpy as np
import tensorflow as tf
from exported import drawn

UINT8 = 4  # TF_UINT8


class Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def library():
    file = next(Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*"))
    found = ctypes.CDLL(str(file))
    for name in (
        "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_LoadSessionFromSavedModel"
        " TF_GraphOperationByName TF_AllocateTensor TF_TensorData"
    ).split():
        getattr(found, name).restype = ctypes.c_void_p
    return found


def test_a_signature_answers_through_the_loader_in_cpp_as_the_segmenter_does(export):
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    meta = parse_saved_model(str(export.path)).meta_graphs[0]
    signature = meta.signature_def["segment_pixels"]
    c, at = library(), ctypes.c_void_p
    status, graph = at(c.TF_NewStatus()), at(c.TF_NewGraph())
    tags = (ctypes.c_char_p * 1)(b"serve")
    path, options = str(export.path).encode(), at(c.TF_NewSessionOptions())
    session = at(c.TF_LoadSessionFromSavedModel(options, None, path, tags, 1, graph, None, status))
    assert c.TF_GetCode(status) == 0

    def end(info):
        name, _, index = info.name.partition(":")
        return Output(c.TF_GraphOperationByName(graph, name.encode()), int(index))

    pixels = np.ascontiguousarray(drawn(40, 24)[None])
    sides = (ctypes.c_int64 * 4)(*pixels.shape)
    given = at(c.TF_AllocateTensor(UINT8, sides, 4, ctypes.c_size_t(pixels.nbytes)))
    ctypes.memmove(c.TF_TensorData(given), pixels.ctypes.data, pixels.nbytes)
    inputs, outputs = end(signature.inputs["pixels"]), end(signature.outputs["labels"])
    feeds, answers = (at * 1)(given), (at * 1)()
    c.TF_SessionRun(
        session, None, ctypes.byref(inputs), feeds, 1, ctypes.byref(outputs), answers, 1,
        None, 0, None, status,
    )  # fmt: skip
    assert c.TF_GetCode(status) == 0
    labels = ctypes.string_at(c.TF_TensorData(at(answers[0])), 40 * 24)
    expected = export.segmenter(pixels[0]).labels
    agreed = np.frombuffer(labels, np.uint8).reshape(40, 24) == expected
    assert agreed.mean() > 0.98
    for tensor in (given, at(answers[0])):
        c.TF_DeleteTensor(tensor)
    c.TF_DeleteSession(session, status)
    c.TF_DeleteSessionOptions(options)
    c.TF_DeleteGraph(graph)
    c.TF_DeleteStatus(status)
