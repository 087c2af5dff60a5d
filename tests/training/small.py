"""A model of a few thousand weights and batches for it: what the tests of fine-tuning and of
replicas share.
"""

from typing import Any

import keras
import numpy as np

from tf_groupvit.config import GroupViTConfig, GroupViTTextConfig, GroupViTVisionConfig
from tf_groupvit.models.groupvit import TFGroupViTModel

END, WORDS = 11, 5
OF_ALL = ("word_ids", "word_mask")  # of a batch, what has no row for each picture


def config() -> GroupViTConfig:
    text: dict[str, Any] = dict(
        vocab_size=12, hidden_size=8, intermediate_size=16, num_hidden_layers=1
    )
    text |= dict(num_attention_heads=2, max_position_embeddings=6, eos_token_id=END)
    vision: dict[str, Any] = dict(
        hidden_size=8, intermediate_size=16, depths=(1, 1), num_hidden_layers=2
    )
    vision |= dict(
        num_group_tokens=(4, 3),
        num_output_groups=(4, 3),
        num_attention_heads=2,
        image_size=8,
        patch_size=2,
    )
    joint = dict(projection_dim=8, projection_intermediate_dim=16)
    return GroupViTConfig(GroupViTTextConfig(**text), GroupViTVisionConfig(**vision), **joint)


def one_grouping() -> GroupViTConfig:
    """Layers, groups, nothing after them: of the parts that training draws noise for, one each."""
    once = dict(depths=(2, 0), num_group_tokens=(4, 0), num_output_groups=(4, 4))
    return config().replace(vision_config=config().vision_config.replace(**once))


def without_groups() -> GroupViTConfig:
    """No patch is given to a group, and nothing is left to train of groups."""
    none = config().vision_config.replace(num_group_tokens=(0, 0), num_output_groups=(0, 0))
    return config().replace(vision_config=none)


def fresh(given: GroupViTConfig | None = None) -> TFGroupViTModel:
    """A model as training begins with it, its weights spread enough for eight numbers to mean
    something.
    """
    keras.utils.set_random_seed(0)
    model, draw = TFGroupViTModel(given or config()), np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) >= 2:
            variable.assign(draw.normal(0, 0.4, variable.shape))
    return model


def batch(seed: int, rows: int = 8, labels: int = 2) -> dict[str, np.ndarray]:
    """Pictures whose mean tells the caption's first token, prompts of that token, and a vocabulary
    of five tokens.
    """
    draw = np.random.default_rng(seed)
    token = draw.integers(1, END, rows)
    ids = draw.integers(1, END, (rows, 6))
    ids[:, 0], ids[:, 4:] = token, END
    prompts = np.full((rows, labels, 6), END)
    prompts[..., 0] = token[:, None]
    prompts[:, 1:, 1] = 3
    pixels = draw.normal(size=(rows, 3, 8, 8)) + (token[:, None, None, None] - 5) / 2
    found = {
        "pixel_values": pixels.astype("float32"),
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
    }
    found |= {"label_ids": prompts, "label_mask": np.ones_like(prompts)}
    words = np.full((WORDS, 6), END)
    words[:, 0] = np.arange(1, WORDS + 1)
    found |= {
        "word_ids": words,
        "word_mask": np.ones_like(words),
        "present": token[:, None] == words[:, 0],
    }
    return {
        name: value if name == "pixel_values" else value.astype("int32")
        for name, value in found.items()
    }


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        variable.path: keras.ops.convert_to_numpy(variable).copy() for variable in model.weights
    }


def fit(training, data, steps=6, rate=0.02):
    """The losses of a few steps on one batch."""
    training.compile(
        optimizer=keras.optimizers.Adam(rate), run_eagerly=True
    )  # tracing takes longer than the steps
    return [float(training.train_on_batch(data, return_dict=True)["loss"]) for _ in range(steps)]


def moved(model, before):
    after = weights_of(model)
    return {path for path, value in before.items() if not np.array_equal(after[path], value)}
