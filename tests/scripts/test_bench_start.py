"""What `scripts/bench start` counts, compares and asks, by hand-sized examples."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts/benchmarks"


@pytest.fixture(autouse=True)
def scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def test_a_body_counts_at_each_place_that_calls_its_function(tmp_path):
    from engines.from_cold import weigh

    saved = SavedModel()
    graph = saved.meta_graphs.add().graph_def
    graph.node.add(name="x", op="Placeholder")
    for name in ("first", "second"):
        graph.node.add(name=name, op="PartitionedCall").attr["f"].func.name = "outer"
    branches = graph.node.add(name="case", op="Case").attr["branches"].list
    branches.func.add(name="outer")
    branches.func.add(name="inner")
    outer, inner = graph.library.function.add(), graph.library.function.add()
    outer.signature.name, inner.signature.name = "outer", "inner"
    outer.node_def.add(name="call", op="inner")
    outer.node_def.add(name="one", op="Const")
    inner.node_def.add(name="add", op="AddV2")
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    assert weigh(tmp_path) == {"main graph": 4, "with bodies at each call": 4 + 3 * 2 + 2 * 1}


def readings(before, here):
    """Two rounds of one row."""
    return {"9e2b": [{"load": one} for one in before], "here": [{"load": one} for one in here]}


def test_ratios_are_taken_round_by_round(capsys):
    from start import table

    found = table("Session", readings([[4.0, 2.0], [9.0, 2.0]], [[2.0, 2.0], [3.0, 0.5]]))
    assert found == {"load": {"9e2b": [6.5, 2.0], "here": [2.5, 1.25], "times better": [2.5, 2.5]}}
    assert "2.50 (2.00 to 3.00)" in capsys.readouterr().out


def test_amounts_have_no_processor_time(capsys):
    from start import table

    found = table("Nodes", readings([1200, 1200], [600, 600]))
    assert found["load"]["times better"] == [2.0]
    assert "1,200" in capsys.readouterr().out


def test_an_aim_is_reached_or_missed_by_the_clock(capsys):
    from start import aims

    rows = {
        "server": {"first answer": {"times better": [4.5, 3.0]}},
        "session": {"alone: classify": {"times better": [2.5, 3.5]}},
    }
    assert list(aims(rows)) == ["server, first answer", "session, alone: classify"]
    said = capsys.readouterr().out
    assert "reached  server, first answer: 4.50 (3.00), aim 4" in said
    assert "MISSED   session, alone: classify: 2.50 (3.50), aim 3" in said


def test_a_rest_request_has_its_inputs_in_columns():
    from engines.server_start import body_of

    body = body_of("open", {"image": [b"abc"], "names": ["a,b"], "ids": np.array([[1, 2]])})
    inputs = {"image": [{"b64": "YWJj"}], "names": ["a,b"], "ids": [[1, 2]]}
    assert json.loads(body) == {"signature_name": "open", "inputs": inputs}


def test_every_signature_has_an_example():
    from start import signature_requests

    from tf_groupvit.export.signatures import SIGNATURES

    demo = Path(__file__).resolve().parents[2] / "tf_groupvit/assets/demo"
    wanted = {"serving_default"} | set(SIGNATURES) - {"segment"}  # which is the default one
    assert set(signature_requests(b"", demo)) == wanted


@pytest.mark.slow
def test_a_session_answers_each_signature_alone_and_in_turn(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": x + x}, input_signature=[tf.TensorSpec([1])])
    tf.saved_model.save(module, tmp_path / "1", signatures={"double": module.double})
    requests = tmp_path / "requests"
    requests.write_bytes(pickle.dumps({"double": {"x": np.ones(1)}, "other": {}}))
    command = [
        sys.executable,
        SCRIPTS / "engines/from_cold.py",
        "session",
        tmp_path / "1",
        requests,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    rows = ("alone: double", "load and double, alone", "load", "in turn: double", "steady double")
    assert all(len(found[name]) == 2 for name in rows)
    assert not any("other" in name for name in found)
