"""A photo of 12 megapixels in both modes: how much memory it takes above a small picture."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "segmenter"

# Prints the peak of resident memory in MB above what the process held after a small picture.
MEASURED = """
import sys
from pathlib import Path
import numpy as np
from tf_groupvit.segmentation.segmenter import Segmenter

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024

segmenter = Segmenter.from_pretrained(sys.argv[1], [f"thing {i}" for i in range(60)], mode=sys.argv[2], background=0.5)
pixels = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
segmenter(pixels[:300, :400])
held = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
labels = segmenter(pixels).labels
assert labels.shape == (3000, 4000) and labels.dtype == np.uint8
print(status("VmHWM:") - held)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="peak memory is read from /proc: it needs Linux",
)
@pytest.mark.parametrize("mode", ["whole", "window"])
def test_a_photo_of_12_megapixels_takes_no_more_than_some_copies_of_it(mode):
    command = [sys.executable, "-c", MEASURED, str(FOLDER), mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    peak = float(done.stdout)
    print(f"mode {mode}: {peak:.0f} MB above a small picture")
    assert (
        peak < 450
    )  # its labels are 12 MB, and 48 as int32; its scores for all 61 classes would be 2,900
