"""The image tower on one GPU: this package under Keras' JAX backend beside transformers' PyTorch,
absolute times.

Whole float32, tf32 products and bfloat16; PyTorch eager, compiled, and compiled with CUDA graphs.
Each engine has a process of its own; outputs are compared with those of the first, PyTorch's eager
ones in float32, before anything is timed, and rounds are interleaved. Pixels lie on the device
already, and results stay there. Where no GPU is at hand the command says so; --cpu runs it on the
CPU, only to see that it works.
"""

import argparse
import json
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from checkpoint import checkpoint_at
from engines.process import Engine
from engines.report import facts, machine, table
from engines.rounds import Bench, pixels_of
from engines.starting import chosen_of, start

BATCHES = (1, 8, 32)
TYPES = ("float32", "tf32", "bfloat16")
OURS, EAGER = "ours, JAX", "torch GPU, eager"
ENGINES = (EAGER, OURS, "torch GPU, compile", "torch GPU, compile and graphs")
MOST_REPEATS = 100  # of a call in a round: some take less than a millisecond
# JAX would take three quarters of the memory, which the other processes need.
SETTINGS = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def has_gpu() -> bool:
    """Whether a driver tells of a GPU."""
    try:
        return (
            subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0
        )
    except OSError:
        return False


def towers(bench: Bench, batches: list[int], types: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for batch in batches:
        found = bench.run(bench.same("tower"), warm=2, pixels=pixels_of(batch))
        for type_ in types:
            rows = {name: row for name, row in found.items() if name.endswith(f", {type_}")}
            title = f"Image tower, {type_}, batch {batch}"
            result[f"{type_}, {batch}"] = table(
                title, rows, batch, "images", base=f"{OURS}, {type_}"
            )
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder instead of the seeded full-size one"
    )
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument(
        "--engines", default="|".join(ENGINES), help="names between bars (default: all)"
    )
    parser.add_argument(
        "--types", default=",".join(TYPES), help="names between commas (default: all)"
    )
    parser.add_argument(
        "--cpu", action="store_true", help="run without a GPU, only to see that it works"
    )
    parser.add_argument("--output", type=Path, default=Path("out/bench/gpu.json"))
    chosen = parser.parse_args()
    chosen.engines = chosen_of(chosen.engines, ENGINES, "|", parser)
    chosen.types = chosen_of(chosen.types, TYPES, ",", parser)
    return chosen


def main() -> None:
    chosen = arguments()
    if not chosen.cpu and not has_gpu():
        print("No GPU is at hand: nothing was measured. --cpu runs the same on the CPU.")
        return
    folder = checkpoint_at(chosen.checkpoint)
    # The first is what the others' outputs are compared with.
    names = [
        f"{engine}, {type_}"
        for type_ in chosen.types
        for engine in ENGINES
        if engine in chosen.engines
    ]
    result = machine(1, chosen.rounds)
    at_once = max((os.cpu_count() or 1) // 2, 1)  # each compiles for half a minute
    running, skipped = start(
        {name: partial(Engine, name, folder, 1, SETTINGS) for name in names}, at_once
    )
    with tempfile.TemporaryDirectory(prefix="bench_gpu_") as place:
        bench = Bench(running, skipped, Path(place), chosen.rounds, MOST_REPEATS, at_once)
        result["tower"] = towers(bench, list(map(int, chosen.batches.split(","))), chosen.types)
        result["engines"] = facts(bench)
        for engine in running.values():
            engine.close()
    for name, why in skipped.items():
        print(f"skipped {name}: {why}")
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(result | {"skipped": skipped}, indent=2) + "\n")
    print(f"Wrote {chosen.output}")


if __name__ == "__main__":
    main()
