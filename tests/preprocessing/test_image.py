"""ImageProcessor: pixel values equal to transformers', every spelling of its file, and nonsense refused by name."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from tf_groupvit.errors import ConfigError, ImageError
from tf_groupvit.preprocessing.image import ImageProcessor, centre_crop, resized_sides
from tf_groupvit.preprocessing.image_statistics import STATISTICS, normalise, statistics

CASES = json.loads((pytest.importorskip("pathlib").Path(__file__).parents[1] / "golden/image/cases.json").read_text())


@pytest.fixture(scope="module")
def images(golden):
    with np.load(golden / "image" / "images.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def pixel_values(golden):
    with np.load(golden / "image" / "pixel_values.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_pixel_values_are_those_of_transformers(case, images, pixel_values, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(case["file"]))
    processor = ImageProcessor.from_pretrained(tmp_path)
    B, C, H, W = (values := processor(images[case["image"]])["pixel_values"]).shape
    assert (B, C, H, W) == (1, *pixel_values[case["key"]].shape)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[0], pixel_values[case["key"]])
