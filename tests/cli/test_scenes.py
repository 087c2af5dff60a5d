"""tf-groupvit scenes writes pictures, masks, captions and classes."""

import errno
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tf_groupvit.cli import main
from tf_groupvit.scenes.scene import CLASSES, scenes


def run(*arguments):
    return CliRunner().invoke(main, ["scenes", *map(str, arguments)])


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that takes some files whole, and half of the next one."""

    @contextmanager
    def filled(after):
        written, write = [], Path.write_bytes

        def until_full(path, content):
            written.append(path)
            if len(written) <= after:
                return write(path, content)
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", until_full)
            yield

    return filled


def test_the_files_hold_the_scenes_of_the_seed(tmp_path):
    result = run("--output", tmp_path / "deep" / "out", "--seed", 5, "--count", 3)
    assert result.exit_code == 0, result.output
    out = tmp_path / "deep" / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "captions.txt",
        "classes.txt",
        "images",
        "masks",
    ]
    assert (out / "classes.txt").read_text().splitlines() == list(CLASSES)
    captions = (out / "captions.txt").read_text().splitlines()
    for index, drawn in enumerate(scenes(5, 3)):
        image, mask = (Image.open(out / part / f"{index:05d}.png") for part in ("images", "masks"))
        assert mask.mode == "L"
        assert (np.asarray(image) == drawn.image).all()
        assert (np.asarray(mask) == drawn.mask).all()
        assert captions[index] == drawn.caption
    assert (
        len(captions)
        == len(list((out / "images").iterdir()))
        == len(list((out / "masks").iterdir()))
        == 3
    )


def test_a_size_can_be_chosen(tmp_path):
    assert run("--output", tmp_path, "--count", 1, "--size", 96).exit_code == 0
    with Image.open(tmp_path / "images" / "00000.png") as picture:
        assert picture.size == (96, 96)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seed", -1), "Seeds must be in"),
        (("--count", 0), "1 or more: received 0"),
        (("--size", 3), "16..2048"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, arguments, words):
    result = run("--output", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_scenes_are_not_mixed_with_those_that_are_there(tmp_path):
    run("--output", tmp_path, "--count", 2)
    result = run("--output", tmp_path, "--count", 1, "--seed", 1)
    assert result.exit_code == 2
    assert "holds scenes already" in result.stderr


@pytest.mark.parametrize("output", ["file", "file/out", "n" * 300, "/dev/full", "/proc/out"])
def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path, output):
    (tmp_path / "file").write_text("kept")
    result = run("--output", tmp_path / output, "--count", 1)
    assert result.exit_code == 2
    assert "cannot be made" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (
        tmp_path / "file"
    ).read_text() == "kept"


def test_a_full_disk_ends_in_one_line_and_leaves_whole_pictures_alone(tmp_path, full_disk):
    with full_disk(after=3):
        result = run("--output", tmp_path, "--count", 4)
    assert result.exit_code == 2
    assert "00001.png' cannot be written: No space left on device" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert files == ["images/00000.png", "images/00001.png", "masks/00000.png"]


def test_drawing_needs_no_tensorflow():
    code = (
        "import sys, tf_groupvit.scenes.scene, tf_groupvit.cli.scenes;"
        " print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
