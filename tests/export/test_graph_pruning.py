"""What pruning leaves of functions: one node for what is computed twice, loops that run ahead, the
same answers.
"""

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

    return _pruned(answer, tmp_path)


def _pruned(answer: tf.types.experimental.PolymorphicFunction, folder: Path) -> Path:
    """A SavedModel of a function, pruned."""
    module = tf.Module()
    module.answer = answer
    tf.saved_model.save(module, folder, signatures={"answer": answer})
    file = folder / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    prune(saved.meta_graphs[0])
    file.write_bytes(saved.SerializeToString())
    return folder


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


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """A loop over rows, each read by a dataset, which is stateful, and checked beside."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
    def answer(x: tf.Tensor) -> dict[str, tf.Tensor]:
        def row(one: tf.Tensor) -> tf.Tensor:
            tf.debugging.Assert(one > 0.0, ["Expected positive numbers"])
            return tf.data.Dataset.from_tensors(one).map(tf.sqrt).get_single_element()

        return {"roots": tf.map_fn(row, x)}

    return _pruned(answer, tmp_path)


def _awaited(folder: Path, operation: str) -> tuple[list[set[str]], set[str]]:
    """Of the body that has an operation: those that each of its values waits for, but for what is
    passed on as it is, and those that its end waits for.
    """
    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    (body,) = [f for f in functions if any(node.op == operation for node in f.node_def)]
    nodes = {node.name: node for node in body.node_def}

    def operations(name: str) -> set[str]:
        node = nodes.get(name.removeprefix("^").partition(":")[0])
        return {node.op}.union(*map(operations, node.input)) if node else set()

    values = [operations(value) for value in body.ret.values()]
    return [one for one in values if one], {nodes[name].op for name in body.control_ret.values()}


def test_a_loop_counts_on_before_a_row_is_read(loop: Path) -> None:
    values, end = _awaited(loop, "DatasetToSingleElement")
    assert sum("DatasetToSingleElement" in found for found in values) == 1  # the row itself
    assert end == set()  # which a loop would wait for, too


def test_what_no_value_needs_is_waited_for_by_all(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
    def answer(x: tf.Tensor) -> dict[str, tf.Tensor]:
        def row(one: tf.Tensor) -> tf.Tensor:
            tf.debugging.Assert(one > 0.0, ["Expected positive numbers"])
            return one + 1.0

        return {"more": tf.map_fn(row, x)}

    values, end = _awaited(_pruned(answer, tmp_path), "Assert")
    assert values and all("Assert" in found for found in values) and end == {"Assert"}


def test_the_rows_and_the_check_of_a_loop_are_the_same(loop: Path) -> None:
    answer = tf.saved_model.load(loop).signatures["answer"]
    assert answer(tf.constant([9.0, 4.0, 1.0]))["roots"].numpy().tolist() == [3.0, 2.0, 1.0]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected positive numbers"):
        answer(tf.constant([9.0, -4.0]))
