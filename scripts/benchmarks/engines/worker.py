"""Runs inside an engine's process: loads one engine, then answers requests from standard input, one
a line.

A request is [work, file of inputs, file for outputs, calls before, calls that are timed]. Works are
methods of the engine that take arrays by name; "memory" tells how much the process holds and held
at most. Seconds are of one call.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

# How a name begins -> the module of its engine; of several the first counts.
MODULES = {
    "ours JAX": "on_jax",
    "torch GPU": "on_torch_gpu",
    "torch": "on_torch",
    "onnxruntime": "on_onnx",
    "openvino": "on_onnx",
    "file": "on_files",
    "transformers": "on_transformers_tf",
    "ours": "on_tensorflow",
}


def main() -> None:
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    sys.path.insert(0, str(Path(__file__).parents[1]))
    began = time.perf_counter()
    try:
        file = next(MODULES[start] for start in MODULES if name.startswith(start))
        module = importlib.import_module(f"engines.{file}")
        imported = time.perf_counter()
        engine = module.make(name, folder, threads)
    except Exception as error:  # whatever keeps a peer from running is told, and the others go on
        say({"missing": said(error)})
        return
    facts = {
        "import_s": imported - began,
        "load_s": time.perf_counter() - imported,
        "loaded": memory("VmRSS:"),
    }
    say({**facts, "version": module.VERSION})
    for line in sys.stdin:
        say(answer_to(engine, *json.loads(line)))


def said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def answer_to(
    engine: Any, work: str, inputs: str, output: str, before: int, repeats: int
) -> dict[str, Any]:
    if work == "memory":
        return {"now": memory("VmRSS:"), "peak": memory("VmHWM:")}
    function = getattr(engine, work, None)
    if function is None:
        return {"missing": f"it has no {work}"}
    given = dict(np.load(inputs)) if inputs else {}
    try:
        for _ in range(before):
            function(**given)  # its threads slept, its memory was others' meanwhile
        started, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            found = function(**given)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    except Exception as error:
        return {"missing": said(error)}
    if output:
        np.savez(output, **found)
    return {"seconds": seconds / repeats, "cpu": cpu / repeats}


def memory(key: str) -> int:
    """Bytes, as Linux tells them; 0 elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return (
        int(
            next(line for line in status.read_text().splitlines() if line.startswith(key)).split()[
                1
            ]
        )
        * 1024
    )


if __name__ == "__main__":
    main()
