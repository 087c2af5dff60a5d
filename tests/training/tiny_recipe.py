"""A recipe that trains in seconds, and a model and batch of its kind: what the tests of training
share.
"""

import numpy as np

from tf_groupvit.config import GroupViTConfig
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.training.recipe import Recipe, recipe_of

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "depths": [2, 0],
    "num_group_tokens": [4, 0],
    "num_output_groups": [4, 4],
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
JOINT = {"projection_dim": 16, "projection_intermediate_dim": 32}
EVERY_LOSS = {"caption": 0.5, "multi_label": 1.0, "vocabulary": 1.0, "group_word": 1.0}
V, L, T = 7, 3, 6


def tiny_recipe(**changes) -> Recipe:
    """60 steps of 8 scenes, a state every 20 steps."""
    content = {
        "name": "tiny",
        "steps": 60,
        "batch_size": 8,
        "save_every": 20,
        "validate_every": 60,
        "validation_scenes": 4,
        "losses": {"caption": 0.3, "vocabulary": 1.0, "group_word": 1.0},
        "model": {"vision": VISION, "text": TEXT, "joint": JOINT},
        "optimizer": {"rate": 3e-3, "warm_up": 5},
        "vocabulary": {"captions": 200, "merges": 200, "text_length": 40},
        **changes,
    }
    return recipe_of(content)


def tiny_model(dtype: str | None = None) -> TFGroupViTModel:
    """The recipe's model for a vocabulary of 50 tokens whose end token is 49."""
    text = {**TEXT, "vocab_size": 50, "eos_token_id": 49, "max_position_embeddings": 8}
    return TFGroupViTModel(
        GroupViTConfig.from_dict({"text_config": text, "vision_config": VISION, **JOINT}),
        dtype=dtype,
    )


def some_batch(B: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch with everything that any loss reads."""
    rng = np.random.default_rng(seed)

    def ids(*shape: int) -> np.ndarray:
        drawn = rng.integers(1, 48, shape, dtype=np.int32)
        drawn[..., -1] = 49
        return drawn

    return {
        "pixel_values": rng.normal(size=(B, 3, 32, 32)).astype("float32"),
        "input_ids": ids(B, T),
        "attention_mask": np.ones((B, T), "int32"),
        "label_ids": ids(B, L, T - 1),
        "label_mask": np.ones((B, L, T - 1), "int32"),
        "word_ids": ids(V, T - 2),
        "word_mask": np.ones((V, T - 2), "int32"),
        "present": (rng.random((B, V)) < 0.4).astype("float32"),
    }
