"""Requests a second and latency of the embedded server, REST and gRPC, beside in-process calls in
the same run.

A checkpoint is exported and served, and asked to segment one JPEG by 1, 8 and 32 clients in a
process of their own.
"""

import argparse
import io
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from engines.server_fronts import measure


def jpeg(megabytes: float = 0.1, side: int = 448) -> bytes:
    """A JPEG of about that many bytes: noise over a gradient, so that its size can be chosen by its
    quality.
    """
    from PIL import Image

    random = np.random.default_rng(0)
    ramp = np.linspace(0, 180, side, dtype="float32")
    pixels = np.stack([ramp[None] + ramp[:, None] / 2] * 3, axis=-1) / 1.5 + random.normal(
        0, 25, (side, side, 3)
    )
    image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
    content = b""
    for quality in range(20, 100, 5):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        content = buffer.getvalue()
        if len(content) >= megabytes * 1e6:
            break
    return content


def ask(image: bytes) -> Any:
    """A PredictRequest for the default signature."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "groupvit"
    tensor = request.inputs["image_bytes"]
    tensor.dtype = 7  # DT_STRING
    tensor.tensor_shape.dim.add().size = 1
    tensor.string_val.append(image)
    return request


def run(model: str, classes: str, seconds: float) -> list[Any]:
    from tf_groupvit.export import export_saved_model
    from tf_groupvit.segmentation.segmenter import Segmenter
    from tf_groupvit.server.running import Server

    with tempfile.TemporaryDirectory() as folder:
        print("Exporting ...", file=sys.stderr)
        export_saved_model(
            Segmenter.from_pretrained(model, classes=classes), Path(folder, "groupvit")
        )
        print("Serving ...", file=sys.stderr)
        with Server({"groupvit": str(Path(folder, "groupvit"))}, port=0, rest_api_port=0) as server:
            return measure(server, ask(jpeg()), seconds=seconds)


def show(rows: list[Any]) -> None:
    print(
        f"{'front':12s} {'clients':>7s} {'requests/s':>11s} {'p50 ms':>9s} {'p99 ms':>9s}"
        f" {'of in-process':>14s}"
    )
    inside = {row.clients: row.per_second for row in rows if row.front == "in-process"}
    for row in rows:
        share = f"{row.per_second / inside[row.clients]:.0%}"
        rate, p50, p99 = row.per_second, row.p50_ms, row.p99_ms
        print(f"{row.front:12s} {row.clients:7d} {rate:11.1f} {p50:9.2f} {p99:9.2f} {share:>14s}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench serve", description=__doc__)
    parser.add_argument("checkpoint", help="a folder with config, weights, tokenizer and processor")
    parser.add_argument("--classes", default="dog,grass,sky")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    chosen = parser.parse_args()
    rows = run(chosen.checkpoint, chosen.classes, chosen.seconds)
    print(json.dumps([asdict(row) for row in rows], indent=2)) if chosen.json else show(rows)


if __name__ == "__main__":
    main()
