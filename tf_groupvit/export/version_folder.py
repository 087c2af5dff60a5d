"""Write the content of a version folder: graph, weights, warm-up requests, card and classes.

The server runs the warm-up requests after loading and before it is AVAILABLE; one that fails keeps
the model from loading.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tf_groupvit import __version__
from tf_groupvit.errors import ExportError
from tf_groupvit.export.graph_calls import keep_calls
from tf_groupvit.export.graph_pruning import prune
from tf_groupvit.export.saving import ALL, ONLY_DEFAULT, Limits
from tf_groupvit.export.signature_examples import Inputs, pictures
from tf_groupvit.export.signatures import (
    DEFAULT,
    DEFAULT_OF,
    SIGNATURES,
    SignatureFunctions,
    row_of,
)
from tf_groupvit.models.weights import variables_by_name
from tf_groupvit.segmentation.palette import class_colors
from tf_groupvit.transport.messages import SERVING, fill, message_classes

if TYPE_CHECKING:
    from tf_groupvit.models.groupvit import TFGroupViTModel
    from tf_groupvit.segmentation.segmenter import Segmenter

Request = tuple[str, Inputs]  # signature and inputs
Functions = dict[str, "tf.types.experimental.ConcreteFunction"]

WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
BATCHES = (4, 8)  # of the default signature, for the check: a server gains nothing by them
# Read by a server that runs with --enable_batching --enable_per_model_batching_parameters.
BATCHING = """\
# Requests that arrive within 5 ms of each other run as one batch of at most 32 images.
max_batch_size { value: 32 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 100 }
"""


def write_version(
    segmenter: "Segmenter",
    folder: Path,
    say: Callable[[str], None],
    limits: Limits,
    warmup: str = ALL,
) -> None:
    """Write everything that a version of a segmenter consists of to a new folder.

    ``warmup`` is one of ``saving.WARMUPS``.

    Raises:
        ExportError: TensorFlow cannot write; OSError where the folder takes no files.
    """
    say("Preparing the towers ...")
    module = SignatureFunctions(segmenter, limits)
    functions = module.traced(say)
    functions = {DEFAULT: functions.pop(DEFAULT_OF), **functions}
    say("Writing the graph and its weights ...")
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, str(folder), signatures=functions, options=options)
    except tf.errors.OpError as error:  # a full disk, for one
        reason = error.message.splitlines()[0]
        raise ExportError(f"{folder} cannot be written: {reason}.") from error
    _rewrite(folder / "saved_model.pb")
    functions = {DEFAULT: functions[DEFAULT], DEFAULT_OF: functions[DEFAULT], **functions}
    _write_extras(folder, segmenter, functions, limits)
    warmed = {ALL: [*functions], ONLY_DEFAULT: [DEFAULT]}.get(warmup, [])
    if warmed:
        write_warmup(folder, warmup_requests(segmenter, warmed))
    say(f"Signatures: {', '.join(functions)}")


def _rewrite(file: Path) -> None:
    """Prune the graph, keep its calls, and name the default signature twice, for the same tensors.

    TensorFlow would write a call for each name, and a server take its seconds to optimize both.
    """
    saved = SavedModel.FromString(file.read_bytes())
    for meta_graph in saved.meta_graphs:
        prune(meta_graph)
        keep_calls(meta_graph)
        meta_graph.signature_def[DEFAULT_OF].CopyFrom(meta_graph.signature_def[DEFAULT])
        for node in meta_graph.object_graph_def.nodes:  # where tf.saved_model.load finds it
            if node.user_object.identifier == "signature_map":
                (default,) = (one for one in node.children if one.local_name == DEFAULT)
                node.children.add(node_id=default.node_id, local_name=DEFAULT_OF)
    file.write_bytes(saved.SerializeToString(deterministic=True))


# ---- warm-up ----


def warmup_requests(segmenter: "Segmenter", signatures: Iterable[str]) -> Iterator[Request]:
    """A request of each signature, the default one first: its first answer is the slow one."""
    for name in (DEFAULT, *SIGNATURES):
        if name in signatures:
            yield name, row_of(name).example(segmenter)


def check_requests(folder: Path, segmenter: "Segmenter") -> list[Request]:
    """The warm-up of a version folder, and an example of whatever it does not ask."""
    meta_graph = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]
    examples = list(warmup_requests(segmenter, set(meta_graph.signature_def)))
    examples += [(DEFAULT, {"image_bytes": pictures(*range(count))}) for count in BATCHES]
    records = [*_warmup_records(folder), *(_record(*request) for request in examples)]
    return [_request(record) for record in dict.fromkeys(records)]


@cache
def _prediction_log() -> Any:
    # Source: tensorflow_serving/apis/prediction_log.proto. The package tensorflow-serving-api,
    # which has the generated classes, belongs to an extra; an export does not need it.
    logs = "PredictLog: 1 PredictRequest request\nPredictionLog: 6 PredictLog predict_log\n"
    return message_classes(SERVING + logs)["PredictionLog"]


def write_warmup(folder: Path, requests: Iterable[Request]) -> None:
    """Write the requests to a version folder as PredictionLogs, one a record."""
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as file:
        for request in requests:
            file.write(_record(*request))


def read_warmup(folder: Path) -> list[Request]:
    """The warm-up requests of a version folder, with arrays as inputs; none without a file."""
    return [_request(record) for record in _warmup_records(folder)]


def _warmup_records(folder: Path) -> list[bytes]:
    file = folder / WARMUP
    if not file.exists():
        return []
    return [record.numpy() for record in tf.data.TFRecordDataset(str(file))]


def _record(signature: str, inputs: Inputs) -> bytes:
    log = _prediction_log()()
    log.predict_log.request.model_spec.signature_name = signature
    for name, value in inputs.items():
        fill(log.predict_log.request.inputs[name], value)
    return log.SerializeToString(deterministic=True)


def _request(record: bytes) -> Request:
    request = _prediction_log().FromString(record).predict_log.request
    inputs = {
        name: tf.make_ndarray(TensorProto.FromString(tensor.SerializeToString()))
        for name, tensor in request.inputs.items()
    }
    return request.model_spec.signature_name or DEFAULT, inputs


# ---- card, classes and batching ----


def _write_extras(
    folder: Path, segmenter: "Segmenter", functions: Functions, limits: Limits
) -> None:
    """Fill ``assets.extra``, and put the batching parameters next to the graph."""
    extra = folder / "assets.extra"
    extra.mkdir(exist_ok=True)
    write_tables(
        extra, {**class_tables(segmenter), "card.json": _card(segmenter, functions, limits)}
    )
    (folder / "batching_params.pbtxt").write_text(BATCHING)


def class_tables(segmenter: "Segmenter", colors: int = 0) -> dict[str, Any]:
    """The content of ``classes.json`` and ``palette.json``, by these names.

    ``colors``: how many the palette has at least; those behind the classes have the class null.
    """
    names = segmenter.class_names
    listed = class_colors([*names, *[""] * (colors - len(names))]).tolist()
    return {
        "classes.json": {"class_names": names, "background": segmenter.settings.background},
        "palette.json": [
            {"label": i, "class": name, "rgb": color}
            for i, (name, color) in enumerate(zip_longest(names, listed))
        ],
    }


def write_tables(folder: Path, tables: dict[str, Any]) -> None:
    """Write each value as JSON to the file of its name."""
    for name, value in tables.items():
        text = json.dumps(value, ensure_ascii=False, indent=2)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")


def provenance(segmenter: "Segmenter") -> dict[str, Any]:
    """What an export was made from, when, and by which versions: the beginning of its card."""
    return {
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_sha256": weights_hash(segmenter.model),
        "parameters": sum(int(tf.size(variable)) for variable in segmenter.model.weights),
        "versions": {
            "tf_groupvit": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "settings": asdict(segmenter.settings),
        "templates": list(segmenter.classes.templates),
    }


def _card(segmenter: "Segmenter", functions: Functions, limits: Limits) -> dict[str, Any]:
    """What was exported, from what, by which versions."""
    return {
        **provenance(segmenter),
        "limits": asdict(limits),
        "classes": segmenter.class_names,
        "signatures": {name: _described(name, function) for name, function in functions.items()},
    }


def weights_hash(model: "TFGroupViTModel") -> str:
    """SHA-256 over the names and values of all weights, in the order of the names."""
    found = hashlib.sha256()
    for name, variable in sorted(variables_by_name(model).items()):
        found.update(name.encode())
        found.update(keras.ops.convert_to_numpy(variable).tobytes())
    return found.hexdigest()


def _described(name: str, function: "tf.types.experimental.ConcreteFunction") -> dict[str, Any]:
    return {
        "inputs": {spec.name: _shape(spec) for spec in function.structured_input_signature[0]},
        "outputs": {key: _shape(spec) for key, spec in function.structured_outputs.items()},
        "batchable": row_of(name).batchable,
    }


def _shape(spec: tf.TensorSpec) -> dict[str, Any]:
    shape = [-1 if size is None else size for size in spec.shape]
    return {"dtype": spec.dtype.name, "shape": shape}
