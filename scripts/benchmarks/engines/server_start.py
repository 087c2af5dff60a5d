"""`tf-groupvit serve` from its start to its answers over REST: seconds by the clock, and what its
process took of the processor and of memory.
"""

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SERVE = "from tf_groupvit.cli import main; main()"
EVERY = 0.05  # seconds between questions to a server that is not ready
PATIENCE = 600.0  # seconds until a server has answered everything


def started_server(
    base: Path, environment: dict[str, str], requests: dict[str, dict[str, Any]], log: Path
) -> dict[str, Any]:
    """Serve the base path, ask for every signature once, the first one first, and stop the server.

    Raises RuntimeError when it ends early, refuses a request, or takes too long.
    """
    ports = free_ports()
    command = [sys.executable, "-c", SERVE, "serve", str(base)]
    command += ["--port", str(ports[0]), "--rest-api-port", str(ports[1])]
    command += ["--rest-api-timeout-in-ms", "0"]  # a request that waits is not a refused one
    with log.open("w") as file:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, cwd=log.parent
        )
        try:
            return milestones(process, ports[1], requests, began, log)
        finally:
            process.terminate()
            process.wait()


def milestones(
    process: Any, port: int, requests: dict[str, dict[str, Any]], began: float, log: Path
) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def reached(name: str) -> None:
        found.setdefault(name, [time.monotonic() - began, processor_seconds(process.pid)])

    default, *others = requests
    bodies = {name: body_of(name, inputs) for name, inputs in requests.items()}
    while "AVAILABLE" not in found or "first answer" not in found:
        if process.poll() is not None or time.monotonic() - began > PATIENCE:
            raise RuntimeError(f"The server did not start:\n{log.read_text()[-2000:]}")
        status, answer = ask(port, "GET", "/v1/models/groupvit")
        if status:
            reached("REST port answers")
        if status == 200 and '"AVAILABLE"' in answer:
            reached("AVAILABLE")
        if status and "first answer" not in found:
            status, answer = ask(port, "POST", "/v1/models/groupvit:predict", bodies[default])
            if status == 200:
                reached("first answer")
                continue
        if "AVAILABLE" not in found or "first answer" not in found:
            time.sleep(EVERY)
    found["MiB after the first answer"] = memory(process.pid)
    for name in others:
        status, answer = ask(port, "POST", "/v1/models/groupvit:predict", bodies[name])
        if status != 200:
            raise RuntimeError(f"The server refused {name}: {answer[:500]}")
    reached("every signature answered")
    found["MiB after all"] = memory(process.pid)
    found["MiB at most"] = memory(process.pid, "VmHWM:")
    return found


def free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    """Status and answer; status 0 where nobody answers yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except OSError:
        return 0, ""
    finally:
        connection.close()


def body_of(signature: str, inputs: dict[str, Any]) -> bytes:
    """A REST request in columns."""
    columns = {name: values_of(value) for name, value in inputs.items()}
    return json.dumps({"signature_name": signature, "inputs": columns}).encode()


def values_of(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [
        {"b64": base64.b64encode(one).decode()} if isinstance(one, bytes) else one for one in value
    ]


def processor_seconds(pid: int) -> float:
    """What all threads of a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, key: str = "VmRSS:") -> int:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) // 1024
