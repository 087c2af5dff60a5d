"""Models of a few hundred weights, seeded, and what the tests of models do with numbers on
whichever backend.
"""

from functools import cache
from typing import Any

import keras
import numpy as np

from tf_groupvit.config import GroupViTConfig, GroupViTTextConfig, GroupViTVisionConfig
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.text import TFGroupViTTextModel
from tf_groupvit.models.vision import TFGroupViTVisionModel
from tf_groupvit.models.weights import weights_will_be_loaded

END = 9


def text_config(**changes: Any) -> GroupViTTextConfig:
    fields: dict[str, Any] = dict(
        vocab_size=12, hidden_size=8, intermediate_size=12, num_hidden_layers=1
    )
    fields |= dict(num_attention_heads=2, max_position_embeddings=7, eos_token_id=END)
    return GroupViTTextConfig(**fields | changes)


def vision_config(**changes: Any) -> GroupViTVisionConfig:
    fields: dict[str, Any] = dict(
        hidden_size=8, intermediate_size=12, depths=(1, 1), num_hidden_layers=2
    )
    fields |= dict(num_group_tokens=(3, 2), num_output_groups=(3, 2), num_attention_heads=2)
    return GroupViTVisionConfig(**fields | dict(image_size=8, patch_size=4) | changes)


def joint_config(text: Any = None, vision: Any = None, **changes: Any) -> GroupViTConfig:
    fields = dict(projection_dim=6, projection_intermediate_dim=10)
    return GroupViTConfig(text or text_config(), vision or vision_config(), **{**fields, **changes})


CLASSES: dict[str, Any] = {
    "joint": (TFGroupViTModel, joint_config),
    "text": (TFGroupViTTextModel, text_config),
    "vision": (TFGroupViTVisionModel, vision_config),
}


def make(kind: str = "joint", config: Any = None, dtype: Any = None) -> Any:
    """A model whose weights are all random, biases and statistics too, so that none can be lost
    unnoticed.
    """
    model_class, default = CLASSES[kind]
    with weights_will_be_loaded():
        model = model_class(config or default(), dtype=dtype)
    randomise(model)
    return model


def randomise(model: Any, seed: int = 0) -> None:
    draw = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(
            draw.uniform(0.2, 1.0, variable.shape) * draw.choice([-1, 1], variable.shape)
        )
        if "moving_variance" in variable.path or variable.path.endswith("logit_scale"):
            variable.assign(draw.uniform(0.5, 1.0, variable.shape))


@cache
def tiny(kind: str = "joint", dtype: str | None = None) -> Any:
    """One such model for all tests that only look at it."""
    return make(kind, dtype=dtype)


def some_ids(texts: int = 3, length: int = 5, seed: int = 0) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(1, END, (texts, length)).astype("int32")
    ids[np.arange(texts), np.arange(texts) % length] = END
    ids[:, -1] = END
    return ids


def some_pixels(images: int = 2, height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(images, 3, height, width)).astype("float32")


def inputs_of(kind: str, rows: int = 2) -> dict[str, np.ndarray]:
    inputs: dict[str, np.ndarray] = {}
    if kind != "vision":
        inputs |= {"input_ids": some_ids(rows), "attention_mask": np.ones((rows, 5), "int32")}
    if kind != "text":
        inputs["pixel_values"] = some_pixels(rows)
    return inputs


def numbers(value: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(value)


def equal(one: Any, other: Any, relative: float = 1e-5, where: str = "") -> None:
    """The same tree of tensors, each within ``relative`` of its largest value."""
    if isinstance(one, dict | tuple | list):
        assert len(one) == len(other), where
        keys = one.keys() if isinstance(one, dict) else range(len(one))
        for key in keys:
            equal(one[key], other[key], relative, f"{where}/{key}")
        return
    one, other = numbers(one).astype("float64"), numbers(other).astype("float64")
    assert one.shape == other.shape, where
    np.testing.assert_allclose(
        one, other, rtol=0, atol=relative * max(np.abs(other).max(initial=0), 1e-9), err_msg=where
    )


EVERYTHING = {"output_attentions": True, "output_hidden_states": True}
