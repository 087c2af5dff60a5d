"""Ctrl-C ends a command with one word, no traceback, and nothing half-written."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PROGRAM = "from tf_groupvit.cli import main; main()"
PATIENCE = 300  # seconds: machines that test are busy


def interrupted(arguments, begun):
    """Interrupt a command once ``begun()``: its exit code, standard output and standard error."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + PATIENCE
        while not begun() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=PATIENCE)
    return process.returncode, out, said


def test_scenes_that_are_interrupted_leave_whole_pictures_alone(tmp_path):
    from PIL import Image

    code, _, said = interrupted(["scenes", "--output", tmp_path, "--count", 200_000], lambda: _some(tmp_path / "masks"))
    assert code == 1
    assert said.strip() == "Aborted!"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".png"}
    for path in files:
        with Image.open(path) as picture:
            picture.load()


@pytest.mark.slow
def test_an_export_that_is_interrupted_leaves_nothing(tmp_path):
    arguments = ["export", tmp_path / "models", "--model", GOLDEN / "segmenter", "--classes", "dog,sky", "--no-check"]
    code, out, said = interrupted(arguments, lambda: _some(tmp_path / "models"))
    assert code == 1
    assert out == ""
    assert said.rstrip().endswith("Aborted!")
    assert "Traceback" not in said
    assert list((tmp_path / "models").iterdir()) == []


def _some(folder):
    return folder.is_dir() and any(folder.iterdir())
