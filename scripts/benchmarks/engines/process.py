"""An engine's name in; a process that holds it, asked over pipes, out. Idle ones sleep, so that others can be timed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class MissingError(Exception):
    """An engine that cannot run here; the text says why."""


class Engine:
    """``ask(work, inputs)`` runs one piece of work and gives {"seconds", "cpu", "output"}."""

    def __init__(self, name: str, folder: Path, threads: int, onednn: str | None = None, python: str = "") -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if onednn is not None:
            environment["TF_ENABLE_ONEDNN_OPTS"] = onednn
        command = [python or sys.executable, str(HERE / "worker.py"), name, str(folder), str(threads)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.facts = self._hear()  # import and load times, memory

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise MissingError(f"its process ended with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "missing" in answer:
            raise MissingError(answer["missing"])
        return answer

    def ask(self, work: str, inputs: Path, output: Path | None = None) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([work, str(inputs), str(output or "")]) + "\n")
        self.process.stdin.flush()
        return self._hear()

    def close(self) -> None:
        self.process.communicate()
