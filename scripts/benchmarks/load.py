"""Seconds and peak memory to load the full-size checkpoint, beside transformers' PyTorch class.

Each load runs in a process of its own, ours and the peer's in turn, after one of each that is not
counted. Memory is the highest resident set during the load, less what the process held after its
imports. transformers maps the file and reads a weight when it is first used, so both are measured a
second time when every weight has been read once ("read").
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkpoint import checkpoint_at

# Runs in the measured process; {imports} and {load} are lines of Python.
MEASURED = """
import json, sys, time
from pathlib import Path

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024

began = time.perf_counter()
{imports}
imported = time.perf_counter()
held = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
started, cpu = time.perf_counter(), time.process_time()
{load}
result = dict(import_s=imported - began, load_s=time.perf_counter() - started)
result |= dict(load_cpu_s=time.process_time() - cpu, load_peak=status("VmHWM:") - held)
{read}
result |= dict(read_s=time.perf_counter() - started, read_cpu_s=time.process_time() - cpu)
print(json.dumps(result | dict(read_peak=status("VmHWM:") - held)))
"""
OURS = {
    "imports": "from tf_groupvit import TFGroupViTModel",
    "load": "model = TFGroupViTModel.from_pretrained(sys.argv[1])",
    "read": "for variable in model.weights: variable.numpy().sum()",
}
PEER = {
    "imports": "import torch; from transformers import GroupViTModel",
    "load": "model = GroupViTModel.from_pretrained(sys.argv[1])",
    "read": "for weight in model.state_dict().values(): weight.sum()",
}


def measure(python: str, code: dict[str, str], folder: Path) -> dict[str, float]:
    """One load in a fresh process: seconds by the clock and of the processor, peaks in bytes."""
    command = [python, "-c", MEASURED.format(**code), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The load under {python} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def has_peer(python: str) -> bool:
    check = [python, "-c", "import torch, transformers"]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def report(size: int, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    rows: dict[str, Any] = {name: medians(runs) for name, runs in found.items()}
    if len(rows) == 2:
        rows["ratio"] = {
            key: value / rows["transformers"][key] for key, value in rows["ours"].items()
        }
    return {"file_bytes": size, "runs": len(found["ours"]), **rows}


def show(result: dict[str, Any]) -> None:
    size = result["file_bytes"]
    print(
        f"model.safetensors {size / 1e6:.1f} MB, medians of {result['runs']} fresh processes; cpu:"
        " of all threads"
    )
    for name in ("ours", "transformers"):
        for part in ("load", "read") if name in result else ():
            row = {key: result[name][f"{part}_{key}"] for key in ("s", "cpu_s", "peak")}
            print(
                f"{name:13s} {part}  {row['s']:6.2f} s  cpu {row['cpu_s']:6.2f} s  "
                f"peak {row['peak'] / 1e6:6.1f} MB = {row['peak'] / size:.2f} x file"
            )
    if ratio := result.get("ratio"):
        for part in ("load", "read"):
            words = "  ".join(
                f"{key} {ratio[f'{part}_{key}']:.2f}" for key in ("s", "cpu_s", "peak")
            )
            print(f"{'ratio':13s} {part}  {words}   (below 1: ours is less)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench load", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each (default 5)")
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder instead of the seeded full-size one"
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, help="an interpreter with torch and transformers"
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("scripts/bench load reads peak memory from /proc: it needs Linux.")
    folder = checkpoint_at(chosen.checkpoint)
    pythons = {"ours": (sys.executable, OURS)}
    if has_peer(chosen.peer_python):
        pythons["transformers"] = (chosen.peer_python, PEER)
    else:
        print(
            f"{chosen.peer_python} has no torch and transformers: see --peer-python.",
            file=sys.stderr,
        )
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for run in range(chosen.runs + 1):
        for name, (python, code) in pythons.items():
            measured = measure(python, code, folder)
            if run:  # the first one warms the disk's cache
                found[name].append(measured)
    result = report((folder / "model.safetensors").stat().st_size, found)
    print(json.dumps(result, indent=2)) if chosen.json else show(result)


if __name__ == "__main__":
    main()
