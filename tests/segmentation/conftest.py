"""The small complete checkpoint, loaded once, and what the published rules, rendered in PyTorch,
make of it.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FOLDER = GOLDEN / "segmenter"
CLASSES = ["dog", "grass", "sky", "sheep", "boat", "a red car", "water"]


@cache
def loaded():
    from tf_groupvit.segmentation.segmenter import Segmenter

    return Segmenter.from_pretrained(FOLDER, CLASSES, normalize="imagenet")


@pytest.fixture
def folder() -> Path:
    return FOLDER


@pytest.fixture
def segmenter():
    """Seven classes, no background, mode whole."""
    return loaded()


@pytest.fixture
def make():
    """make(**choices): a segmenter of the same model, with the same classes unless others are
    given.
    """
    from tf_groupvit.segmentation.segmenter import Segmenter

    base = loaded()

    def build(classes=None, **choices):
        choices.setdefault("normalize", "imagenet")
        chosen = base.classes if classes is None else classes
        return Segmenter(base.model, base.tokenizer, base.processor, chosen, **choices)

    return build


@pytest.fixture
def rendered():
    """Class embeddings, a picture (75, 130, 3), and its labels as PyTorch found them."""
    return np.load(GOLDEN / "protocol" / "segmenter.npz")


@pytest.fixture
def picture(rendered):
    return rendered["picture"]
