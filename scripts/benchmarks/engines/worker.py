"""Runs inside an engine's process: loads one engine, then answers requests from standard input, one a line.

A request is [work, file of inputs, file for outputs]; works are methods of the engine, and "peak" tells its memory.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {"torch": "on_torch", "onnxruntime": "on_onnx", "openvino": "on_onnx", "ours": "on_tensorflow"}


def main() -> None:
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    sys.path.insert(0, str(Path(__file__).parent))
    began = time.perf_counter()
    try:
        module = importlib.import_module(MODULES[name.split()[0]])
        imported = time.perf_counter()
        engine = module.make(name, folder, threads)
    except Exception as error:  # whatever keeps a peer from running is told, and the others go on
        say({"missing": f"{type(error).__name__}: {error}".splitlines()[0][:200]})
        return
    say({"import_s": imported - began, "load_s": time.perf_counter() - imported, "memory": memory("VmRSS:")})
    for line in sys.stdin:
        say(answer_to(engine, *json.loads(line)))


def answer_to(engine: Any, work: str, inputs: str, output: str) -> dict[str, Any]:
    if work == "peak":
        return {"memory": memory("VmHWM:")}
    function = getattr(engine, work, None)
    if function is None:
        return {"missing": f"it has no {work}"}
    given = dict(np.load(inputs))
    started, cpu = time.perf_counter(), time.process_time()
    try:
        found = function(**given)
    except Exception as error:
        return {"missing": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if output:
        np.savez(output, **found)
    return {"seconds": seconds, "cpu": cpu}


def memory(key: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return int(next(line for line in status.read_text().splitlines() if line.startswith(key)).split()[1]) * 1024


if __name__ == "__main__":
    main()
