"""The image tower on one GPU: this package under Keras' JAX backend beside transformers' PyTorch, absolute times.

float32 and bfloat16, batch 1, 8 and 32; PyTorch eager and compiled. Each engine has a process of its own, one after
the other, so that neither finds the memory taken. Where no GPU is at hand it says so; --cpu runs it on the CPU, only
to see that it works.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkpoint import checkpoint_at

BATCHES = (1, 8, 32)
START = """
import json, sys, time
import numpy as np
folder, rounds, dtype, kind, batches = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], json.loads(sys.argv[5])
"""
# Runs in each engine's process; leaves run(pixels on the device), put(array), wait(result) and device.
OURS = """
import jax
from tf_groupvit import TFGroupViTModel
policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
model = TFGroupViTModel.from_pretrained(folder, dtype=policy)
values = [v.value for v in model.non_trainable_variables]
@jax.jit
def forward(trained, pixels):
    return model.stateless_call(trained, values, text_embeds=EMBEDS, pixel_values=pixels)[0]["image_embeds"]
EMBEDS = np.ones((1, model.config.projection_dim), "float32")
trained = [v.value for v in model.trainable_variables]
device, put = str(jax.devices()[0]), jax.device_put
run, wait = lambda pixels: forward(trained, pixels), lambda found: found.block_until_ready()
"""
PEER = """
import torch
from transformers import GroupViTModel
device = "cuda" if torch.cuda.is_available() else "cpu"
type_ = getattr(torch, dtype)
tower = GroupViTModel.from_pretrained(folder, dtype=type_).eval().to(device)
torch.set_grad_enabled(False)
look = torch.compile(tower.vision_model) if kind == "compile" else tower.vision_model
put = lambda array: torch.from_numpy(array).to(device, type_)
run = lambda pixels: tower.visual_projection(look(pixels).pooler_output)
wait = lambda found: torch.cuda.synchronize() if device == "cuda" else None
"""
TIMED = """
rows = {}
for batch in batches:
    pixels = put(np.random.default_rng(batch).normal(size=(batch, 3, 224, 224)).astype("float32"))
    began = time.perf_counter(); wait(run(pixels)); first = time.perf_counter() - began
    for _ in range(3): wait(run(pixels))
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter(); wait(run(pixels)); seconds.append(time.perf_counter() - began)
    rows[batch] = dict(first_s=first, seconds=seconds)
print(json.dumps(dict(device=device, rows=rows)))
"""
ENGINES = {"ours, JAX": (OURS, "eager"), "torch, eager": (PEER, "eager"), "torch, compile": (PEER, "compile")}


def has_gpu() -> bool:
    """Whether a driver tells of a GPU."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def measure(code: str, kind: str, dtype: str, folder: Path, rounds: int, batches: list[int]) -> dict[str, Any]:
    command = [sys.executable, "-c", START + code + TIMED, str(folder), str(rounds), dtype, kind, json.dumps(batches)]
    environment = os.environ | {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or ["it failed"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, found: dict[str, Any]) -> None:
    if "skipped" in found:
        print(f"{name:26s} skipped: {found['skipped']}", flush=True)
        return
    for batch, row in found["rows"].items():
        middle = statistics.median(row["seconds"])
        spread = f"{1000 * min(row['seconds']):.2f} to {1000 * max(row['seconds']):.2f}"
        said = f"{1000 * middle:9.2f} ms ({spread}), {int(batch) / middle:9.1f} images/s, first {row['first_s']:.1f} s"
        print(f"{name:26s} batch {batch:>2s} {said}, on {found['device']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path, help="a folder instead of the seeded full-size one")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--cpu", action="store_true", help="run without a GPU, only to see that it works")
    parser.add_argument("--output", type=Path, default=Path("out/bench/gpu.json"))
    chosen = parser.parse_args()
    if not chosen.cpu and not has_gpu():
        print("No GPU is at hand: nothing was measured. --cpu runs the same on the CPU.")
        return
    folder = checkpoint_at(chosen.checkpoint)
    result = {}
    for dtype in ("float32", "bfloat16"):
        for name, (code, kind) in ENGINES.items():
            found = measure(code, kind, dtype, folder, chosen.rounds, list(map(int, chosen.batches.split(","))))
            result[f"{name}, {dtype}"] = found
            show(f"{name}, {dtype}", found)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
