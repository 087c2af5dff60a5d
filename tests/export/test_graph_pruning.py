"""What pruning leaves of a function: one node for what is computed twice, the same answers."""

from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tf_groupvit.export.graph_pruning import prune

pytestmark = pytest.mark.lowest


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """Two equal sums, two sums that differ, and two random numbers, in a pruned SavedModel."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")], autograph=False)
    def answer(x: tf.Tensor) -> dict[str, tf.Tensor]:
        equal = tf.stack([tf.sqrt(x + 1.0), tf.sqrt(x + 1.0)])
        differ = tf.stack([x - 1.0, 1.0 - x])
        random = tf.stack([tf.random.uniform([]), tf.random.uniform([])])
        return {"equal": equal, "differ": differ, "random": random}

    module = tf.Module()
    module.answer = answer
    tf.saved_model.save(module, tmp_path, signatures={"answer": answer})
    file = tmp_path / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    prune(saved.meta_graphs[0])
    file.write_bytes(saved.SerializeToString())
    return tmp_path


def test_what_is_computed_twice_is_one_node_and_random_numbers_stay_two(pruned: Path) -> None:
    saved = SavedModel.FromString((pruned / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    bodies = [Counter(node.op for node in function.node_def) for function in functions]
    (body,) = [ops for ops in bodies if "Sqrt" in ops]
    assert body["Sqrt"] == body["AddV2"] == 1
    assert body["Sub"] == body["RandomUniform"] == 2
    assert body["Const"] == 2  # the number 1, and the shape of a random number


def test_answers_are_the_same(pruned: Path) -> None:
    found = tf.saved_model.load(pruned).signatures["answer"](tf.constant(8.0))
    assert found["equal"].numpy().tolist() == [3.0, 3.0]
    assert found["differ"].numpy().tolist() == [7.0, -7.0]
    first, second = found["random"].numpy().tolist()
    assert first != second
