"""`scripts/bench nodes` knows what functions of an export are for."""

from pathlib import Path

import pytest
from tensorflow.core.framework.graph_pb2 import GraphDef

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts/benchmarks"


@pytest.fixture(autouse=True)
def scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def graph_of(calls, operations):
    """A GraphDef of functions; ``calls`` and ``operations``: name -> what it calls, or has."""
    graph = GraphDef()
    for name in operations:
        nodes = graph.node
        if name:
            function = graph.library.function.add()
            function.signature.name, nodes = name, function.node_def
        for called in calls.get(name, ()):
            nodes.add(op="PartitionedCall").attr["f"].func.name = called
        for operation in operations[name]:
            nodes.add(op=operation)
    return graph


def test_a_body_is_in_the_room_of_its_name_or_of_what_calls_it():
    import nodes

    calls = {
        "": ["__inference_segment_1", "__inference_encode_text_2"],
        "__inference_segment_1": ["__inference_image_tower_3", "while_body_5", "block"],
        "__inference_encode_text_2": ["__inference_text_tower_4"],
        "__inference_image_tower_3": ["block", "block"],
        "__inference_text_tower_4": ["block"],
        "while_body_5": ["__inference_read_6", "branch"],
    }
    operations = {
        "": ["Placeholder", "VarHandleOp", "VarHandleOp"],
        "__inference_segment_1": ["Assert", "Shape"],
        "__inference_encode_text_2": [],
        "__inference_image_tower_3": ["MatMul"],
        "__inference_text_tower_4": [],
        "while_body_5": ["EncodePng"],
        "__inference_read_6": ["Substr"],
        "block": ["MatMul", "AddV2", "AddV2"],
        "branch": ["Cast"],
    }
    graph = graph_of(calls, operations)
    assert nodes.rooms(graph) == {
        # calls of signatures, a placeholder, and what they call and do beside checks
        "signatures": 3 + 4 + 1,
        "restore": 2,
        "checks": 1,
        "image tower": 3 + 3 * 3,  # a block that a signature calls too is what it is elsewhere
        "text tower": 1 + 3,
        "reader": 1,
        "writer": 3 + 1,
    }
    sites = {(room, name): (size, count) for room, name, size, count in nodes.bodies(graph)}
    assert sites["image tower", "block"] == (3, 3) and sites["text tower", "block"] == (3, 1)


@pytest.mark.slow
def test_the_rooms_of_an_export_are_found_and_hold_each_node_once(tmp_path):
    import nodes
    from engines.from_cold import meta_graph, weigh
    from exported import export_of

    path = export_of().path
    found = nodes.rooms(meta_graph(path).graph_def)
    assert set(found) == set(nodes.ROOMS)
    assert found.total() == weigh(path)["with bodies at each call"]
    assert found["image tower"] > found["text tower"] > 100
