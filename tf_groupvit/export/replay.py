"""A version folder in; the answers to its warm-up requests, or to others, and its operations out.

    python -I replay.py VERSION_FOLDER RESULTS [REQUESTS]

Loads the folder as tensorflow_model_server does, into a session with the tag ``serve``, and runs it
as the C++ server
would: element types strict, declared shapes unchecked. It runs as a file, in a process of its own,
    and needs TensorFlow alone: whatever the graph needs of this package would fail here. REQUESTS
    and RESULTS are pickles: [(signature, {input: array})] and {"answers": [...], "operations":
    {name: count}, ...}.
"""

import pickle
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.python.framework import op_def_registry

PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")  # a server has no Python
COMPILED = ("XlaCallModule", "XlaLaunch")  # nor, unless it is told to, XLA


def fields(message):
    """The fields of a serialized message: (number, bytes or int), in the order written."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
        else:
            length = varint() if kind == 2 else {1: 8, 5: 4}[kind]
            yield number, message[at : at + length]
            at += length


def request_of(record):
    """(signature, {input: array}) of a PredictionLog."""
    request = dict(fields(dict(fields(record))[6]))[1]
    signature, inputs = "", {}
    for number, value in fields(request):
        if number == 1:
            signature = dict(fields(value)).get(3, b"").decode()
        elif number == 2:
            entry = dict(fields(value))
            inputs[entry[1].decode()] = tf.make_ndarray(TensorProto.FromString(entry[2]))
    return signature or "serving_default", inputs


def warmup_requests(folder):
    file = Path(folder) / "assets.extra" / "tf_serving_warmup_requests"
    return [request_of(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]


class Model:
    """A loaded version."""

    def __init__(self, folder):
        with tf.Graph().as_default() as self.graph:
            self.session = tf.compat.v1.Session(graph=self.graph)
            self.meta = tf.compat.v1.saved_model.load(self.session, ["serve"], str(folder))
        self.session._extend_graph()
        self.signatures = self.meta.signature_def

    def ends(self, infos):
        return {
            name: self.graph.get_tensor_by_name(info.name)._as_tf_output()
            for name, info in infos.items()
        }

    def run(self, signature, inputs):
        """Outputs by name, as the C++ session gives them."""
        signature = self.signatures[signature]
        into, out = self.ends(signature.inputs), self.ends(signature.outputs)
        feeds = {into[name]: np.asarray(value) for name, value in inputs.items()}
        return dict(
            zip(
                out,
                self.session._call_tf_sessionrun(None, feeds, [*out.values()], [], None),
                strict=True,
            )
        )

    def answer(self, signature, inputs):
        started = time.perf_counter()
        try:
            outputs, error = self.run(signature, inputs), None
        except tf.errors.OpError as refused:
            outputs, error = {}, (refused.error_code, refused.message)
        seconds = time.perf_counter() - started
        return dict(
            signature=signature, inputs=inputs, outputs=outputs, error=error, seconds=seconds
        )


def nodes(meta):
    yield from meta.graph_def.node
    for function in meta.graph_def.library.function:
        yield from function.node_def


def operations(meta):
    """How often each operation is in the graph and its functions; calls of functions are no
    operations.
    """
    functions = {function.signature.name for function in meta.graph_def.library.function}
    counts: dict[str, int] = {}
    for node in nodes(meta):
        if node.op not in functions:
            counts[node.op] = counts.get(node.op, 0) + 1
    return dict(sorted(counts.items()))


def faults(meta):
    """What a stock server could not run, in words."""
    counts = operations(meta)
    found = [f"operation {name} needs Python" for name in PYTHON if name in counts]
    found += [f"operation {name} needs XLA" for name in COMPILED if name in counts]
    found += [
        f"operation {name} is not in core TensorFlow"
        for name in counts
        if op_def_registry.get(name) is None
    ]
    compiled = [node.name for node in nodes(meta) if _must_compile(node)]
    compiled += [
        one.signature.name for one in meta.graph_def.library.function if _must_compile(one)
    ]
    return found + [f"{name} must be compiled by XLA" for name in compiled]


def _must_compile(node):
    return node.attr["_XlaMustCompile"].b if "_XlaMustCompile" in node.attr else False


def main(folder, results, requests=None):
    started = time.perf_counter()
    model = Model(folder)
    loaded = time.perf_counter() - started
    asked = pickle.loads(Path(requests).read_bytes()) if requests else warmup_requests(folder)
    found = {
        "answers": [model.answer(*request) for request in asked],
        "operations": operations(model.meta),
        "faults": faults(model.meta),
        "seconds_to_load": loaded,
        "tensorflow": tf.__version__,
    }
    Path(results).write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    sys.modules["tf_groupvit"] = None  # type: ignore[assignment]  # installed or not, nothing of it can be imported
    main(*sys.argv[1:])
