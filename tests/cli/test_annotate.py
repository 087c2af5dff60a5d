"""tf-groupvit annotate: the command's own part; what is annotated is tested in tests/annotation."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tf_groupvit.cli import annotate as module
from tf_groupvit.cli import main

pytestmark = pytest.mark.usefixtures("models_once")

MODEL = Path(__file__).resolve().parents[1] / "golden" / "segmenter"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, color in enumerate(("red", "green")):
        content = io.BytesIO()
        Image.new("RGB", (40, 32), color).save(content, "png")
        (folder / f"{number}.png").write_bytes(content.getvalue())
    return folder


def annotate(*arguments, classes="dog,grass,sky"):
    line = ["annotate", *map(str, arguments), "--classes", classes, "--model", str(MODEL)]
    return CliRunner().invoke(main, line)


def test_pictures_are_annotated_and_summed_up(photos, tmp_path):
    result = annotate(photos, "--output", tmp_path / "labels")
    assert result.exit_code == 0, result.output
    first, run, pixels = result.stdout.splitlines()
    assert first == f"{tmp_path / 'labels'}: 2 pictures annotated, 0 failed"
    assert run.startswith("this run: 2 pictures in ") and "segmenting" in run
    assert pixels.startswith("pixels: ") and "%" in pixels
    again = annotate(photos, "--output", tmp_path / "labels", "--json")
    assert json.loads(again.stdout)["run"]["pictures"] == 0


def test_pixels_that_are_ignored_are_part_of_the_sums(photos, tmp_path):
    result = annotate(photos, "--output", tmp_path / "labels", "--ignore-below", "1")
    assert result.stdout.splitlines()[-1].startswith("pixels: (ignored) ")


def test_failures_are_named_and_the_rest_is_done(photos, tmp_path):
    for number in range(7):
        (photos / f"broken{number}.jpg").write_bytes(b"no picture")
    result = annotate(photos, tmp_path / "gone", "--output", tmp_path / "labels", "--json")
    assert result.exit_code == 2
    summary = json.loads(result.stdout)
    assert (summary["done"], summary["failed"]) == (2, 7)
    assert f"{tmp_path / 'gone'}: there is no such file or folder" in result.stderr
    assert "broken4.jpg: expected an image" in result.stderr and "broken5" not in result.stderr
    assert f"and 2 more, which {tmp_path / 'labels'}/errors.jsonl names" in result.stderr


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (["--background", "0.5"], "settings background was null and is 0.5 now"),
        (["--refine", "guided"], 'settings refine was null and is "guided" now'),
        (["--ignore-below", "0.1"], "settings ignore_below was null and is 0.1 now"),
    ],
)
def test_other_settings_are_refused(photos, tmp_path, choices, words):
    assert annotate(photos, "--output", tmp_path / "labels").exit_code == 0
    result = annotate(photos, "--output", tmp_path / "labels", *choices)
    assert result.exit_code == 2 and words in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_formats_and_engines_are_those_that_there_are():
    from tf_groupvit.annotation.formats import FORMATS
    from tf_groupvit.annotation.run import ENGINES

    assert list(FORMATS) == list(module.FORMATS)
    assert ENGINES == module.ENGINES


def test_a_format_is_written_from_the_records_that_there_are(photos, tmp_path):
    labels = tmp_path / "labels"
    assert annotate(photos, "--output", labels).exit_code == 0
    result = annotate(photos, "--output", labels, "--format", "coco", "--json")
    assert json.loads(result.stdout)["run"]["pictures"] == 0
    (file,) = (labels / "coco" / "annotations").iterdir()
    names = [image["file_name"] for image in json.loads(file.read_text())["images"]]
    assert names == ["0.png", "1.png"]


def test_label_studio_is_told_where_the_pictures_are(photos, tmp_path):
    (photos / "1.png").rename(photos / "a b.png")
    options = ("--output", tmp_path / "labels", "--format", "label-studio-brush")
    assert annotate(photos, *options, "--picture-url", "s3://bucket/photos/").exit_code == 0
    tasks = json.loads((tmp_path / "labels/label-studio-brush/tasks.json").read_text())
    assert [one["data"]["image"] for one in tasks] == [
        f"s3://bucket/photos/{name}.png" for name in ("0", "a b")
    ]


def test_a_folder_of_something_else_is_refused_before_a_model_is_loaded(photos, monkeypatch):
    monkeypatch.setattr(module, "load_segmenter", lambda **_: pytest.fail("loaded"))
    result = annotate(photos, "--output", photos)
    assert result.exit_code == 2
    assert "holds '0.png', and is no folder of annotations" in result.stderr


def test_without_pictures_no_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_segmenter", lambda **_: pytest.fail("loaded"))
    result = annotate(tmp_path / "gone", "--output", tmp_path / "labels")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: There is no picture to annotate: ")
    result = annotate("-", "--output", tmp_path / "labels")
    assert result.exit_code == 2
    assert result.stderr.endswith("-: standard input is not read: name paths or URLs.\n")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (["--format", "voc", "--classes", "a:b"], "format voc cannot hold the name 'a:b'"),
        (["--tolerance", "-1"], "expected pixels, 0 or more"),
        (["--ignore-below", "2"], "expected a margin from 0 to 1"),
        (["--batch-size", "0"], "expected at least 1"),
        (["--format", "png", "--with-pictures"], "belong to voc, labelme, yolo, not to 'png'"),
        (["--workers", "2"], "for the engine ray"),
        (["--output", ""], "The output has no name"),
        (["--column", "y"], "column 'y' is of Parquet files, and there is none: leave it out"),
    ],
)
def test_what_needs_no_model_is_refused_before_one_is_loaded(
    photos, tmp_path, monkeypatch, choices, words
):
    monkeypatch.setattr(module, "load_segmenter", lambda **_: pytest.fail("loaded"))
    line = ["annotate", str(photos), "--output", str(tmp_path / "labels"), "--classes", "a"]
    result = CliRunner().invoke(main, [*line, *choices])
    assert result.exit_code == 2
    assert words in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "labels").exists()


def test_of_many_problems_the_first_are_named(photos, tmp_path):
    gone = [tmp_path / f"gone{number:02}" for number in range(23)]
    result = annotate(photos, *gone, "--output", tmp_path / "labels")
    assert result.exit_code == 2
    assert "gone19: there is no such file" in result.stderr and "gone20" not in result.stderr
    assert f"and 3 more of that kind, which {tmp_path / 'labels'}/errors.jsonl" in result.stderr


def test_without_the_extra_it_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "pyarrow" else name)
    result = annotate(photos, "--output", tmp_path / "labels")
    assert result.exit_code == 2
    assert result.stderr == "Error: annotate needs pyarrow: pip install 'tf-groupvit[annotate]'.\n"


def test_without_ray_the_engine_ray_is_refused_before_a_model_is_loaded(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "load_segmenter", lambda **_: pytest.fail("loaded"))
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "ray" else name)
    result = annotate(photos, "--output", tmp_path / "labels", "--engine", "ray")
    assert result.exit_code == 2
    assert result.stderr == "Error: annotate needs ray: pip install 'tf-groupvit[ray]'.\n"


def test_ctrl_c_says_that_the_same_command_goes_on(photos, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("tf_groupvit.annotation.run.annotate", stop)
    result = annotate(photos, "--output", tmp_path / "labels")
    assert result.exit_code == 1
    assert result.stderr.endswith("Stopped. The same command goes on.\n\nAborted!\n")


def test_a_cluster_that_does_not_answer_is_one_line(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    monkeypatch.setattr("tf_groupvit.annotation.run.find_spec", lambda name: name)
    cluster = ("--engine", "ray", "--ray-address", "127.0.0.1:0")
    result = annotate(photos, "--output", tmp_path / "labels", *cluster)
    assert (result.exit_code, result.stdout) == (2, "") and not (tmp_path / "labels").exists()
    *_, line = result.stderr.splitlines()
    assert line.startswith("Error: Ray at '127.0.0.1:0' is not reached: ")
