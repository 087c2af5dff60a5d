"""Two replicas, in one process and in two, train as one process with the whole batch does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tf_groupvit.errors import InputError
from tf_groupvit.training.losses import LOSSES
from tf_groupvit.training.replicas import gathered, own_share, rows_per_replica

PROGRAM = Path(__file__).parent / "replica_program.py"


def start(kind: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-W", "ignore", str(PROGRAM), kind]
    return subprocess.Popen(
        command,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen) -> dict:
    out, errors = process.communicate(
        timeout=600
    )  # busy machines take their time; it ends by itself
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out.splitlines()[-1])


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def close(one: dict, other: dict) -> None:
    """Sums in another order differ in the last digits; the weights have been through four steps of
    them.
    """
    for mine, theirs in zip(one["losses"], other["losses"], strict=True):
        assert mine.keys() == theirs.keys() >= {"loss", *(f"{name}_loss" for name in LOSSES)}
        np.testing.assert_allclose([mine[k] for k in mine], [theirs[k] for k in mine], rtol=2e-4)
    assert one["weights"].keys() == other["weights"].keys()
    for path, size in one["weights"].items():
        np.testing.assert_allclose(size, other["weights"][path], rtol=2e-3, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_two_workers_and_two_devices_train_as_one_process_does():
    """Gathered negatives, gradients through the gather, statistics and noise of the whole batch,
    its gradient clipped.

    The four processes run at once: most of their time is the import of TensorFlow.
    """
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    cluster = [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(2)
    ]
    running = [
        start("alone"),
        start("mirrored"),
        *(start("workers", TF_CONFIG=config) for config in cluster),
    ]
    try:
        alone, mirrored, first, second = map(told, running)
    finally:
        for process in running:
            process.kill()
            process.communicate()  # closes its pipes, should the test have failed
    losses = [step["loss"] for step in alone["losses"]]
    assert len(set(losses)) == len(losses) == 4
    for one in (mirrored, first, second):
        close(one, alone)


@pytest.mark.slow
def test_gradients_are_summed_once_accumulated_and_overflow_on_two_devices_as_on_one():
    found = told(start("accumulated"))
    losses = np.array(found["losses"])
    assert found["sums"] == 2  # all gradients at once, on each of two devices
    assert len(np.unique(losses[:, 0])) == 6
    np.testing.assert_allclose(losses[:, 1], losses[:, 0], rtol=1e-5)
    np.testing.assert_allclose(*found["half losses"], rtol=1e-3)
    assert found["scales"] == [2**15, 2**15]


def test_one_replica_has_all_rows():
    rows = np.ones((3, 2))
    assert gathered(rows)[0] is rows and gathered(rows)[1] == 0 and own_share(rows) is rows


@pytest.mark.parametrize(
    ("batch", "words"),
    [(1, "batch of 1 is smaller than the 2 replicas"), (5, "shared evenly by 2 replicas: take 4")],
)
def test_a_batch_that_replicas_cannot_share_is_refused_in_one_line(batch, words):
    with pytest.raises(InputError, match=words) as caught:
        rows_per_replica(batch, 2)
    assert "\n" not in str(caught.value)
    assert rows_per_replica(6, 2) == 3
