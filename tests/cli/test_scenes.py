"""tf-groupvit scenes writes pictures, masks, captions and classes."""

import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tf_groupvit.cli import main
from tf_groupvit.evaluation.scenes import CLASSES, scenes


def run(*arguments):
    return CliRunner().invoke(main, ["scenes", *map(str, arguments)])


def test_the_files_hold_the_scenes_of_the_seed(tmp_path):
    result = run("--output", tmp_path / "deep" / "out", "--seed", 5, "--count", 3)
    assert result.exit_code == 0, result.output
    out = tmp_path / "deep" / "out"
    assert sorted(path.name for path in out.iterdir()) == ["captions.txt", "classes.txt", "images", "masks"]
    assert (out / "classes.txt").read_text().splitlines() == list(CLASSES)
    captions = (out / "captions.txt").read_text().splitlines()
    for index, drawn in enumerate(scenes(5, 3)):
        image, mask = (Image.open(out / part / f"{index:05d}.png") for part in ("images", "masks"))
        assert mask.mode == "L"
        assert (np.asarray(image) == drawn.image).all()
        assert (np.asarray(mask) == drawn.mask).all()
        assert captions[index] == drawn.caption
    assert len(captions) == len(list((out / "images").iterdir())) == len(list((out / "masks").iterdir())) == 3


def test_a_size_can_be_chosen(tmp_path):
    assert run("--output", tmp_path, "--count", 1, "--size", 96).exit_code == 0
    with Image.open(tmp_path / "images" / "00000.png") as picture:
        assert picture.size == (96, 96)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--seed", -1), "Seeds are expected"), (("--count", -1), "0 or more"), (("--size", 3), "16..2048")],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, arguments, words):
    result = run("--output", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_scenes_are_not_mixed_with_those_that_are_there(tmp_path):
    run("--output", tmp_path, "--count", 2)
    result = run("--output", tmp_path, "--count", 1, "--seed", 1)
    assert result.exit_code == 2
    assert "holds scenes already" in result.stderr


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    result = run("--output", tmp_path / "file" / "out", "--count", 1)
    assert result.exit_code == 2
    assert "cannot be made" in result.stderr


def test_drawing_needs_no_tensorflow():
    code = (
        "import sys, tf_groupvit.evaluation.scene_dataset, tf_groupvit.cli.scenes; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
