"""A segmenter in; what a person or a client wants to know of its export, as files, out."""

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_groupvit import __version__
from tf_groupvit.export.records import write_records
from tf_groupvit.export.saving import Limits
from tf_groupvit.export.signatures import UNBATCHABLE
from tf_groupvit.models.weights import variables_by_name
from tf_groupvit.segmentation.palette import class_colors

# Read by a server that runs with --enable_batching --enable_per_model_batching_parameters.
BATCHING = """\
# Requests that arrive within 5 ms of each other run as one batch of at most 32 images.
max_batch_size { value: 32 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 100 }
"""


def weights_hash(model: Any) -> str:
    """SHA-256 over the names and values of all weights, in the order of the names."""
    found = hashlib.sha256()
    for name, variable in sorted(variables_by_name(model).items()):
        found.update(name.encode())
        found.update(keras.ops.convert_to_numpy(variable).tobytes())
    return found.hexdigest()


def describe(segmenter: Any, signatures: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """The card: what was exported, from what, by which versions."""
    return {
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_sha256": weights_hash(segmenter.model),
        "parameters": sum(int(tf.size(variable)) for variable in segmenter.model.weights),
        "versions": {"tf_groupvit": __version__, "tensorflow": tf.__version__, "keras": keras.__version__},
        "settings": asdict(segmenter.settings),
        "limits": asdict(limits),
        "templates": list(segmenter.classes.templates),
        "classes": segmenter.class_names,
        "signatures": {name: _signature(name, function) for name, function in signatures.items()},
    }


def _signature(name: str, function: Any) -> dict[str, Any]:
    inputs = {spec.name: _shape(spec) for spec in function.structured_input_signature[0]}
    outputs = {key: _shape(spec) for key, spec in function.structured_outputs.items()}
    return {"inputs": inputs, "outputs": outputs, "batchable": name not in UNBATCHABLE}


def _shape(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": [-1 if size is None else size for size in spec.shape]}


def write_extras(folder: Path, segmenter: Any, signatures: dict[str, Any], requests: list[Any], limits: Limits) -> None:
    """Fill ``assets.extra`` of a version, and put the batching parameters beside the graph."""
    extra = folder / "assets.extra"
    extra.mkdir(exist_ok=True)
    names = segmenter.class_names
    colours = class_colors(names).tolist()
    palette = [{"label": i, "class": name, "rgb": colours[i]} for i, name in enumerate(names)]
    content = {
        "classes.json": {"class_names": names, "background": segmenter.settings.background},
        "palette.json": palette,
        "card.json": describe(segmenter, signatures, limits),
    }
    for name, value in content.items():
        (extra / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (folder / "batching_params.pbtxt").write_text(BATCHING)
    write_records(extra, requests)
