"""Batches of drawn scenes."""

import re

import numpy as np

from tf_groupvit.scenes.scene import CLASSES, scene
from tf_groupvit.training.scene_batches import SceneBatches
from tf_groupvit.training.texts import train_vocabulary


def test_batches_are_the_same_wherever_one_begins(tmp_path):
    tokenizer = train_vocabulary(tmp_path, ["an apple on the grass."] * 2, merges=10, max_length=96)
    data = SceneBatches(
        tokenizer, ["apple", "grass"], 32, 4, ((0, 0, 0), (1, 1, 1)), seed=5, text_length=96
    )
    third = next(iter(data.batches(2)))
    again = list(data.batches().take(3))[2]
    assert all(np.array_equal(third[name], again[name]) for name in third)
    assert set(third) == {
        "pixel_values",
        "input_ids",
        "attention_mask",
        "word_ids",
        "word_mask",
        "present",
    }
    assert third["pixel_values"].shape == (4, 3, 32, 32)


def test_words_come_from_captions_and_not_from_masks(tmp_path):
    tokenizer = train_vocabulary(tmp_path, ["a"], merges=0, max_length=96)
    data = SceneBatches(tokenizer, CLASSES, 64, 8, ((0, 0, 0), (1, 1, 1)), seed=5, text_length=96)
    batch = data.batch(1)
    captions = [scene(5, 8 + i, 64, "training").caption for i in range(8)]
    assert batch["present"].tolist() == [
        [word in re.findall(r"\w+", text) for word in CLASSES] for text in captions
    ]
