"""Requests a second and latency of the embedded server, REST and gRPC, beside in-process calls in
the same run.

A checkpoint is exported and served, and asked to segment one JPEG by 1, 8 and 32 clients in a
process of their own. With --setting, given several times, each is a `tf-groupvit serve` with those
environment variables and flags, and all are asked in turns over REST:

    scripts/bench serve FOLDER --clients 1 2 4 8 --setting "" \\
      --setting "--tensorflow-intra-op-parallelism 1" --setting "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=1"
"""

import argparse
import io
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from engines.server_fronts import Row, measure, over_rest

from tf_groupvit import quiet


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
    quiet.install()
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "groupvit"
    tensor = request.inputs["image_bytes"]
    tensor.dtype = 7  # DT_STRING
    tensor.tensor_shape.dim.add().size = 1
    tensor.string_val.append(image)
    return request


@contextmanager
def base_path(chosen: argparse.Namespace) -> Iterator[Path]:
    """A folder with the exported checkpoint, or the one that is given."""
    if chosen.export:
        yield chosen.export
        return
    from tf_groupvit.export import export_saved_model
    from tf_groupvit.segmentation.segmenter import Segmenter

    with tempfile.TemporaryDirectory() as folder:
        print("Exporting ...", file=sys.stderr)
        segmenter = Segmenter.from_pretrained(chosen.checkpoint, classes=chosen.classes)
        export_saved_model(segmenter, Path(folder, "groupvit"))
        yield Path(folder, "groupvit")


def fronts(chosen: argparse.Namespace, request: Any) -> list[Row]:
    """Every front of a server in this process."""
    from tf_groupvit.server.running import Server

    with base_path(chosen) as models:
        print("Serving ...", file=sys.stderr)
        with Server({"groupvit": str(models)}, port=0, rest_api_port=0) as server:
            return measure(server, request, tuple(chosen.clients), chosen.seconds)


def told_apart(setting: str) -> tuple[dict[str, str], list[str]]:
    """Environment variables, which come first, and flags of "NAME=value --flag value"."""
    words = shlex.split(setting)
    count = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


@contextmanager
def served(models: Path, setting: str) -> Iterator[int]:
    """The REST port of a server with these environment variables and flags."""
    variables, flags = told_apart(setting)
    code = "from tf_groupvit.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(models), "--port", "0"]
    command += [
        "--rest-api-port",
        "0",
        "--json-logs",
        "--log-level",
        "warning",
        "--rest-api-timeout-in-ms",
        "0",
    ]
    command += ["--no-enable-model-warmup", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | variables)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["rest_api_port"]
    finally:
        process.terminate()
        process.wait()


def settings(chosen: argparse.Namespace, request: Any) -> list[Row]:
    """For each setting and number of clients the median over the rounds, all asked in turns."""
    found: dict[tuple[str, int], list[Row]] = {}
    with base_path(chosen) as models, ExitStack() as running:
        ports = {
            setting: running.enter_context(served(models, setting)) for setting in chosen.setting
        }
        for count in (
            1,
            *chosen.clients,
        ):  # the first time warms up, with batching also full batches
            for setting, port in ports.items():
                over_rest(setting, port, request, count, 0.1)
        for _ in range(chosen.rounds):
            for count in chosen.clients:
                for setting, port in ports.items():
                    row = over_rest(setting or "default", port, request, count, chosen.seconds)
                    found.setdefault((setting, count), []).append(row)
    return [
        Row(
            rows[0].front,
            count,
            *(
                statistics.median(getattr(row, name) for row in rows)
                for name in ("per_second", "p50_ms", "p99_ms")
            ),
        )
        for (_, count), rows in found.items()
    ]


def show(rows: list[Row]) -> None:
    """Print the rows, each beside the first one of as many clients."""
    width = max(12, *(len(row.front) for row in rows))
    print(
        f"{'':{width}s} {'clients':>7s} {'requests/s':>11s} {'p50 ms':>9s} {'p99 ms':>9s}"
        f" {'of the first':>14s}"
    )
    first = {row.clients: row.per_second for row in reversed(rows)}
    for row in rows:
        share = f"{row.per_second / first[row.clients]:.0%}"
        rate, p50, p99 = row.per_second, row.p50_ms, row.p99_ms
        print(
            f"{row.front:{width}s} {row.clients:7d} {rate:11.1f} {p50:9.2f} {p99:9.2f} {share:>14s}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", nargs="?", help="a folder with config, weights, tokenizer and processor"
    )
    parser.add_argument("--export", type=Path, help="a base path of exports, instead")
    parser.add_argument("--photo", type=Path, help="a file to ask about, instead of a made one")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--setting", action="append", default=[], help="variables and flags")
    parser.add_argument("--rounds", type=int, default=3, help="over the settings (default 3)")
    parser.add_argument("--classes", default="dog,grass,sky")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    chosen = parser.parse_args()
    if not (chosen.checkpoint or chosen.export):
        parser.error("Give a checkpoint, or --export.")
    request = ask(chosen.photo.read_bytes() if chosen.photo else jpeg())
    rows = settings(chosen, request) if chosen.setting else fronts(chosen, request)
    print(json.dumps([asdict(row) for row in rows], indent=2)) if chosen.json else show(rows)


if __name__ == "__main__":
    main()
