"""What every test shares: quiet TensorFlow, no network, and the way to the shared data."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


def _shared(part: str) -> Path:
    folder = ROOT.parent / "shared" / part
    if not folder.exists():
        pytest.skip(f"{folder} is not there: this test needs the shared {part}")
    return folder


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


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The sample of TensorFlow Serving conformance cases."""
    return _shared("conformance")
