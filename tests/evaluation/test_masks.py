"""Mask files of every kind give the same numbers; what is no mask is refused by name."""

import numpy as np
import pytest
from PIL import Image
from trees import write_mask

from tf_groupvit.errors import DatasetError
from tf_groupvit.evaluation.benchmarks import plain, zero_ignored
from tf_groupvit.evaluation.masks import read_labels, read_numbers

NUMBERS = [[0, 1, 2], [3, 255, 20]]


@pytest.mark.parametrize("kind", ["gray", "palette", "sixteen"])
def test_a_mask_is_read_as_numbers_whatever_its_kind(tmp_path, kind):
    write_mask(tmp_path / "mask.png", NUMBERS, kind)
    assert read_numbers(tmp_path / "mask.png").tolist() == NUMBERS
    labels = read_labels(tmp_path / "mask.png", plain(21))
    assert labels.dtype == np.uint8
    assert labels.tolist() == NUMBERS


def test_zero_can_be_no_class(tmp_path):
    write_mask(tmp_path / "mask.png", NUMBERS)
    assert read_labels(tmp_path / "mask.png", zero_ignored(20)).tolist() == [
        [255, 0, 1],
        [2, 255, 19],
    ]


def test_a_mask_of_one_bit_holds_zero_and_one(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "mask.png")
    assert read_numbers(tmp_path / "mask.png").tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("kind", "number"), [("gray", 21), ("palette", 254), ("sixteen", 21), ("sixteen", 65535)]
)
def test_a_label_beyond_the_class_list_is_named_with_file_and_expectation(tmp_path, kind, number):
    write_mask(tmp_path / "mask.png", [[0, number]], kind)
    with pytest.raises(DatasetError, match=rf"mask\.png: label {number} .*expected 0\.\.20"):
        read_labels(tmp_path / "mask.png", plain(21))


def test_colors_in_place_of_numbers_are_refused(tmp_path):
    Image.new("RGB", (2, 2), (128, 0, 0)).save(tmp_path / "mask.png")
    with pytest.raises(DatasetError, match=r"mask\.png: expected one class number a pixel.*RGB"):
        read_numbers(tmp_path / "mask.png")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_mask_is_named(tmp_path, content):
    (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"mask\.png"):
        read_numbers(tmp_path / "mask.png")


def test_a_mask_cut_short_is_named(tmp_path):
    rng = np.random.default_rng(0)
    write_mask(tmp_path / "mask.png", rng.integers(0, 21, (64, 64)).tolist())
    whole = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "mask.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"mask\.png.*damaged or cut short"):
        read_numbers(tmp_path / "mask.png")
