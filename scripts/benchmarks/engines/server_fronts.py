"""How fast a server answers: a running `Server` and one PredictRequest in; a row per front and
number of clients out.

The clients of REST and gRPC are threads of a process of their own, as real clients are;
"in-process" calls the same code without a socket, for comparison in the same run. `scripts/bench`
prints the rows.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_groupvit.server.running import Server

PREDICT = "/tensorflow.serving.PredictionService/Predict"
Asker = Callable[[], Iterator[None]]  # made once per client; each step is a request and its answer


@dataclass(frozen=True)
class Row:
    front: str  # in-process, gRPC or REST, or a setting
    clients: int
    per_second: float
    p50_ms: float
    p99_ms: float


def measure(
    server: "Server", request: Any, clients: tuple[int, ...] = (1, 8, 32), seconds: float = 5.0
) -> list[Row]:
    """Rows for every front and number of clients. ``request`` is a PredictRequest with string
    inputs alone.

    The server must listen on both ports. Raises RuntimeError when a client fails.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {"gRPC": Path(folder, "request.pb"), "REST": Path(folder, "request.json")}
        files["gRPC"].write_bytes(request.SerializeToString())
        files["REST"].write_bytes(as_json(request))
        for count in clients:
            rows.append(
                _row(
                    "in-process",
                    count,
                    _latencies(lambda: _calls(server, request), count, seconds),
                    seconds,
                )
            )
            for front, file in files.items():
                port = server.port if front == "gRPC" else server.rest_api_port
                latencies = _elsewhere(
                    front, str(port), request.model_spec.name, str(count), str(seconds), str(file)
                )
                rows.append(_row(front, count, latencies, seconds))
    return rows


def over_rest(name: str, port: int, request: Any, clients: int, seconds: float) -> Row:
    """A row of this name for REST alone, of a server in a process of its own."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(as_json(request))
        model = request.model_spec.name
        latencies = _elsewhere("REST", str(port), model, str(clients), str(seconds), file.name)
    return _row(name, clients, latencies, seconds)


def as_json(request: Any) -> bytes:
    """The REST body of a PredictRequest whose inputs are all strings, in row form."""
    columns = {
        name: [{"b64": base64.b64encode(value).decode()} for value in tensor.string_val]
        for name, tensor in request.inputs.items()
    }
    instances = [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]
    return json.dumps(
        {"signature_name": request.model_spec.signature_name, "instances": instances}
    ).encode()


def _row(front: str, clients: int, latencies: list[float], seconds: float) -> Row:
    latencies = sorted(latencies)
    p50, p99 = (latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99))
    return Row(front, clients, len(latencies) / seconds, p50, p99)


def _calls(server: "Server", request: Any) -> Iterator[None]:
    while True:
        server.call(PREDICT, request)
        yield


def _over_grpc(port: int, model: str, body: bytes) -> Iterator[None]:
    import grpc

    number = [("tf_groupvit.client", threading.get_ident() % 2**31)]  # a connection for each client
    with grpc.insecure_channel(f"127.0.0.1:{port}", number) as channel:
        predict = channel.unary_unary(PREDICT)
        while True:
            predict(body)
            yield


def _over_rest(port: int, model: str, body: bytes) -> Iterator[None]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        while True:
            connection.request("POST", f"/v1/models/{model}:predict", body)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise RuntimeError(answer[:200].decode("utf-8", "replace"))
            yield
    finally:
        connection.close()


def _latencies(asker: Asker, clients: int, seconds: float) -> list[float]:
    """Seconds that each request took, of so many clients over so many seconds."""
    latencies: list[float] = []
    failures: list[BaseException] = []
    ready = threading.Barrier(clients)

    def ask() -> None:
        steps = asker()
        try:
            next(steps)  # the connection, and whatever the first request brings with it
            ready.wait()
            end = time.monotonic() + seconds
            while not latencies or time.monotonic() < end:
                started = time.perf_counter()
                next(steps)
                latencies.append(time.perf_counter() - started)
        except Exception as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"A client failed: {failures[0]}")
    return latencies


def _elsewhere(*arguments: str) -> list[float]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"GRPC_VERBOSITY": "NONE"}
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def _client_process(
    front: str, port: str, model: str, clients: str, seconds: str, file: str
) -> None:
    body, over = Path(file).read_bytes(), {"gRPC": _over_grpc, "REST": _over_rest}[front]
    print(
        json.dumps(_latencies(lambda: over(int(port), model, body), int(clients), float(seconds)))
    )


if __name__ == "__main__":
    _client_process(*sys.argv[1:])
