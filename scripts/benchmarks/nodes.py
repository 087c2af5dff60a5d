"""Version folders of exports in; the nodes of each, by what they are for, out.

    scripts/bench nodes models/groupvit/1 [models/groupvit/2] [--functions]

Counted are the main graph, and the body of each function at each place that calls it. What a
function is for, its name tells or an operation in it, else the function that calls it. What is left
belongs to the signatures: their inputs, rows and outputs.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engines.from_cold import callees, meta_graph

# Room -> names of functions that Python traced, as a pattern; older exports have the last ones.
NAMES = {
    "reader": "read|_see|_resize_once|Dataset_map",
    "tokenizer": "__call__",
    "image tower": "image_tower|encode_values|encode_pixels|<lambda>",
    "text tower": "text_tower|tower",
    "scores and labels": "_label_.*",
    "restore": "_traced_restore|_initializer",
}
OPERATIONS = {"writer": {"EncodePng"}}  # of a function in this room
SINGLE = {  # of a node in this room, whatever it is in
    "restore": {"VarHandleOp", "HashTableV2"},
    "checks": {"Assert", "AsString", "StringJoin", "ReduceJoin"},
}
REST = "signatures"
ROOMS = (*NAMES, *OPERATIONS, "checks", REST)
TRACED = re.compile(r"__inference_(.+)_\d+")
Nodes = Sequence[Any]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench nodes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a version")
    parser.add_argument("--functions", action="store_true", help="list those of 20 nodes or more")
    options = parser.parse_args(arguments)
    graphs = [meta_graph(folder).graph_def for folder in options.folders]
    counts = [rooms(graph) for graph in graphs]
    for room in ROOMS:
        print(f"{room:20}" + "".join(f"{count[room]:9,}" for count in counts))
    print(f"{'in all':20}" + "".join(f"{count.total():9,}" for count in counts))
    for graph in graphs if options.functions else ():
        print()
        for room, name, nodes, sites in sorted(bodies(graph), key=lambda body: -body[2] * body[3]):
            if nodes * sites >= 20:
                print(f"{nodes:6,} x {sites}  {room:18} {name}")


def rooms(graph: Any) -> Counter[str]:
    """How many nodes of a GraphDef are in each room."""
    functions = functions_of(graph)
    found = Counter(_single(node, REST) for node in graph.node)
    for name, room in _called(graph, functions):
        found.update(_single(node, room) for node in functions[name])
    return found


def bodies(graph: Any) -> Iterator[tuple[str, str, int, int]]:
    """Room, name, nodes and call sites of each function, by room where it is called for several."""
    functions = functions_of(graph)
    sites = Counter((room, name) for name, room in _called(graph, functions))
    for (room, name), count in sites.items():
        yield room, name, len(functions[name]), count


def functions_of(graph: Any) -> dict[str, Nodes]:
    """The nodes of each function, by name."""
    return {one.signature.name: one.node_def for one in graph.library.function}


def _called(graph: Any, functions: dict[str, Nodes]) -> list[tuple[str, str]]:
    """For each place that calls a function, the function and the room it is called for."""
    calls = {
        caller: [name for node in nodes for name in callees(node) if name in functions]
        for caller, nodes in (("", graph.node), *functions.items())
    }
    own = {name: _own_room(name, nodes) for name, nodes in functions.items()}
    callers: dict[str, list[str]] = {name: [] for name in functions}
    for caller, names in calls.items():
        for name in names:
            callers[name].append(caller)
    room_of = _inherited(own, callers)
    found = []
    for caller, names in calls.items():
        for name in names:
            here = room_of(caller)
            found.append((name, own[name] or (here if here != REST else room_of(name))))
    return found


def _inherited(own: dict[str, str | None], callers: dict[str, list[str]]) -> Callable[[str], str]:
    """-> the room of a function: its own, or the first of those that call it, REST at last."""
    known = {name: room for name, room in own.items() if room} | {"": REST}

    def room_of(name: str) -> str:
        if name not in known:
            known[name] = min(map(room_of, callers[name]), key=ROOMS.index, default=REST)
        return known[name]

    return room_of


def _own_room(name: str, nodes: Nodes) -> str | None:
    """What the name of a function, or an operation in it, says."""
    traced = TRACED.fullmatch(name)
    for room, pattern in NAMES.items():
        if traced and re.match(f"(?:{pattern})(?:_|$)", traced[1]):
            return room
    operations = {node.op for node in nodes}
    return next((room for room, some in OPERATIONS.items() if some & operations), None)


def _single(node: Any, room: str) -> str:
    return next((single for single, some in SINGLE.items() if node.op in some), room)


if __name__ == "__main__":
    main()
