"""An export is written whole, with all that a server reads, and its signatures are as listed."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from exported import tiny_segmenter
from google.protobuf import text_format
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tf_groupvit.client import ONE_EACH, OUTPUTS
from tf_groupvit.errors import ExportError
from tf_groupvit.export import export_saved_model, version_folder
from tf_groupvit.export.saving import Limits, versions_in
from tf_groupvit.export.signatures import (
    DEFAULT,
    DEFAULT_OF,
    SIGNATURES,
    SignatureFunctions,
    row_of,
)
from tf_groupvit.export.version_folder import read_warmup
from tf_groupvit.segmentation.pipeline import AT_ONCE
from tf_groupvit.segmentation.prompts import ClassEmbeddings
from tf_groupvit.segmentation.segmenter import Segmenter

NAMES = {DEFAULT, *SIGNATURES}
MOST_NODES = 10_000  # main graph, and the body of each function at each of its calls


def meta_of(path):
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    return parse_saved_model(str(path)).meta_graphs[0]


def test_all_signatures_are_there_named_and_with_an_open_leading_dimension(export):
    signatures = {
        k: v for k, v in meta_of(export.path).signature_def.items() if not k.startswith("__")
    }
    assert set(signatures) == NAMES
    for signature in signatures.values():
        assert signature.method_name == "tensorflow/serving/predict"
        for name, info in [*signature.inputs.items(), *signature.outputs.items()]:
            assert re.fullmatch("[a-z][a-z0-9_]*", name) and info.tensor_shape.dim[0].size == -1
    for name, signature in signatures.items():
        for declared, infos in (
            (row_of(name).inputs, signature.inputs),
            (row_of(name).outputs, signature.outputs),
        ):
            found = {
                key: (tf.dtypes.as_dtype(info.dtype).name, len(info.tensor_shape.dim))
                for key, info in infos.items()
            }
            assert found == {
                key: (text.split()[0], text.count(",") + 1) for key, text in declared.items()
            }
    with_error = {name for name, signature in signatures.items() if "error" in signature.outputs}
    assert with_error == {
        name for name, signature in signatures.items() if "image_bytes" in signature.inputs
    }


def cell(entries):
    return ", ".join(f"`{name}` {kind}" for name, kind in entries.items())


def test_the_page_on_serving_lists_every_signature_as_it_is():
    page = (Path(__file__).parents[2] / "serving" / "README.md").read_text()
    for name, row in SIGNATURES.items():
        names = f"`{DEFAULT}`, `{name}`" if name == DEFAULT_OF else f"`{name}`"
        assert f"\n| {names} | {cell(row.inputs)} | {cell(row.outputs)} |\n" in page


def test_the_client_reads_outputs_that_there_are(export):
    """The client works without TensorFlow, so it has a table of its own."""
    for name, outputs in OUTPUTS.items():
        for output, dtype in outputs.items():
            kind = SIGNATURES[name].outputs[output].split()[0]
            assert tf.dtypes.as_dtype(kind).as_datatype_enum == DataType.Value(dtype)
            assert (SIGNATURES[name].outputs[output].endswith(" (B)")) == (output in ONE_EACH)


def test_only_outputs_that_hold_bytes_are_called_so(export):
    for signature in meta_of(export.path).signature_def.values():
        for name, info in signature.outputs.items():
            if info.dtype == tf.string.as_datatype_enum:
                assert name.endswith("_bytes") == (name == "mask_bytes")


def test_the_weights_are_there_once(export):
    weights = sum(np.prod(v.shape) * 4 for v in export.segmenter.model.weights)
    data = sum(file.stat().st_size for file in (export.path / "variables").glob("variables.data*"))
    assert weights <= data <= weights * 1.1 + 10_000  # names of variables, and the table of them
    assert (export.path / "saved_model.pb").stat().st_size < 5e6


def test_the_warm_up_is_what_a_server_reads_small_and_valid_under_batching(export):
    file = export.path / "assets.extra" / "tf_serving_warmup_requests"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(file))]
    assert file.stat().st_size < 200_000 and len(records) <= 1000
    seen = []
    for record in records:
        log = PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        rows = {tensor.tensor_shape.dim[0].size for tensor in request.inputs.values()}
        assert len(rows) == 1
        seen.append((request.model_spec.signature_name, *rows))
    assert {name for name, _ in seen} == NAMES
    assert [rows for name, rows in seen if name == "serving_default"] == [1]


def test_warm_up_requests_are_read_as_tensorflow_servings_own_messages_read_them(export):
    file = export.path / "assets.extra" / "tf_serving_warmup_requests"
    found = read_warmup(export.path)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(file))]
    for record, (signature, inputs) in zip(records, found, strict=True):
        request = PredictionLog.FromString(record).predict_log.request
        assert record == PredictionLog.FromString(record).SerializeToString(deterministic=True)
        assert signature == request.model_spec.signature_name and set(inputs) == set(request.inputs)
        for name, value in inputs.items():
            np.testing.assert_array_equal(value, tf.make_ndarray(request.inputs[name]))
    assert len(found) == len(NAMES)


@pytest.mark.parametrize("warmup", ["default", "all", "none"])
def test_the_warm_up_asks_the_signatures_that_were_chosen(tmp_path, monkeypatch, warmup):
    def save(module, folder, **_):
        (Path(folder) / "assets.extra").mkdir(parents=True)

    monkeypatch.setattr(tf.saved_model, "save", save)
    monkeypatch.setattr(SignatureFunctions, "traced", lambda *_: dict.fromkeys(SIGNATURES))
    for step in ("_rewrite", "_write_extras"):
        monkeypatch.setattr(version_folder, step, lambda *_: None)
    path = export_saved_model(tiny_segmenter(), tmp_path, warmup=warmup)
    asked = [name for name, _ in read_warmup(path)]
    chosen = {"default": [DEFAULT], "all": [DEFAULT, *SIGNATURES], "none": []}[warmup]
    assert asked == chosen
    # Without a file, and not with an empty one, a server says that there is none.
    assert (path / version_folder.WARMUP).exists() == bool(chosen)


@pytest.mark.parametrize("warmup", ["All", "", None, True])
def test_another_warm_up_is_refused_before_anything_is_done(tmp_path, warmup):
    with pytest.raises(ExportError, match=f"^warmup is {warmup!r}: expected one of default, all"):
        export_saved_model(tiny_segmenter(), tmp_path / "base", warmup=warmup)
    assert not (tmp_path / "base").exists()


def test_extra_assets_say_what_was_exported_from_what(export):
    extra = export.path / "assets.extra"
    card, classes, palette = (
        json.loads((extra / f"{n}.json").read_text()) for n in ("card", "classes", "palette")
    )
    assert classes == {"class_names": ["background", "cat", "dog", "grass"], "background": 0.4}
    assert [entry["class"] for entry in palette] == classes["class_names"] and palette[0][
        "rgb"
    ] == [0, 0, 0]
    assert card["versions"]["tensorflow"] == tf.__version__ and len(card["weights_sha256"]) == 64
    assert (card["settings"]["protocol"], card["settings"]["mode"]) == ("paper", "whole")
    assert card["templates"] == ["a photo of a {}."]
    assert card["limits"] == {"max_images": 256, "max_texts": 4096, "max_pixels": 2**27}
    batchable = {name for name, entry in card["signatures"].items() if entry["batchable"]}
    assert batchable == NAMES - {"logits"}
    assert card["signatures"]["segment_pixels"]["outputs"] == {
        "labels": {"dtype": "uint8", "shape": [-1, -1, -1]}
    }


def test_the_batching_parameters_are_a_text_proto(export):
    from batching_proto import BatchingParameters

    found = text_format.Parse(
        (export.path / "batching_params.pbtxt").read_text(), BatchingParameters()
    )
    assert found.max_batch_size.value == 32 and not found.allowed_batch_sizes


# The version folder. What is written is not looked at here, so it is written fast.


@pytest.fixture
def fast(monkeypatch):
    def write(segmenter, folder, *_):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"graph")

    monkeypatch.setattr(version_folder, "write_version", write)
    return tiny_segmenter()


def test_versions_are_counted_from_what_is_there(fast, tmp_path):
    assert export_saved_model(fast, tmp_path / "new" / "base") == tmp_path / "new" / "base" / "1"
    for name in ("1", "0007", "9x", "12.part"):
        (tmp_path / name).mkdir()
    assert export_saved_model(fast, tmp_path).name == "8"
    assert export_saved_model(fast, tmp_path, version=3).name == "3"
    assert export_saved_model(fast, tmp_path).name == "9"


@pytest.mark.parametrize(
    ("version", "words"),
    [(7, "is at .* already"), (-1, "whole number"), (True, "whole number"), ("3", "whole number")],
)
def test_a_version_that_cannot_be_is_refused_before_anything_is_done(tmp_path, version, words):
    (tmp_path / "0007").mkdir()
    with pytest.raises(ExportError, match=words):
        export_saved_model(tiny_segmenter(), tmp_path, version=version)


def test_a_model_that_another_runtime_runs_is_refused_before_anything_is_done(tmp_path):
    parts = tiny_segmenter()
    compiled = Segmenter(
        parts.model.optimized("lite"), parts.tokenizer, parts.processor, parts.classes
    )
    with pytest.raises(
        ExportError, match=r"No server runs .*: export a segmenter of the plain model"
    ):
        export_saved_model(compiled, tmp_path / "base")
    assert not (tmp_path / "base").exists()


@pytest.mark.slow
def test_the_graph_is_exported_whatever_runs_the_segmenter_here(tmp_path):
    parts = tiny_segmenter()
    lite = Segmenter(parts.model, parts.tokenizer, parts.processor, parts.classes, runtime="lite")
    version = export_saved_model(lite, tmp_path)
    assert (version / "saved_model.pb").exists() and b"PyFunc" not in (
        version / "saved_model.pb"
    ).read_bytes()


def test_each_export_folds_the_weights_as_they_are_then():
    parts = tiny_segmenter()
    segmenter = Segmenter(parts.model, None, parts.processor, parts.classes)
    pixels, weight = (
        np.random.default_rng(0).normal(size=(1, 3, 32, 32)),
        parts.model.visual_projection.outer.kernel,
    )
    first, kept = SignatureFunctions(segmenter, Limits()), np.array(weight)
    try:
        weight.assign(np.concatenate([kept[:1], 2 * kept[1:]]))
        found = [
            each.model.get_image_features(pixels).numpy()
            for each in (first, SignatureFunctions(segmenter, Limits()))
        ]
        np.testing.assert_allclose(
            found[1], segmenter.model.get_image_features(pixels), rtol=1e-4, atol=1e-4
        )
        assert np.abs(found[1] - found[0]).max() > 0.01
    finally:
        weight.assign(kept)


def test_a_version_appears_whole_or_not_at_all(fast, tmp_path, monkeypatch):
    whole = version_folder.write_version

    def watch(segmenter, folder, *others):
        whole(segmenter, folder, *others)
        assert not folder.name.isdigit() and not versions_in(tmp_path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(version_folder, "write_version", watch)
    with pytest.raises(ExportError, match="No space left on device"):
        export_saved_model(fast, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_number_that_another_export_took_meanwhile_is_not_overwritten(
    fast, tmp_path, monkeypatch
):
    whole = version_folder.write_version

    def overtaken(segmenter, folder, *others):
        whole(segmenter, folder, *others)
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_bytes(b"theirs")

    monkeypatch.setattr(version_folder, "write_version", overtaken)
    assert export_saved_model(fast, tmp_path).name == "2"
    assert (tmp_path / "1" / "saved_model.pb").read_bytes() == b"theirs"


@pytest.mark.parametrize("limit", ["max_images", "max_texts", "max_pixels"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "9"])
def test_a_limit_that_is_no_number_from_1_is_refused(fast, tmp_path, limit, value):
    with pytest.raises(
        ExportError, match=rf"^{limit} is {value!r}: expected a whole number from 1\.$"
    ):
        export_saved_model(fast, tmp_path / "base", **{limit: value})
    assert not (tmp_path / "base").exists()


def test_a_base_path_that_is_a_file_or_a_version_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ExportError, match="is a file"):
        export_saved_model(tiny_segmenter(), tmp_path / "file")
    with pytest.raises(ExportError, match="is a version itself"):
        export_saved_model(tiny_segmenter(), tmp_path)


def many(count):
    embeds = np.eye(8, dtype="float32")[np.arange(count) % 8]
    return ClassEmbeddings(tuple(f"class {i}" for i in range(count)), embeds)


def test_more_labels_than_a_byte_holds_are_refused(fast, tmp_path):
    with pytest.raises(ExportError, match="There are 257 labels, background included"):
        export_saved_model(tiny_segmenter(classes=many(256)), tmp_path)
    assert (
        export_saved_model(tiny_segmenter(classes=many(256), background=None), tmp_path).name == "1"
    )


def test_the_graph_holds_what_signatures_run_under_short_names(export):
    meta = meta_of(export.path)
    called = {
        name for function in meta.graph_def.library.function for name in names_in(function.node_def)
    }
    called |= names_in(meta.graph_def.node) | set(meta.object_graph_def.concrete_functions)
    for function in meta.graph_def.library.function:
        assert function.signature.name in called
        assert all(
            len(node.name) < 50 and "_output_shapes" not in node.attr for node in function.node_def
        )
    assert (
        sum(
            node.op == "SaveV2"
            for function in meta.graph_def.library.function
            for node in function.node_def
        )
        == 0
    )


def names_in(nodes):
    values = [value for node in nodes for value in node.attr.values()]
    return {value.func.name for value in values} | {
        one.name for value in values for one in value.list.func
    }


def test_tensorflow_finds_all_signatures_by_name(export):
    """``tf.saved_model.load`` looks for them among the objects."""
    nodes = meta_of(export.path).object_graph_def.nodes
    (map_,) = (node for node in nodes if node.user_object.identifier == "signature_map")
    assert {child.local_name for child in map_.children} == NAMES


@pytest.mark.slow
def test_an_export_is_read_by_tensorflow_too(export):
    loaded = tf.saved_model.load(str(export.path))
    pixels = np.zeros((1, 40, 24, 3), np.uint8)
    assert set(loaded.signatures) == NAMES
    assert loaded.signatures["segment_pixels"](pixels=tf.constant(pixels))["labels"].shape == (
        1,
        40,
        24,
    )


def test_functions_stay_calls_that_say_what_is_optimized_in_them(export):
    from tensorflow.core.protobuf.config_pb2 import ConfigProto

    graph = meta_of(export.path).graph_def
    functions = {one.signature.name: one for one in graph.library.function}
    towers, calls, called, inlined = 0, 0, set(), set()
    for node in [*graph.node, *(node for one in functions.values() for node in one.node_def)]:
        if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
            config = ConfigProto.FromString(node.attr["config_proto"].s)
            optimized = config.graph_options.rewrite_options
            assert optimized.disable_meta_optimizer or list(optimized.optimizers) == ["remap"]
            towers += not optimized.disable_meta_optimizer
            name = node.attr["f"].func.name
            stays = functions[name].attr["_noinline"].b
            calls += stays
            called.add(name)
            inlined |= set() if stays else {name}
    assert towers >= 2 and calls >= 8
    # Only what can refuse a request, so that no names of functions come before its words, be it
    # by what it calls.
    assert inlined == {name for name in called if can_refuse(name, functions)}
    assert all(one.attr["_tf_data_function"].b for one in functions.values())


def test_a_request_is_refused_by_its_own_function_alone(export):
    """A refusal in a function that runs beside others could reach the caller as CANCELLED."""
    graph = meta_of(export.path).graph_def
    functions = {one.signature.name: one.node_def for one in graph.library.function}
    wrappers = {node.attr["f"].func.name for node in graph.node} & functions.keys()
    own = set().union(*(names_in(functions[name]) for name in wrappers)) & functions.keys()
    refusing = {name for name, nodes in functions.items() if any(n.op == "Assert" for n in nodes)}
    assert len(refusing) >= 8 and refusing <= own
    for name in wrappers:
        calls = [node for node in functions[name] if names_in([node]) & functions.keys()]
        assert len(calls) <= 1 or not names_in(functions[name]) & refusing


def can_refuse(name, functions):
    nodes = functions[name].node_def
    return any(node.op == "Assert" for node in nodes) or any(
        can_refuse(one, functions) for one in names_in(nodes) - {""}
    )


def test_loops_over_images_go_on_before_one_is_done(export):
    """No number that a loop counts with, and no end of its body, waits for what has effects."""
    graph = meta_of(export.path).graph_def
    functions = {one.signature.name: one for one in graph.library.function}
    nodes = [node for one in functions.values() for node in one.node_def]
    loops = [n for n in nodes if n.op == "While" and n.attr["parallel_iterations"].i == AT_ONCE]
    assert len(loops) == 4  # one that reads, and for each of three signatures one that labels
    for loop in loops:
        body = functions[loop.attr["body"].func.name]
        inside = {node.name: node for node in body.node_def}
        counted = [
            body.ret[end.name] for end in body.signature.output_arg if end.type == DataType.DT_INT32
        ]
        waiting = [*counted, *body.control_ret.values()]
        assert len(counted) >= 3 and any(node.op == "If" for node in body.node_def)  # the lock
        while waiting:
            node = inside.get(waiting.pop().removeprefix("^").partition(":")[0])
            if node is not None:
                assert node.op not in ("If", "StatefulPartitionedCall"), node.name
                waiting += node.input


def test_weights_are_assigned_as_they_are_read(export):
    graph = meta_of(export.path).graph_def
    (restore,) = (f for f in graph.library.function if any(n.op == "RestoreV2" for n in f.node_def))
    by_name = {node.name: node.op for node in restore.node_def}
    given = [n.input[1].partition(":")[0] for n in restore.node_def if n.op == "AssignVariableOp"]
    assert given and {by_name[name] for name in given} == {"RestoreV2"}


def test_the_graph_has_no_more_nodes_than_it_needs(export):
    graph = meta_of(export.path).graph_def
    functions = {one.signature.name: one.node_def for one in graph.library.function}
    calls = Counter(
        name
        for nodes in (graph.node, *functions.values())
        for node in nodes
        for name in names_in([node])
    )
    bodies = sum(calls[name] * len(nodes) for name, nodes in functions.items())
    assert len(graph.node) + bodies < MOST_NODES
