"""`tf-groupvit serve` in a process of its own, with its ports and its output."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
# The command alone, so that these tests need no other command of the package.
SERVE = "from tf_groupvit.cli.serve import command; command()"


class Served:
    """A server process on loopback; killed when the block ends, if it has not ended by itself."""

    def __init__(self, *arguments: str, seconds: float = 90.0) -> None:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *arguments, "--port", "0", "--rest-api-port", "0", "--json-logs"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        self._seconds = seconds
        self.port = self.rest_api_port = 0

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    def __enter__(self) -> "Served":
        killer = threading.Timer(self._seconds, self.process.kill)
        killer.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        killer.cancel()
        assert line, f"the server did not start: {self.errors[-5:]}"
        ready = json.loads(line)
        self.port, self.rest_api_port = ready["port"], ready["rest_api_port"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def terminate(self, seconds: float = 40.0) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    @property
    def resident_bytes(self) -> int:
        """Memory of the process, from /proc."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def settled_bytes(self) -> int:
        time.sleep(1.0)
        return self.resident_bytes
