"""`scripts/demo`, as a newcomer types it: pictures in the end, three times the same masks."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_demo_ends_with_the_same_masks_from_here_and_over_rest_and_grpc(tmp_path):
    command = [ROOT / "scripts" / "demo", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [Path(line) for line in done.stdout.splitlines() if line.endswith(".overlay.png")]
    assert len(shown) == 3 * 8
    assert all(path.exists() for path in shown)
    parts = [sorted((tmp_path / part).glob("*.labels.png")) for part in ("segment", "rest", "grpc")]
    for here, rest, grpc in zip(*parts, strict=True):
        labels = [np.array(Image.open(path)) for path in (here, rest, grpc)]
        assert np.array_equal(labels[1], labels[2])
        assert np.mean(labels[0] == labels[1]) > 0.99  # the graph resizes in float32
