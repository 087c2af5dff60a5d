"""The golden checkpoints of the models: three small ones, unlike each other, with what PyTorch
computes from them.
"""

import json
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_groupvit.config import GroupViTConfig
from tf_groupvit.models.groupvit import TFGroupViTModel

MODELS = Path(__file__).resolve().parents[1] / "golden" / "models"
NAMES = tuple(sorted(folder.name for folder in MODELS.iterdir()))


class Case:
    """One golden checkpoint: its folder, config, inputs, expected outputs and the model loaded from
    it.
    """

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, MODELS / name
        self.expected = dict(np.load(self.folder / "outputs.npz"))
        self.config = GroupViTConfig.from_dict(
            json.loads((self.folder / "config.json").read_text())
        )
        self.model = TFGroupViTModel.from_pretrained(self.folder)
        self.ids = self.expected["input_ids"].astype("int32")
        self.mask = self.expected["attention_mask"].astype("int32")
        self.pixels = self.expected["pixel_values"]
        self.inputs = {
            "input_ids": self.ids,
            "attention_mask": self.mask,
            "pixel_values": self.pixels,
        }
        self.pairs = {key: value[:2] for key, value in self.inputs.items()}


@cache
def case_of(name: str) -> Case:
    return Case(name)


@pytest.fixture(params=NAMES)
def case(request) -> Case:
    return case_of(request.param)


@pytest.fixture
def three_stages() -> Case:
    return case_of("three_stages")


@pytest.fixture
def close():
    """close(actual, expected): within 1e-5 of the largest value, what float32 sums of products
    allow.
    """

    def check(actual, expected: np.ndarray, relative: float = 1e-5) -> None:
        actual = keras.ops.convert_to_numpy(actual)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * np.abs(expected).max())

    return check
