"""What ONNX has as one operation, or ONNX Runtime makes one of: tf2onnx writes it as TensorFlow's
graph has it, in many.

The patterns are those of models/layers.py and models/operations.py, in the graph of TensorFlow.
ONNX Runtime fuses such chains by itself only in the form that they have in PyTorch.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto
from tf2onnx.graph import Graph, Node
from tf2onnx.graph_matcher import GraphMatcher, MatchResult, OpTypePattern


def _op(kind: str, *inputs: OpTypePattern, name: str | None = None) -> OpTypePattern:
    return OpTypePattern(kind, name=name, inputs=list(inputs))


def _any(name: str) -> OpTypePattern:
    return OpTypePattern("*", name=name)


ADD, CONSTANT = "Add|AddV2", "Const|ConstV2"
VARIANCE = _op("Mean", _op("Square", _any("squared")), _op(CONSTANT, name="axes"))
INVERSE = _op("Rsqrt", _op(ADD, VARIANCE, _op(CONSTANT, name="epsilon")))
NORM = _op("Mul", _any("x"), INVERSE)
# TensorFlow turns the norm times gamma round.
NORM_TIMES_GAMMA = _op("Mul", _any("x"), _op("Mul", INVERSE, _op(CONSTANT, name="gamma")))
SCALED_ERF = _op("Erf", _op("Mul", _any("x"), _op(CONSTANT, name="factor"), name="scaled"))
HIGHEST = _op("Maximum", _op("Max", _any("y"), _op(CONSTANT, name="axis")), _op(CONSTANT))
CHOSEN = _op("SelectV2", _op("Equal", _any("x"), HIGHEST), _any("index"), _any("last"))
FIRST_ARGMAX = _op("Minimum", _op("Min", CHOSEN, _op(CONSTANT)), _any("most"))


def _matches(pattern: OpTypePattern, nodes: list[Node]) -> Iterator[tuple[Node, MatchResult]]:
    matcher = GraphMatcher(pattern, allow_reorder=True)
    for node in list(nodes):
        if found := matcher.match_op(node):
            yield node, found


def _value(found: MatchResult, name: str) -> np.ndarray:
    value: np.ndarray = found.get_op(name).get_tensor_value(as_list=False)
    return value


def _replace(graph: Graph, old: Node, kind: str, inputs: list[str], **attributes: Any) -> None:
    """A node of ONNX gives from now on what a node of TensorFlow gave."""
    name, outputs = old.name, old.output
    shape, dtype = graph.get_shape(outputs[0]), graph.get_dtype(outputs[0])
    graph.remove_node(name)
    graph.make_node(
        kind, inputs, attributes, outputs=outputs, name=name, shapes=[shape], dtypes=[dtype]
    )


def layer_norms(graph: Graph, nodes: list[Node]) -> list[Node]:
    """LayerNormalization. It takes the mean out of tokens that come with mean 0, too."""
    for norm, found in [*_matches(NORM_TIMES_GAMMA, nodes), *_matches(NORM, nodes)]:
        x = found.get_tensor("x")
        rank, width = graph.get_rank(x), (graph.get_shape(x) or [-1])[-1]
        axes = _value(found, "axes").flatten()
        if x != found.get_tensor("squared") or width < 1 or [*axes % rank] != [rank - 1]:
            continue
        gamma = found.get_tensor("gamma")
        beta, last = _beta(graph, norm, width)
        if gamma is None:
            gamma = graph.make_const(f"{norm.name}/ones", np.ones(width, "float32")).output[0]
        inputs = [_before_its_mean(graph, x), gamma, *beta]
        epsilon = float(_value(found, "epsilon"))
        _replace(graph, last, "LayerNormalization", inputs, axis=-1, epsilon=epsilon)
    return graph.get_nodes()


def _beta(graph: Graph, norm: Node, width: int) -> tuple[list[str], Node]:
    """The constants (width) that are added to a norm alone, and the node that adds them; else
    none, and the norm.
    """
    [name] = norm.output
    after = graph.find_output_consumers(name)
    if len(after) == 1 and after[0].type in ADD.split("|") and name not in graph.outputs:
        for other, given in zip(after[0].input, after[0].inputs, strict=True):
            if given.is_const() and graph.get_shape(other) == [width]:
                return [other], after[0]
    return [], norm


def _before_its_mean(graph: Graph, x: str) -> str:
    """What x is without its mean, or x."""
    node = graph.get_node_by_output(x)
    if node.type != "Sub" or node.inputs[1].type != "Mean":
        return x
    whole: str = node.input[0]
    return whole if node.inputs[1].input[0] == whole else x


def gelus(graph: Graph, nodes: list[Node]) -> list[Node]:
    """erf(x / sqrt(2)), from which ONNX Runtime makes a whole GELU, in place of a product."""
    for _, found in _matches(SCALED_ERF, nodes):
        if np.allclose(_value(found, "factor"), 0.5**0.5, rtol=1e-6):
            scaled = found.get_op("scaled")
            root = graph.make_const(f"{scaled.name}/root", np.array(2**0.5, "float32")).output[0]
            _replace(graph, scaled, "Div", [found.get_tensor("x"), root])
    return graph.get_nodes()


def first_argmaxes(graph: Graph, nodes: list[Node]) -> list[Node]:
    """ArgMax, which takes the first of equal values in ONNX."""
    for node, found in _matches(FIRST_ARGMAX, nodes):
        x, axis = found.get_tensor("x"), _value(found, "axis").flatten()
        if x != found.get_tensor("y") or len(axis) != 1 or not _counts(found.get_op("index")):
            continue
        how, kind = {"axis": int(axis[0]), "keepdims": 1}, graph.get_dtype(node.output[0])
        shapes, dtypes = [graph.get_shape(node.output[0])], [TensorProto.INT64]
        index = graph.make_node("ArgMax", [x], how, shapes=shapes, dtypes=dtypes)
        _replace(graph, node, "Cast", index.output, to=kind)
    return graph.get_nodes()


def _counts(index: Node) -> bool:
    """Whether a node gives 0, 1, 2, ..."""
    if not index.is_const():
        return index.type == "Reshape" and index.inputs[0].type == "Range"
    given = index.get_tensor_value(as_list=False).flatten()
    return np.array_equal(given, np.arange(len(given)))


PATTERNS = [layer_norms, gelus, first_argmaxes]
