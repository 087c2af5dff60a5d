"""What every test shares: quiet TensorFlow, no network, and the way to the shared data."""

import gc
import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
from hypothesis import HealthCheck, settings

# How long drawing takes says how busy the machine is, not whether a law holds.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several workers, none starts a long file while the others have nothing left to do: files
    with slow tests come first, then those with many (scripts/test: --no-loadscope-reorder).
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (-slow[item.path], -tests[item.path], item.path))


def pytest_collection_finish() -> None:
    """What was imported, TensorFlow above all, stays to the end: no search for garbage goes through
    its million objects again. Keras searches for each layer that it quantizes.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def nothing_frozen():
    """As where a program starts: imports are not frozen."""
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()


def _shared(part: str) -> Path:
    folder = ROOT.parent / "shared" / part
    if not folder.exists():
        pytest.skip(f"{folder} is not there: this test needs the shared {part}")
    return folder


def _installed(runtime: str) -> str:
    if runtime == "openvino" and find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed: the extra openvino brings it")
    return runtime


@pytest.fixture(params=["lite", "openvino"])
def other_runtime(request) -> str:
    """The runtimes that give what TensorFlow's own gives, where they are installed."""
    return _installed(request.param)


@pytest.fixture(params=["graph", "lite", "openvino"])
def runtime(request) -> str:
    """The same, and TensorFlow's own."""
    return _installed(request.param)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden files, written by scripts/make_golden.py."""
    return GOLDEN


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Three 448x448 JPEG photos: voc.jpg, ctx.jpg, coco.jpg."""
    return [_shared("data/photos") / f"{name}.jpg" for name in ("voc", "ctx", "coco")]


@pytest.fixture(scope="session")
def clip_bpe() -> Path:
    """The 49,408-entry CLIP vocabulary: a folder with vocab.json and merges.txt."""
    return _shared("data/clip_bpe")


@pytest.fixture
def s3(monkeypatch, tmp_path):
    """An S3 server on this machine with the bucket "photos"."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    reset = Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urlopen(reset).close()  # what another server of this process has kept
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("photos")
    yield system
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()
