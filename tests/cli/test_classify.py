"""tf-groupvit classify: a probability for each class, for a person and as JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tf_groupvit.cli import main

pytestmark = pytest.mark.usefixtures("models_once")

MODEL = Path(__file__).resolve().parents[1] / "golden" / "segmenter"
SEVEN = "dog,grass,sky,sheep,boat,a red car,water"


@pytest.fixture
def image(tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(coarse).resize((60, 40)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def classify(*arguments, **keywords):
    return CliRunner().invoke(
        main, ["classify", *map(str, arguments), "--model", str(MODEL)], **keywords
    )


def test_the_five_best_classes_are_named_best_first(image):
    result = classify(image, "--classes", SEVEN)
    assert result.exit_code == 0, result.output
    found = result.stdout.removeprefix(f"{image}: ").strip().split(", ")
    shares = [float(entry.rsplit(" ", 1)[1].removesuffix("%")) for entry in found]
    assert len(found) == 5
    assert shares == sorted(shares, reverse=True)


def test_json_has_all_probabilities_and_stands_alone(image):
    result = classify(image, "-", "--classes", SEVEN, "--json", input=image.read_bytes())
    found = json.loads(result.stdout)
    assert [record["image"] for record in found] == [str(image), "-"]
    assert set(found[0]["probabilities"]) == set(SEVEN.split(","))
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert found[0]["probabilities"] == found[1]["probabilities"]


def test_it_is_what_the_segmenter_says(image):
    from tf_groupvit.segmentation.segmenter import Segmenter

    options = (
        "--classes",
        SEVEN,
        "--templates",
        "{}",
        "--templates",
        "my {}",
        "--size",
        64,
        "--normalize",
        "imagenet",
    )
    found = json.loads(classify(image, *options, "--json").stdout)[0]["probabilities"]
    segmenter = Segmenter.from_pretrained(
        MODEL, SEVEN, templates=["{}", "my {}"], size=64, normalize="imagenet"
    )
    expected = dict(zip(SEVEN.split(","), segmenter.classify(image).tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_bad_image_is_reported_and_the_rest_are_done(image):
    bad = image.with_name("bad.png")
    bad.write_text("a text")
    result = classify(bad, image, "--classes", "dog,sky", "--json")
    assert result.exit_code == 2
    first, second = json.loads(result.stdout)
    assert "error" in first
    assert "probabilities" in second
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ([], "--classes"),
        (["--classes", "dog,"], "empty name"),
        (["--classes", "dog,dog"], "twice"),
        (["--classes", "dog", "--templates", "x"], "subset"),
        (["--classes", "dog", "--size", "31"], "multiple"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(image, options, word):
    result = classify(image, *options)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Loading")]
    assert len(lines) == 1
    assert word in lines[0]
