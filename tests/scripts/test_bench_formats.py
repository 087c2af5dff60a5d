"""What `scripts/bench formats` measures of a file's answers, and how its table says it."""

from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts/benchmarks"


@pytest.fixture
def formats(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import formats

    return formats


def test_answers_are_compared_pixel_by_pixel_and_patch_by_patch(formats):
    expected = {"labels": np.array([[[0, 0], [1, 1]]]), "owners": np.array([[0, 1, 2, 3]])}
    found = {"labels": np.array([[[0, 0], [1, 0]]]), "owners": np.array([[0, 1, 3, 2]])}
    told = formats.quality(found, expected, expected["labels"])
    assert (told["labels"], told["groups"]) == (0.75, 0.5)
    # of the two classes that occur: 2 of 3 pixels, and 1 of 2
    assert told["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_line_has_a_cell_for_each_column(formats):
    row = {"bytes": 1_200_000, "rate": 50.0, "rates": [40.0, 50.0, 61.0], "cpu_ms": 20.5}
    told = {"labels": 0.995, "groups": 1.0, "miou": 0.8}
    line = formats.line("ONNX", {**row, "quality": told})
    assert line == "| ONNX | 1.2 | 50.0 (40.0 to 61.0) | 20.5 | 100.00% | 99.50% | 0.8000 |"
    assert line.count("|") == len(formats.COLUMNS) + 1


def test_the_size_of_an_openvino_file_is_that_of_both_parts(formats, tmp_path):
    folder = tmp_path / "vision" / "1"
    folder.mkdir(parents=True)
    (folder / "vision.xml").write_bytes(b"12")
    (folder / "vision.bin").write_bytes(b"345")
    (tmp_path / "settings.json").write_bytes(b"6789")
    assert formats.size_of(tmp_path) == 5
