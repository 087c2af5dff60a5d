"""ONNX Runtime, of the extra ``onnx``: batches of any length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
from tf2onnx.convert import from_function

from tf_groupvit.runtimes.compiled import Function, inputs_of, thread_count, traced
from tf_groupvit.runtimes.onnx_patterns import PATTERNS

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
    model, _ = from_function(
        _Traced(graph),
        input_signature=inputs_of(graph),
        opset=OPSET,
        custom_rewriter=PATTERNS,
    )
    for node in model.graph.node:  # what it cannot convert it leaves as it was
        if not node.domain and not onnx.defs.has(node.op_type):
            raise ValueError(f"there is no operation {node.op_type} in ONNX: {node.name}")
    content: bytes = model.SerializeToString()
    return content


def quantize(file: Path, examples: Sequence[dict[str, np.ndarray]] = ()) -> None:
    """Round the weights of a file to 8 bits, with a scale for each output; so is what they are
    multiplied with. All else stays float32, products with classes too.

    Args:
        examples: inputs by name, on which the ranges of what is multiplied are found; without, they
            are found at each call.
    """
    from onnxruntime.quantization import quantize_dynamic, quantize_static

    graph = onnx.load(file).graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    # A product has its weights behind, a table of embeddings has them in front.
    place = {"MatMul": 1, "Gather": 0}
    names = [
        node.name
        for node in graph.node
        if node.op_type in place
        and node.input[place[node.op_type]] in weights
        and any(part in node.name for part in ("_model", "_projection"))
    ]
    options: dict[str, Any] = dict(
        op_types_to_quantize=[*place], nodes_to_quantize=names, per_channel=True
    )
    if examples:
        quantize_static(file, file, _Reader(examples), **options)
    else:
        quantize_dynamic(file, file, **options)


class _Reader:
    """Gives examples one after the other, and at last None."""

    def __init__(self, examples: Sequence[dict[str, np.ndarray]]) -> None:
        self.left = iter(examples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


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
