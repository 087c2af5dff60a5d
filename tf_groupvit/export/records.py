"""A segmenter in; requests that warm a server up, one or more for each signature, as a TFRecord file out.

The server runs them after loading and before it is AVAILABLE; one that fails keeps the model from loading. So every
request is valid with batching on as well: all its inputs have the same leading dimension.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_groupvit.export.signatures import DEFAULT
from tf_groupvit.wires.messages import fill, message_classes

FILE = "tf_serving_warmup_requests"
BATCHES = (1, 4, 8)  # of the default signature: the first requests of a kind are the slow ones
# Sizes (H, W) and formats that pictures come in; every format takes its own way through the decoder.
PICTURES = ((48, 64, "JPEG"), (64, 48, "PNG"), (40, 40, "JPEG"), (33, 70, "GIF"))

Request = tuple[str, dict[str, Any]]  # signature, and arrays or lists of strings by input


def picture(number: int) -> np.ndarray:
    """A small picture (H, W, 3): two shades that run across, a disc and a bar, so that there is something to part."""
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
            "pixel_values": np.linspace(-1, 1, int(np.prod(side)), dtype=np.float32).reshape(1, *side),
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
    # Source: prediction_log.proto. PredictionLog.predict_log is field 6, PredictLog.request field 1.
    return _field(6, _field(1, request.SerializeToString(deterministic=True)))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes as protocol buffers write it: its number and kind, its length, itself."""
    length, prefix = len(content), bytearray([number << 3 | 2])
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    return bytes([*prefix, length]) + content
