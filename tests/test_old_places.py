"""Modules that code of 0.1 imports are where they were for one release, with a warning."""

import importlib
import sys

import pytest

PLACES = {
    "checkpoints.writing": "checkpoints.safetensors_file",
    "evaluation.scenes": "scenes.scene",
    "training.measuring": "training.validation",
    "training.runs": "training.trainer",
    "training.step": "training.contrastive_model",
}


@pytest.mark.parametrize(("old", "new"), PLACES.items())
def test_an_old_place_works_with_a_warning_and_gives_what_is_at_the_new_one(old, new):
    sys.modules.pop(f"tf_groupvit.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now tf_groupvit.{new}"):
        module = importlib.import_module(f"tf_groupvit.{old}")
    there = importlib.import_module(f"tf_groupvit.{new}")
    for name in module.__all__:
        assert getattr(module, name) is getattr(there, name)
