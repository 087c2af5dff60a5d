"""A photo of 12 megapixels in both modes: how much memory it takes."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import VISION, tiny_parts
from PIL import Image

from tf_groupvit.config import GroupViTConfig, GroupViTVisionConfig
from tf_groupvit.export import replay
from tf_groupvit.export.saving import export_saved_model
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.segmentation.segmenter import Segmenter

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "segmenter"

NEEDS_PROC = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="peak memory is read from /proc: it needs Linux",
)
STATUS = """
import sys
from pathlib import Path
import numpy as np

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024
"""
# Prints the peak of resident memory in MB above what the process held after a small picture.
MEASURED = """
from tf_groupvit.segmentation.segmenter import Segmenter
segmenter = Segmenter.from_pretrained(sys.argv[1], [f"thing {i}" for i in range(60)], mode=sys.argv[2], background=0.5)
pixels = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
segmenter(pixels[:300, :400])
held = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
labels = segmenter(pixels).labels
assert labels.shape == (3000, 4000) and labels.dtype == np.uint8
print(status("VmHWM:") - held)
"""


# Prints it above what the process held with the model loaded, before any picture.
LOADED = """
held = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
{}
print(status("VmHWM:") - held)
"""
CALLED = """
from tf_groupvit.segmentation.segmenter import Segmenter

segmenter = Segmenter.from_pretrained(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
pixels = pixels.repeat(10, axis=0).repeat(10, axis=1)
""" + LOADED.format("assert segmenter(pixels).labels.shape == (3000, 4000)")
ASKED = """
import importlib.util
spec = importlib.util.spec_from_file_location("replay", sys.argv[1])
replay = importlib.util.module_from_spec(spec); spec.loader.exec_module(replay)
model = replay.Model(sys.argv[2])
request = {"image_bytes": np.array([Path(sys.argv[3]).read_bytes()], object)}
""" + LOADED.format("assert not any(model.answer('segment', request)['outputs']['error'])")


def peak_of(code: str, *arguments: object) -> float:
    command = [sys.executable, "-c", STATUS + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout)


@pytest.mark.slow
@NEEDS_PROC
@pytest.mark.parametrize("mode", ["whole", "window"])
def test_a_photo_of_12_megapixels_takes_no_more_than_some_copies_of_it(mode):
    peak = peak_of(MEASURED, FOLDER, mode)
    print(f"mode {mode}: {peak:.0f} MB above a small picture")
    assert (
        peak < 450
    )  # its labels are 12 MB, and 48 as int32; its scores for all 61 classes would be 2,900


def of_published_size(classes: int, **choices) -> Segmenter:
    """Narrow towers, but pictures and windows as large as those of the published models."""
    small, tokenizer = tiny_parts()
    vision = GroupViTVisionConfig(**{**VISION, "image_size": 224, "patch_size": 16})
    sizes = {"projection_dim": 8, "projection_intermediate_dim": 20}
    config = GroupViTConfig.from_text_vision_configs(small.config.text_config, vision, **sizes)
    names = [f"thing {i}" for i in range(classes)]
    return Segmenter(TFGroupViTModel(config), tokenizer, ImageProcessor(), names, **choices)


@pytest.mark.slow
@NEEDS_PROC
@pytest.mark.parametrize(
    ("mode", "classes", "most"),
    [("whole", 20, 350), ("window", 20, 350), ("whole", 256, 500), ("window", 256, 2200)],
)
def test_refining_a_photo_takes_little_more_memory(tmp_path, mode, classes, most):
    """With 256 classes the scores of all windows are some 700 MB by themselves."""
    of_published_size(classes, mode=mode, refine="pamr").save_pretrained(tmp_path)
    peak = peak_of(CALLED, tmp_path)
    print(f"mode {mode}, {classes} classes, refined: {peak:.0f} MB above the loaded process")
    assert peak < most


@pytest.mark.slow
@NEEDS_PROC
@pytest.mark.parametrize("mode", ["whole", "window"])
def test_an_export_refines_a_photo_in_little_memory(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).resize((4000, 3000)).save(content, "JPEG")
    (tmp_path / "photo.jpg").write_bytes(content.getvalue())
    segmenter = of_published_size(20, mode=mode, refine="pamr")
    version = export_saved_model(segmenter, tmp_path / "export")
    peak = peak_of(ASKED, replay.__file__, version, tmp_path / "photo.jpg")
    print(f"mode {mode}, exported, refined: {peak:.0f} MB above the loaded process")
    assert peak < 350
