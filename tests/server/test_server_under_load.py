"""Under load, in processes of their own: version swaps, SIGTERM, five times the capacity.

Loopback only. Each phase lasts until enough answers have come, and every loop is bounded in time.
"""

import http.client
import json
import random
import shutil
import threading
import time
from collections import Counter

import grpc
import numpy as np
import pytest
import tensorflow as tf
from served import Served
from small_models import half_plus_two, slow
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from test_server_versions import until

pytestmark = pytest.mark.slow

PLUS = {1: 100.0, 2: 200.0, 3: 300.0}  # what each version adds tells whose answer it is


class Clients:
    """Threads that ask until they are told to stop, and remember what they were answered and when."""

    def __init__(self, count: int, ask) -> None:
        self.stop = threading.Event()
        self.answers: list[tuple] = []
        self.failures: list[tuple[str, float]] = []  # what, and when the request began
        self._threads = [
            threading.Thread(target=self._run, args=[ask, index]) for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, ask, index: int) -> None:
        asker = ask(index)
        try:
            while not self.stop.is_set():
                started = time.monotonic()
                try:
                    answer = next(asker)
                except StopIteration:
                    return
                except Exception as error:
                    self.failures.append((repr(error), started))
                    return
                self.answers.append((answer, started, time.monotonic()))
        finally:
            asker.close()

    def await_more(self, count: int, code: object = None) -> None:
        """Wait for so many more answers, of that code."""
        begun = len(self.answers)

        def enough() -> bool:
            new = self.answers[begun:]
            return sum(code is None or answer == code for answer, _, _ in new) >= count or bool(
                self.failures
            )

        until(enough, 60)

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


def by_grpc(port: int):
    """Asks whose answers are (version that the answer names, version that computed it)."""

    def ask(index: int):
        chance = random.Random(index)
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("client.number", index)]) as channel:
            stub = PredictionServiceStub(channel)
            while True:
                x = np.float32(chance.randrange(1, 40)) * 2
                request = PredictRequest()
                request.model_spec.name = "m"
                request.inputs["x"].CopyFrom(tf.make_tensor_proto([x]))
                response = stub.Predict(request, timeout=30)
                (y,) = response.outputs["y"].float_val
                yield response.model_spec.version.value, (y - x / 2) / 100

    return ask


def by_rest(port: int):
    def ask(index: int):
        chance = random.Random(index)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            while True:
                x = chance.randrange(1, 40) * 2.0
                connection.request("POST", "/v1/models/m:predict", json.dumps({"instances": [x]}))
                response = connection.getresponse()
                body = response.read()
                assert response.status == 200, body
                (y,) = json.loads(body)["predictions"]
                version = (y - x / 2) / 100
                yield version, version
        finally:
            connection.close()

    return ask


def get(port: int, path: str) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def states(port: int) -> dict[int, str]:
    versions = get(port, "/v1/models/m")["model_version_status"]
    return {int(entry["version"]): entry["state"] for entry in versions}


