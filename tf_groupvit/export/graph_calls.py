"""Have functions of an export stay calls, so that a session optimizes little before its answers.

A session optimizes the graph of each signature anew, and by default puts everything that the graph
calls into it first: readers of all image formats, both towers, thousands of nodes on one thread.
Here a function that is called stays a call, and says itself what is to be optimized in it:

- ``_noinline``: the call is not replaced by the nodes of the function. The function is prepared
  when it is first called, alone. Functions that can refuse a whole request lack it: TensorFlow
  would put the name of each function that stays a call before the words.
- ``_tf_data_function``: Grappler, which optimizes graphs, passes over the function in the library.
  It is what tf.data writes on its own functions, which it optimizes itself.
- ``config_proto`` of a call: what Grappler does in the function when it is prepared: nothing, but
  in the towers ``remap``, which lets a matrix product add its bias and compute GELU by itself.
  Without it batches of 8 are 4% slower.

Measured with the published sizes: scripts/bench start.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from tf_groupvit.export.graph_pruning import called_by

if TYPE_CHECKING:
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
PRODUCTS_OF_A_TOWER = 8  # at least; what compares groups with classes has two


def keep_calls(meta_graph: "MetaGraphDef") -> None:
    """Mark, in place, functions and calls as the module says; restoring loses its copies."""
    functions = {one.signature.name: one for one in meta_graph.graph_def.library.function}
    for function in functions.values():
        function.attr["_tf_data_function"].b = True
    for call in _calls(meta_graph.graph_def):
        function = functions[call.attr["f"].func.name]
        if not _refuses(function, functions):
            function.attr["_noinline"].b = True
        products = sum(node.op == "MatMul" for node in function.node_def)
        is_tower = products >= PRODUCTS_OF_A_TOWER
        call.attr["config_proto"].s = _config(is_tower).SerializeToString(deterministic=True)
    _restore_directly(functions, meta_graph)


def _calls(graph: "GraphDef") -> Iterator["NodeDef"]:
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from (node for node in nodes if node.op in CALLS)


def _refuses(function: "FunctionDef", functions: dict[str, "FunctionDef"]) -> bool:
    """Whether a function, or one that it calls, can end a request."""
    called = (functions[name] for name in called_by(function.node_def))
    return any(node.op == "Assert" for node in function.node_def) or any(
        _refuses(one, functions) for one in called
    )


def _config(is_tower: bool) -> ConfigProto:
    """What Grappler does in a function."""
    config = ConfigProto()
    options = config.graph_options.rewrite_options
    if is_tower:
        options.optimizers.append("remap")
        options.meta_optimizer_iterations = RewriterConfig.ONE
    else:
        options.disable_meta_optimizer = True
    return config


def _restore_directly(functions: dict[str, "FunctionDef"], meta_graph: "MetaGraphDef") -> None:
    """What is restored is assigned as it is read, without an Identity between."""
    name = meta_graph.saver_def.restore_op_name
    called = [node.attr["f"].func.name for node in meta_graph.graph_def.node if node.name == name]
    for function in (functions[one] for one in called):
        returned = {value.partition(":")[0] for value in function.ret.values()}
        passed = {
            f"{node.name}:output:0": node.input[0]
            for node in function.node_def
            if node.op == "Identity" and node.name not in returned
        }
        for node in function.node_def:
            node.input[:] = [passed.get(one, one) for one in node.input]
        gone = {one.partition(":")[0] for one in passed}
        controlling = {one[1:] for node in function.node_def for one in node.input if one[0] == "^"}
        kept = [node for node in function.node_def if node.name not in gone - controlling]
        del function.node_def[:]
        function.node_def.extend(kept)
