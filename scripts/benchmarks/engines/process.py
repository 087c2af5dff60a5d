"""An engine's name in; a process that holds it, asked over pipes, out. Idle ones sleep, so that
others can be timed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

# Of OpenVINO by itself, beside the number of threads.
OPENVINO_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class MissingError(Exception):
    """An engine, or a work of it, that cannot run here; the text says why."""


class Engine:
    """``ask(work, inputs)`` runs one piece of work and gives {"seconds", "cpu"}, of one call.

    ``settings`` are environment variables, ``python`` the interpreter that has what the engine
    needs. ``spin``: threads that wait for each other spin. On a machine that does nothing else this
    is a little faster; where another process takes a core now and then, PyTorch's OpenMP threads
    wait for the one that does not run, ten times as long.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        threads: int,
        settings: dict[str, str],
        python: str = "",
        spin: bool = False,
    ) -> None:
        threading = dict.fromkeys(THREADS, str(threads))
        threading["OMP_WAIT_POLICY"] = "ACTIVE" if spin else "PASSIVE"
        environment = os.environ | threading | {"TF_CPP_MIN_LOG_LEVEL": "3"} | settings
        command = [
            python or sys.executable,
            str(HERE / "worker.py"),
            name.replace(",", ""),
            str(folder),
            str(threads),
        ]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise MissingError(f"{command[0]} does not run: {error}") from error
        self.facts = self._hear()  # version, import and load times, memory

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise MissingError(f"its process ended with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "missing" in answer:
            raise MissingError(answer["missing"])
        return answer

    def ask(
        self,
        work: str,
        inputs: Path | None = None,
        output: Path | None = None,
        before: int = 0,
        repeats: int = 1,
    ) -> dict[str, Any]:
        assert self.process.stdin is not None
        if self.process.poll() is not None:
            raise MissingError("its process ended earlier")
        request = [work, str(inputs or ""), str(output or ""), before, repeats]
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._hear()

    def close(self) -> None:
        self.process.communicate()
