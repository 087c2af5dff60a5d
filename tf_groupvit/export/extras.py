"""What lies beside an exported graph: its card, classes, palette, batching parameters and the
warm-up requests.

The server runs the requests after loading and before it is AVAILABLE; one that fails keeps the
model from loading. So every request is valid with batching on as well: all its inputs have the same
leading dimension.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tf_groupvit import __version__
from tf_groupvit.export.saving import Limits
from tf_groupvit.export.signatures import DEFAULT, UNBATCHABLE
from tf_groupvit.models.weights import variables_by_name
from tf_groupvit.segmentation.palette import class_colors
from tf_groupvit.transport.messages import fill, message_classes

FILE = "tf_serving_warmup_requests"
BATCHES = (1, 4, 8)  # of the default signature: the first requests of a kind are the slow ones
# Sizes (H, W) and formats that pictures come in; every format takes its own way through the
# decoder.
PICTURES = ((48, 64, "JPEG"), (64, 48, "PNG"), (40, 40, "JPEG"), (33, 70, "GIF"))

Request = tuple[str, dict[str, Any]]  # signature, and arrays or lists of strings by input


def picture(number: int) -> np.ndarray:
    """A small picture (H, W, 3): two shades that run across, a disc and a bar, so that there is
    something to part.
    """
    H, W, _ = PICTURES[number % len(PICTURES)]
    y, x = np.mgrid[:H, :W]
    pixels = np.stack([x * 255 // W, y * 255 // H, 255 - x * 255 // W], axis=-1)
    pixels[(y - H / 2) ** 2 + (x - W / 3) ** 2 < (H / 4) ** 2] = (230, 40 * (number % 6), 20)
    pixels[:, -W // 5 :] = (10, 60, 200 - 20 * (number % 8))
    return pixels.astype(np.uint8)


def encoded_picture(number: int) -> bytes:
    """``picture`` as a file of its format."""
    content = io.BytesIO()
    Image.fromarray(picture(number)).save(content, PICTURES[number % len(PICTURES)][2])
    return content.getvalue()


def requests_of(segmenter: Any, signatures: list[str]) -> Iterator[Request]:
    """The requests for the signatures that there are, in their order, the default one first."""
    for count in BATCHES:
        yield DEFAULT, {"image_bytes": [encoded_picture(i) for i in range(count)]}
    rest = _one_each(segmenter)
    yield from ((name, rest[name]) for name in signatures if name in rest)


def _one_each(segmenter: Any) -> dict[str, dict[str, Any]]:
    """A request for each signature but the default."""
    one, two = [encoded_picture(0)], [encoded_picture(1), encoded_picture(2)]
    names, config = segmenter.classes.names, segmenter.model.config
    lists = [",".join(names[:2]), ", ".join(names[:1])]
    patch, end = config.vision_config.patch_height_width, config.text_config.eos_token_id
    ids = np.array([[0, (end[0] if isinstance(end, tuple) else end) or 0]], np.int32)
    side = (config.vision_config.num_channels, 2 * patch[0], 2 * patch[1])
    return {
        "segment": {"image_bytes": one},
        "segment_open": {"image_bytes": two, "class_names": lists},
        "segment_pixels": {"pixels": picture(0)[None]},
        "segment_embeds": {"image_bytes": one, "text_embeds": segmenter.text_embeds[None]},
        "classify": {"image_bytes": two},
        "encode_image": {"image_bytes": one},
        "encode_text": {"text": ["a photo of a dog.", "sky"]},
        "logits": {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "pixel_values": np.linspace(-1, 1, int(np.prod(side)), dtype=np.float32).reshape(
                1, *side
            ),
        },
    }


def write_records(folder: Path, requests: list[Request]) -> None:
    """Write the requests as PredictionLogs, one a record, to ``folder``."""
    with tf.io.TFRecordWriter(str(folder / FILE)) as file:
        for signature, inputs in requests:
            file.write(_prediction_log(signature, inputs))


def _prediction_log(signature: str, inputs: dict[str, Any]) -> bytes:
    request = message_classes()["PredictRequest"]()
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        fill(request.inputs[name], value)
    # Source: prediction_log.proto. PredictionLog.predict_log is field 6, PredictLog.request field
    # 1.
    return _field(6, _field(1, request.SerializeToString(deterministic=True)))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes as protocol buffers write it: its number and kind, its length, itself."""
    length, prefix = len(content), bytearray([number << 3 | 2])
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    return bytes([*prefix, length]) + content


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
        "versions": {
            "tf_groupvit": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
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
    return {
        "dtype": spec.dtype.name,
        "shape": [-1 if size is None else size for size in spec.shape],
    }


def write_extras(
    folder: Path, segmenter: Any, signatures: dict[str, Any], requests: list[Any], limits: Limits
) -> None:
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
        (extra / name).write_text(
            json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
    (folder / "batching_params.pbtxt").write_text(BATCHING)
    write_records(extra, requests)
