"""ONNX Runtime, of the extra ``onnx``: batches of any length."""

from typing import Any

import numpy as np
import onnxruntime
import tensorflow as tf
from tf2onnx.convert import from_function

from tf_groupvit.runtimes.compiled import Function, inputs_of, thread_count, traced

OPSET = 18  # of ONNX: the latest that tf2onnx writes


def prepare(function: Function, shape: tuple[int, ...]) -> "OnnxProgram":
    """A program for inputs (B, *shape)."""
    graph = traced(function, (None, *shape))
    return OnnxProgram(converted(graph), [result.name for result in graph.outputs])


class _Traced:
    """All that tf2onnx asks of a function: the graph of it that is there."""

    def __init__(self, graph: tf.types.experimental.ConcreteFunction) -> None:
        self.graph = graph

    def get_concrete_function(self, *_: Any) -> tf.types.experimental.ConcreteFunction:
        return self.graph


def converted(graph: tf.types.experimental.ConcreteFunction) -> bytes:
    """The content of a file for ONNX Runtime, which holds the weights of a graph."""
    model, _ = from_function(_Traced(graph), input_signature=inputs_of(graph), opset=OPSET)
    content: bytes = model.SerializeToString()
    return content


class OnnxProgram:
    """Runs rows of one shape; its results have the order of the function, by their names."""

    def __init__(self, content: bytes, names: list[str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.log_severity_level = 3  # errors alone
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.names = names
        (self.given,) = (one.name for one in self.session.get_inputs())

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """(B, ...) -> results, B rows each."""
        results: list[np.ndarray] = self.session.run(self.names, {self.given: x})
        return results
