"""The export that most tests ask, run in sessions here and in an older TensorFlow, and in servers."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exported import Export, SessionProcess, export_of
from served_export import AddressedServer, LocalServer

LOWEST = os.environ.get("TF_GROUPVIT_LOWEST_PYTHON", "")


@pytest.fixture(scope="session")
def export() -> Export:
    return export_of()


def _in_lowest(path: Path) -> SessionProcess:
    if not Path(LOWEST).is_file():
        pytest.skip(
            "TF_GROUPVIT_LOWEST_PYTHON names no interpreter with the oldest TensorFlow:"
            " scripts/test --all does"
        )
    return SessionProcess(path, LOWEST)


def _in_model_server(path: Path) -> Any:
    binary = shutil.which("tensorflow_model_server")
    if binary is None:
        pytest.skip("tensorflow_model_server is not on the PATH")
    return LocalServer(binary, path)


def _at_address(path: Path) -> Any:
    address = os.environ.get("TF_SERVING_ADDRESS")
    if address is None:
        pytest.skip(
            "TF_SERVING_ADDRESS is not set: host:port of a server's gRPC, that watches"
            " TF_SERVING_BASE_PATH"
        )
    return AddressedServer(address, path)


RUNNERS = {
    "session": lambda path: SessionProcess(path, sys.executable),
    "lowest": _in_lowest,
    "model_server": _in_model_server,
    "address": _at_address,
}


@pytest.fixture(
    scope="session",
    params=[
        "session",
        *(pytest.param(name, marks=pytest.mark.slow) for name in RUNNERS if name != "session"),
    ],
)
def runner(request: Any, export: Export) -> Iterator[Any]:
    """``runner.answer(signature, inputs)`` -> {"outputs", "error"}: one export, run in different
    places.
    """
    running = RUNNERS[request.param](export.path)
    yield running
    running.close()
