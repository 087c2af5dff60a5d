"""Prune the graph of an export: fewer functions, nodes and names to read, keep and optimize.

A server keeps several copies of a graph, functions and all, and reads through all of it for each
signature that it prepares. Names are most of it: Keras' are some hundred letters long, and each
stands wherever it is used. A third of the nodes are numbers and shapes that another node has, too.
Measured: one trial at the published size in a Session, 122 of the 329 MiB besides the weights and a
    quarter of the time to load were gone; scripts/bench export prints what is left.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from tensorflow.core.framework.types_pb2 import DT_RESOURCE
from tensorflow.python.framework import op_def_registry

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from google.protobuf.internal.containers import RepeatedCompositeContainer
    from google.protobuf.message import Message
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

# What Python keeps with nodes and arguments for itself; a session infers shapes anew.
_PYTHON_ONLY = ("_output_shapes", "_has_manual_control_dependencies")
_OF_ARGUMENTS = ("_output_shapes", "_user_specified_name")


def prune(meta_graph: "MetaGraphDef") -> None:
    """Leave out, in place, what neither loads nor answers and what functions compute twice, and
    shorten the names within functions.
    """
    graph, asked = meta_graph.graph_def, _asked(meta_graph)
    _keep(graph.node, lambda node: node.name in asked)
    reached = _reached(graph, set(meta_graph.object_graph_def.concrete_functions))
    _keep(graph.library.function, lambda function: function.signature.name in reached)
    nodes = (node for function in graph.library.function for node in function.node_def)
    bodies = {node.attr["body"].func.name for node in nodes if "body" in node.attr}
    for function in graph.library.function:
        if function.signature.name in bodies:
            _rows_side_by_side(function)
        _shorten(function)


def _rows_side_by_side(body: "FunctionDef") -> None:
    """Let the body of a loop count on before what has side effects is done.

    Tracing has everything that a function returns wait for all that is stateful, a decoder of
    images among them: so a loop would begin with one row only when the one before it is done.
    Here what a value needs is waited for by that value alone; what no value needs, by all.
    """
    nodes = {node.name: node for node in body.node_def}
    names = {value.partition(":")[0] for value in body.ret.values()}
    returned = [node for node in body.node_def if node.name in names]
    inputs = {node.name: [*node.input] for node in body.node_def}
    inputs |= {node.name: [one for one in node.input if one[0] != "^"] for node in returned}
    needed = _needed(body.ret.values(), inputs)
    for node in returned:
        waits = {one for one in node.input if one[0] == "^"}
        free = {one for one in waits if needed.issuperset(_needed(nodes[one[1:]].input, {}))}
        node.input[:] = [one for one in node.input if one not in free]
    for name in [name for name, node in body.control_ret.items() if node in needed]:
        del body.control_ret[name]
    body.signature.control_output[:] = sorted(body.control_ret)


def _keep(repeated: "RepeatedCompositeContainer", wanted: Callable[["Message"], bool]) -> None:
    """Keep those of a repeated field, of any message, that are wanted."""
    kept = [item for item in repeated if wanted(item)]
    del repeated[:]
    repeated.extend(kept)


def _asked(meta_graph: "MetaGraphDef") -> set[str]:
    """The nodes that load the model or answer: all but those that would save it or read it back."""
    saver, ends = meta_graph.saver_def, meta_graph.signature_def.values()
    inputs = {node.name: node.input for node in meta_graph.graph_def.node}
    names = [info.name for end in ends for info in (*end.inputs.values(), *end.outputs.values())]
    return _needed([saver.restore_op_name, saver.filename_tensor_name, *names], inputs)


def _needed(names: Iterable[str], inputs: "Mapping[str, Iterable[str]]") -> set[str]:
    """The nodes that compute values, by their names, directly or indirectly."""
    needed: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop().removeprefix("^").partition(":")[0]
        if name not in needed:
            needed.add(name)
            waiting += inputs.get(name, ())
    return needed


def _reached(graph: "GraphDef", objects: set[str]) -> set[str]:
    """The functions of objects and all functions that the graph calls, directly or indirectly."""
    functions = {function.signature.name: function for function in graph.library.function}
    reached: set[str] = set()
    waiting = [*objects, *called_by(graph.node)]
    while waiting:
        name = waiting.pop()
        if name in functions and name not in reached:
            reached.add(name)
            waiting += called_by(functions[name].node_def)
    return reached


def called_by(nodes: Iterable["NodeDef"]) -> Iterator[str]:
    """The functions that nodes call, or take as branches and bodies."""
    for node in nodes:
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func.name
            yield from (function.name for function in value.list.func)


def _share(function: "FunctionDef") -> dict[str, str]:
    """Keep one of the nodes that are equal in operation, attributes and inputs.

    -> the node that takes its place, by the name of each node that is gone.
    """
    kept: dict[bytes, str] = {}
    gone: dict[str, str] = {}
    for node in function.node_def:
        node.ClearField("experimental_debug_info")
        _drop(node.attr, _PYTHON_ONLY)
        node.input[:] = [_renamed(name, gone) for name in node.input]
        operation, nameless = op_def_registry.get(node.op), type(node)()
        nameless.CopyFrom(node)
        nameless.ClearField("name")
        if operation is not None and not operation.is_stateful:
            same = kept.setdefault(nameless.SerializeToString(deterministic=True), node.name)
            if same != node.name:
                gone[node.name] = same
    _keep(function.node_def, lambda node: node.name not in gone)
    return gone


def _shorten(function: "FunctionDef") -> None:
    """Name nodes by operation and number; so arguments that are weights and tables."""
    gone = _share(function)
    arguments = function.signature.input_arg
    captured = [argument for argument in arguments if argument.type == DT_RESOURCE]
    short = {argument.name: argument.name for argument in arguments}
    short |= {argument.name: f"resource_{i}" for i, argument in enumerate(captured)}
    short |= {node.name: f"{node.op}_{i}" for i, node in enumerate(function.node_def)}
    short |= {name: short[kept] for name, kept in gone.items()}
    for argument in captured:
        argument.name = short[argument.name]
    for number, argument in enumerate(arguments):
        if argument.type == DT_RESOURCE:
            _drop(function.arg_attr[number].attr, _OF_ARGUMENTS)
    for node in function.node_def:
        node.name = short[node.name]
        node.input[:] = [_renamed(name, short) for name in node.input]
        places = node.attr["_class"].list.s if "_class" in node.attr else []
        places[:] = [_same_device(place, short) for place in places]
    for returned in (function.ret, function.control_ret):
        for key, name in list(returned.items()):
            returned[key] = _renamed(name, short)


def _drop(attributes: "MutableMapping[str, Message]", names: tuple[str, ...]) -> None:
    """Delete entries of a protobuf map."""
    for name in names:
        if name in attributes:
            del attributes[name]


def _renamed(reference: str, short: dict[str, str]) -> str:
    """``name``, ``name:output:0`` or ``^name`` under the short name."""
    control = "^" if reference.startswith("^") else ""
    name, colon, output = reference.removeprefix("^").partition(":")
    return f"{control}{short.get(name, name)}{colon}{output}"


def _same_device(place: bytes, short: dict[str, str]) -> bytes:
    """The mark of a node that must be on the same device as another."""
    mark, at, name = place.decode().partition("@")
    return f"{mark}{at}{short.get(name, name)}".encode()
