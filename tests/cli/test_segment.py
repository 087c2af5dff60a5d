"""tf-groupvit segment: folders, patterns, standard input, bad images; what it writes, prints and
refuses.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tf_groupvit.cli import choices, main

pytestmark = pytest.mark.usefixtures("models_once")

MODEL = Path(__file__).resolve().parents[1] / "golden" / "segmenter"
FILES = ["{}.colors.png", "{}.json", "{}.labels.png", "{}.overlay.png"]


def png(seed=0, size=(60, 40)):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(content, "png")
    return content.getvalue()


@pytest.fixture
def images(tmp_path):
    """A folder with a.png and b.png, and a text that is no image."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(0))
    (folder / "b.png").write_bytes(png(1))
    (folder / "notes.txt").write_text("no image")
    return folder


def segment(*arguments, classes="dog,grass,sky", model=MODEL, **keywords):
    named = [] if classes is None else ["--classes", classes]
    line = ["segment", *map(str, arguments), *named, "--model", str(model)]
    return CliRunner().invoke(main, line, **keywords)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_gives_four_files_for_each_image(images, tmp_path):
    (images / "._a.png").write_bytes(b"what macOS leaves")
    (images / "album.png").mkdir()
    result = segment(images, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert names_in(tmp_path / "out") == sorted(
        file.format(name) for name in "ab" for file in FILES
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{images / 'a.png'}: ")
    mask = Image.open(tmp_path / "out" / "a.labels.png")
    labels = np.asarray(mask)
    assert mask.mode == "L" and labels.shape == (40, 60)
    areas = json.loads((tmp_path / "out" / "a.json").read_text())["areas"]
    assert areas["grass"] == pytest.approx((labels == 1).mean())


def test_a_second_run_into_the_folder_of_images_gives_the_same_and_each_json_names_its_image(
    images,
):
    (images / "deep").mkdir()
    for ending in ("bmp", "gif"):
        Image.open(images / "a.png").save(images / "deep" / f"x.{ending}")
    first, second = (segment(images, "--recursive", "--output", images) for _ in range(2))
    assert first.exit_code == second.exit_code == 0, second.output
    assert first.stdout == second.stdout and len(first.stdout.splitlines()) == 4
    assert "Left out" in second.stderr and "Left out" not in first.stderr
    told = {
        str(file.relative_to(images)): json.loads(file.read_text())["image"]
        for file in images.rglob("*.json")
    }
    expected = {
        "a.json": "a.png",
        "b.json": "b.png",
        "deep/x.bmp.json": "deep/x.bmp",
        "deep/x.gif.json": "deep/x.gif",
    }
    assert told == {name: str(images / image) for name, image in expected.items()}


def test_a_pattern_and_a_file_and_standard_input(images, tmp_path):
    result = segment(
        f"{images}/[b]*.png", images / "a.png", "-", "--output", tmp_path / "out", input=png(2)
    )
    assert result.exit_code == 0, result.output
    assert names_in(tmp_path / "out") == sorted(
        file.format(name) for name in ("a", "b", "stdin") for file in FILES
    )


def test_json_is_alone_on_standard_output(images, tmp_path):
    result = segment(images, "--output", tmp_path / "out", "--json", "--background", 0.2)
    found = json.loads(result.stdout)
    assert [record["image"] for record in found] == [str(images / "a.png"), str(images / "b.png")]
    assert found[0]["class_names"] == ["background", "dog", "grass", "sky"]
    assert (found[0]["width"], found[0]["height"]) == (60, 40)
    assert sum(found[0]["areas"].values()) == pytest.approx(1)
    assert all(Path(file).exists() for file in found[0]["files"])


def test_an_image_that_is_named_twice_is_told_twice(images, tmp_path):
    found = json.loads(
        segment(*[images / "a.png"] * 2, "--output", tmp_path / "out", "--json").stdout
    )
    stems = [[Path(file).name.split(".")[0] for file in record["files"]] for record in found]
    assert stems == [["a"] * 4, ["a-2"] * 4]


def test_views_are_written_beside(images, tmp_path):
    options = (
        "--view",
        "all_groups",
        "--view",
        "input_pred_label",
        "--mode",
        "window",
        "--protocol",
        "hf",
    )
    result = segment(images / "a.png", *options, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {"a.all_groups.png", "a.input_pred_label.png"} <= set(names_in(tmp_path / "out"))


def test_the_same_name_in_two_folders_is_not_overwritten(images, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(png(3))
    result = segment(images / "a.png", tmp_path / "more", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {"a.labels.png", "a-2.labels.png"} <= set(names_in(tmp_path / "out"))


def test_another_runtime_writes_the_same_and_says_what_is_waited_for(
    images, tmp_path, other_runtime
):
    both = ("graph", other_runtime)
    plain, other = (
        segment(images, "--runtime", name, "--output", tmp_path / name) for name in both
    )
    assert plain.exit_code == other.exit_code == 0, other.output
    title = {"lite": "LiteRT", "openvino": "OpenVINO"}[other_runtime]
    assert f"Preparing {title}: some seconds" in other.stderr and "Preparing" not in plain.stderr
    one, other = (np.asarray(Image.open(tmp_path / name / "a.labels.png")) for name in both)
    assert (one == other).mean() > 0.999


def test_bad_images_are_reported_and_the_rest_are_done(images, tmp_path):
    (images / "c.png").write_text("a text")
    jpeg = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(
        jpeg, "jpeg"
    )
    (images / "d.jpg").write_bytes(jpeg.getvalue()[:1500])
    (images / "e.png").write_bytes(b"")
    result = segment(images, images / "no.png", "--output", tmp_path / "out", "--json")
    assert result.exit_code == 2
    found = {
        Path(record["image"]).name: record.get("error") for record in json.loads(result.stdout)
    }
    assert list(found) == ["a.png", "b.png", "c.png", "d.jpg", "e.png", "no.png"]
    assert [name for name, error in found.items() if error] == ["c.png", "d.jpg", "e.png", "no.png"]
    said = result.stderr.splitlines()  # on a slow machine also how many are done
    complaints = [line for line in said if not line.startswith("Loading") and "of 6" not in line]
    assert [line.split(":")[0].rsplit("/")[-1] for line in complaints] == [
        "c.png",
        "d.jpg",
        "e.png",
        "no.png",
    ]
    assert names_in(tmp_path / "out") == sorted(
        file.format(name) for name in "ab" for file in FILES
    )


def refused(result, *words):
    """One line on standard error (but for what is being loaded), exit code 2, no traceback, nothing
    else.
    """
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Loading")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(classes=None), ["--classes"]),
        (dict(classes=""), ["empty"]),
        (dict(classes="dog,,sky"), ["Class 2 of 3", "empty name"]),
        (dict(classes="dog,sky,dog"), ["twice", "'dog'"]),
        (dict(model="no/such/folder"), ["no/such/folder"]),
        (dict(model=""), ["empty"]),
    ],
)
def test_classes_and_models_that_are_not_there_are_refused(images, tmp_path, options, words):
    refused(segment(images, "--output", tmp_path / "out", **options), *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--protocol", "x"], ["--protocol", "'x'", "'paper', 'hf'"]),
        (["--mode", "x"], ["--mode", "'x'", "'whole', 'window'"]),
        (["--view", "x"], ["'x'", "input_pred_label"]),
        (["--templates", "x"], ["'x'", "subset"]),
        (["--background", "1.5"], ["1.5", "from 0 to 1"]),
        (["--background", "nan"], ["from 0 to 1"]),
        (["--background", "0.5", "--protocol", "hf"], ["protocol='paper'"]),
        (["--size", "33"], ["33", "multiple"]),
        (["--size", "32", "--mode", "window"], ["whole"]),
        (["--normalize", "x"], ["--normalize", "'x'", "imagenet"]),
        (["--runtime", "x"], ["--runtime", "'x'", "'lite', 'lite_int8'"]),
    ],
)
def test_choices_that_there_are_not_are_refused(images, tmp_path, options, words):
    refused(segment(images, *options, "--output", tmp_path / "out"), *words)


@pytest.mark.parametrize(
    "options", [["--mode", "x"], ["--background", "1.5"], ["--templates", "x"], ["--runtime", "x"]]
)
def test_wrong_choices_are_refused_before_tensorflow_is_loaded(
    images, tmp_path, monkeypatch, options
):
    monkeypatch.setattr(choices, "import_tensorflow", lambda: pytest.fail("loaded"))
    refused(segment(images, *options, "--output", tmp_path / "out"))


def test_a_folder_without_weights_is_refused(images, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((MODEL / "config.json").read_bytes())
    refused(segment(images, "--output", tmp_path / "out", model=tmp_path / "bare"), "bare")


def test_a_folder_without_images_and_a_pattern_without_files_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(segment(tmp_path / "empty", "--output", tmp_path / "out"), "holds no images")
    refused(segment(tmp_path / "*.png", "--output", tmp_path / "out"), "No file matches")
    assert names_in(tmp_path) == ["empty"]


def test_an_output_that_cannot_be_made_is_refused(images, tmp_path):
    (tmp_path / "file").write_text("")
    refused(segment(images, "--output", tmp_path / "file"), "file")
    refused(segment(images, "--output", tmp_path / "file" / "out"), "file")


def test_a_write_protected_folder_is_refused_before_work_starts(images, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a test may run as root, who may
    refused(segment(images, "--output", tmp_path, model="not looked at"), "write-protected")


def test_nothing_is_left_half_written(images, tmp_path):
    out = tmp_path / "out"
    (out / "a.labels.png").mkdir(parents=True)  # in the way
    result = segment(images, "--output", out)
    refused(result, "a.labels.png")
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]


def test_a_folder_that_holds_its_classes_needs_none_and_keeps_its_settings(images, tmp_path):
    from tf_groupvit.segmentation.segmenter import Segmenter

    saved = Segmenter.from_pretrained(MODEL, "sky,boat", background=0.1, mode="window")
    saved.save_pretrained(tmp_path / "saved")
    result = segment(
        images / "a.png",
        "--json",
        "--output",
        tmp_path / "out",
        classes=None,
        model=tmp_path / "saved",
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["class_names"] == ["background", "sky", "boat"]


@pytest.mark.slow
def test_a_real_process_says_nothing_but_its_own_words(images, tmp_path, runtime):
    """TensorFlow's C++ libraries talk to standard error while they are imported, and when they look
    for a device; and LiteRT when it makes a program.
    """
    title = {"lite": "LiteRT", "openvino": "OpenVINO"}.get(runtime)
    more = [f"Preparing {title}: some seconds ..."] if title else []
    options = ["--runtime", runtime] if title else []
    command = "from tf_groupvit.cli import main; main()"
    arguments = [
        "segment",
        str(images / "a.png"),
        "--classes",
        "dog,grass",
        "--model",
        str(MODEL),
        "--json",
        *options,
    ]
    environment = {
        key: value for key, value in os.environ.items() if key not in ("TF_CPP_MIN_LOG_LEVEL",)
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments, "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["width"] == 60
    assert done.stderr.splitlines() == [f"Loading {MODEL} ...", *more]
