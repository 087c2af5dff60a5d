"""Answer requests from a version folder as tensorflow_model_server would, in a plain process.

    python -I replay.py VERSION_FOLDER RESULTS REQUESTS

Loads the folder into a session with the tag ``serve`` and runs it as the C++ server does: element
types strict, declared shapes unchecked. It runs as a file, in a process of its own, and needs
TensorFlow alone: whatever the graph needs of this package would fail here. REQUESTS and RESULTS
are pickles: [(signature, {input: array})] and {"answers": [...], "operations": {name: count}, ...}.
"""

import pickle
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, TensorInfo
from tensorflow.python.framework import op_def_registry

PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")  # a server has no Python
COMPILED = ("XlaCallModule", "XlaLaunch")  # nor, without an option, XLA
INITIALIZER = "__saved_model_init_op"  # among the signatures, and none


class Model:
    """A loaded version."""

    def __init__(self, folder: str | Path) -> None:
        with tf.Graph().as_default() as self.graph:
            self.session = tf.compat.v1.Session(graph=self.graph)
            self.meta = tf.compat.v1.saved_model.load(self.session, ["serve"], str(folder))
        self.session._extend_graph()
        self.signatures = self.meta.signature_def

    def _ends(self, infos: Mapping[str, TensorInfo]) -> dict[str, Any]:
        return {
            name: self.graph.get_tensor_by_name(info.name)._as_tf_output()
            for name, info in infos.items()
        }

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, as the C++ session gives them; arrays of any shape go in.

        Raises:
            tf.errors.OpError: the graph refuses them.
        """
        declared = self.signatures[signature]
        into, out = self._ends(declared.inputs), self._ends(declared.outputs)
        feeds = {into[name]: np.asarray(value) for name, value in inputs.items()}
        found = self.session._call_tf_sessionrun(None, feeds, [*out.values()], [], None)
        return dict(zip(out, found, strict=True))

    def answer(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        """A request with its outputs, or with the (code, message) of its error, and the seconds.

        Inputs and outputs are arrays of any shape by name.
        """
        started = time.perf_counter()
        try:
            outputs, error = self.run(signature, inputs), None
        except tf.errors.OpError as refused:
            outputs, error = {}, (refused.error_code, refused.message)
        seconds = time.perf_counter() - started
        return dict(
            signature=signature, inputs=inputs, outputs=outputs, error=error, seconds=seconds
        )


def nodes(meta: MetaGraphDef) -> Iterator[NodeDef]:
    """The nodes of a graph and of its functions."""
    yield from meta.graph_def.node
    for function in meta.graph_def.library.function:
        yield from function.node_def


def operations(meta: MetaGraphDef) -> dict[str, int]:
    """How often each operation is in the graph and its functions, calls of functions aside."""
    functions = {function.signature.name for function in meta.graph_def.library.function}
    counts: dict[str, int] = {}
    for node in nodes(meta):
        if node.op not in functions:
            counts[node.op] = counts.get(node.op, 0) + 1
    return dict(sorted(counts.items()))


def faults(meta: MetaGraphDef) -> list[str]:
    """What a stock server could not run, in words."""
    counts = operations(meta)
    found = [f"operation {name} needs Python" for name in PYTHON if name in counts]
    found += [f"operation {name} needs XLA" for name in COMPILED if name in counts]
    unknown = [name for name in counts if op_def_registry.get(name) is None]
    found += [f"operation {name} is not in core TensorFlow" for name in unknown]
    functions = meta.graph_def.library.function
    compiled = [node.name for node in nodes(meta) if _must_compile(node)]
    compiled += [one.signature.name for one in functions if _must_compile(one)]
    return found + [f"{name} must be compiled by XLA" for name in compiled]


def _must_compile(one: NodeDef | FunctionDef) -> bool:
    """Whether a node or a function is marked so."""
    return one.attr["_XlaMustCompile"].b if "_XlaMustCompile" in one.attr else False


def main(folder: str, results: str, requests: str) -> None:
    """Load a version folder, answer a file of requests, and write a file of results."""
    started = time.perf_counter()
    model = Model(folder)
    loaded = time.perf_counter() - started
    found = {
        "answers": [
            model.answer(*request) for request in pickle.loads(Path(requests).read_bytes())
        ],
        "signatures": sorted(name for name in model.signatures if name != INITIALIZER),
        "operations": operations(model.meta),
        "faults": faults(model.meta),
        "seconds_to_load": loaded,
        "tensorflow": tf.__version__,
    }
    Path(results).write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    # Whether it is installed or not, nothing of the package can be imported from here on.
    sys.modules["tf_groupvit"] = None  # type: ignore[assignment]
    main(*sys.argv[1:])