def await_state(port: int, version: int, state: str) -> float:
    """When the version was seen in that state."""
    end = time.monotonic() + 40
    while states(port).get(version) != state:
        assert time.monotonic() < end, f"version {version} is not {state}: {states(port)}"
        time.sleep(0.05)
    return time.monotonic()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server of `m`, whose versions are in `store` until they are served, and of `slow`."""
    folder = tmp_path_factory.mktemp("load")
    for name in ("store", "m", "slow"):
        (folder / name).mkdir()
    for version, plus in PLUS.items():
        half_plus_two(folder / "store", version, plus)
    shutil.move(folder / "store" / "1", folder / "m" / "1")
    slow(folder / "slow")
    configs = [
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" }}'
        for name in ("m", "slow")
    ]
    (folder / "models.config").write_text(f"model_config_list {{ {' '.join(configs)} }}")
    flags = ["--file-system-poll-wait-seconds", "0.2", "--max-num-load-retries", "0"]
    config = ["--model-config-file", str(folder / "models.config"), "--max-in-flight", "4"]
    with Served(*config, *flags) as served:
        served.folder = folder
        yield served


def test_swaps_of_versions_under_32_clients_lose_and_mix_up_nothing(served):
    store, base_path = served.folder / "store", served.folder / "m"
    started = time.monotonic()
    rest, call = by_rest(served.rest_api_port), by_grpc(served.port)
    clients = Clients(32, lambda index: (rest if index % 2 else call)(index))
    available, gone = {1: started}, {}
    for old, new in ((1, 2), (2, 3)):
        clients.await_more(150)
        dropped = time.monotonic()
        (store / str(new)).rename(base_path / str(new))
        available[new] = dropped  # not before it was there
        await_state(served.rest_api_port, new, "AVAILABLE")
        gone[old] = await_state(served.rest_api_port, old, "END")
    clients.await_more(150)
    (base_path / "4").mkdir()  # broken: an empty folder
    await_state(served.rest_api_port, 4, "END")
    clients.await_more(150)
    clients.join()
    assert states(served.rest_api_port) == {4: "END", 3: "AVAILABLE", 2: "END", 1: "END"}
    assert not clients.failures, clients.failures[:3]
    for (named, computed), began, ended in clients.answers:
        assert named == computed and named in PLUS
        assert available[named] <= ended and began <= gone.get(named, ended)
    assert {named for (named, _), _, _ in clients.answers} == {1, 2, 3}
    assert len(clients.answers) >= 600


def post(connection, work: int) -> tuple[int, str]:
    body = json.dumps({"signature_name": "serving_default", "inputs": {"x": [1.0], "work": work}})
    connection.request("POST", "/v1/models/slow:predict", body)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_sigterm_in_the_middle_answers_every_accepted_request(served):
    def rest(index: int):
        connection = http.client.HTTPConnection("127.0.0.1", served.rest_api_port, timeout=30)
        try:
            while True:
                yield post(connection, 60)
        finally:
            connection.close()

    def call(index: int):
        with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            stub, request = PredictionServiceStub(channel), PredictRequest()
            request.model_spec.name = "slow"
            request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
            request.inputs["work"].CopyFrom(tf.make_tensor_proto(60, tf.int32))
            while True:
                try:
                    stub.Predict(request, timeout=30)
                    yield 200, "predictions"
                except grpc.RpcError as error:
                    yield error.code().name, error.details()
                    return

    assert "Could not find" in get(served.rest_api_port, "/v1/models/none")["error"]
    clients = Clients(8, lambda index: (rest if index % 2 else call)(index))
    clients.await_more(30)
    told = time.monotonic()
    assert served.terminate() == 0
    clients.join()
    codes = Counter(code for (code, _), _, _ in clients.answers)
    assert codes.keys() <= {200, 503, "UNAVAILABLE"} and codes[200] > 10, codes
    # A connection that comes when the port is closing may be refused or reset, before or while the
    # request is sent; no request from before is.
    allowed = [
        began > told and ("Connection" in why or "BrokenPipe" in why)
        for why, began in clients.failures
    ]
    assert all(allowed), clients.failures
    # What it loaded, each request and its end are in the log.
    entries = [json.loads(line) for line in served.errors if line.startswith("{")]
    log = "\n".join(entry["message"] for entry in entries)
    assert "Model slow version 1 is AVAILABLE" in log and "requests under way" in log
    codes = {(entry["request"], entry["code"]) for entry in entries if "request" in entry}
    asked = [("GET /v1/models/none", "NOT_FOUND"), ("POST /v1/models/slow:predict", "OK")]
    assert codes >= {*asked, ("/tensorflow.serving.PredictionService/Predict slow", "OK")}
    assert not [line for line in served.errors if "Traceback" in line]


@pytest.fixture
def slow_base_path(tmp_path):
    slow(tmp_path)
    return tmp_path


def ask_without_end(port: int, answers: list) -> None:
    answers.append(post(http.client.HTTPConnection("127.0.0.1", port, timeout=30), 10**6))


def test_five_times_the_capacity_is_refused_cleanly_and_memory_is_bounded(slow_base_path):
    flags = ["--model-name", "slow", "--max-in-flight", "2", "--max-queued", "4"]
    flags += ["--log-level", "error", "--shutdown-grace-seconds", "0.5"]
    with Served(str(slow_base_path), *flags) as served:

        def ask(index: int):
            connection = http.client.HTTPConnection("127.0.0.1", served.rest_api_port, timeout=30)
            try:
                while True:
                    status, body = post(connection, 30)
                    assert status == 200 or (status == 429 and "The server is full" in body), (
                        status,
                        body,
                    )
                    if status == 429:
                        time.sleep(0.02)
                    yield status
            finally:
                connection.close()

        alone = Clients(1, ask)
        alone.await_more(10)
        alone.join()
        early = served.resident_bytes
        clients = Clients(30, ask)
        for code in (200, 429, 200):
            clients.await_more(30, code)
        clients.join()
        late = served.resident_bytes
        cut_off: list[tuple[int, str]] = []
        asking = threading.Thread(target=ask_without_end, args=[served.rest_api_port, cut_off])
        asking.start()
        time.sleep(0.2)
        assert (
            served.terminate(8) == 0
        )  # within the grace period and two seconds, with time for a machine in use
        asking.join()
    assert cut_off[0][0] == 503 and "The server is shutting down" in cut_off[0][1]
    assert not [line for line in served.errors if "Traceback" in line]
    assert not clients.failures, clients.failures[:3]
    took = {
        code: [ended - began for got, began, ended in clients.answers if got == code]
        for code in (200, 429)
    }
    assert len(took[200]) >= 60 and len(took[429]) >= 30
    single = float(np.median([ended - began for _, began, ended in alone.answers]))
    # Six places, two at work: an accepted request waits for three others at most, on a machine that
    # others use too.
    assert np.percentile(took[200], 99) < 20 * single + 1.0
    assert np.median(took[429]) < 0.5
    assert late - early < 100 * 2**20
