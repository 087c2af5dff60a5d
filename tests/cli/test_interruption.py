"""Ctrl-C ends a command with one word, no traceback, and nothing half-written."""

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

from click.testing import CliRunner

from tf_groupvit.cli import main

# A shell has what it runs in the background ignore Ctrl-C, and programs inherit that: tests may run
# there, too.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from tf_groupvit.cli import main
main()
"""
PATIENCE = 300  # seconds: machines that test are busy


def interrupted(arguments, begun):
    """Interrupt a command once ``begun()``: its exit code, standard output and standard error."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + PATIENCE
        while not begun() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=PATIENCE)
    return process.returncode, out, said


def test_scenes_that_are_interrupted_leave_whole_pictures_alone(tmp_path):
    from PIL import Image

    code, _, said = interrupted(
        ["scenes", "--output", tmp_path, "--count", 200_000], lambda: _some(tmp_path / "masks")
    )
    assert code == 1
    assert said.strip() == "Aborted!"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".png"}
    for path in files:
        with Image.open(path) as picture:
            picture.load()


def test_an_export_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    # Raised where the writing is under way: when a signal arrives is chance, what is left behind
    # must not be.
    def half_written(segmenter, folder, *_):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"half")
        raise KeyboardInterrupt

    segmenter = SimpleNamespace(tokenizer=object())
    monkeypatch.setattr("tf_groupvit.cli.export.load_segmenter", lambda **_: segmenter)
    monkeypatch.setattr("tf_groupvit.export.signatures.check_servable", lambda _: None)
    monkeypatch.setattr("tf_groupvit.export.version_folder.write_version", half_written)
    result = CliRunner().invoke(main, ["export", str(tmp_path / "models"), "--classes", "dog,sky"])
    assert result.exit_code == 1
    assert result.output.strip() == "Aborted!"
    assert list((tmp_path / "models").iterdir()) == []


def _some(folder):
    return folder.is_dir() and any(folder.iterdir())
