"""Exports of a tiny segmenter, and processes that run them, for all tests of exports.

The model is small and its weights are random; its vocabulary is the golden one. Exporting takes
seconds, so each kind of export is made once a session.
"""

import atexit
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tf_groupvit.config import GroupViTConfig, GroupViTTextConfig, GroupViTVisionConfig
from tf_groupvit.export import replay
from tf_groupvit.export.saving import export_saved_model
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.segmentation.segmenter import Segmenter

VOCABULARY = Path(__file__).parent / "golden" / "tokenizer" / "vocabularies" / "listed"
TEXT: dict[str, Any] = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=32,
)
VISION: dict[str, Any] = dict(
    hidden_size=24, intermediate_size=40, depths=[1, 1, 1], num_hidden_layers=3, num_group_tokens=[8, 4, 0],
    num_output_groups=[8, 4, 4], num_attention_heads=3, image_size=32, patch_size=8, assign_mlp_ratio=[0.5, 4],
)  # fmt: skip
DEFAULTS: dict[str, Any] = {"classes": "cat, dog|hound, grass", "background": 0.4}


@cache
def tiny_parts() -> tuple[TFGroupViTModel, Tokenizer]:
    """A model whose weights are spread enough for its masks to show more than one class."""
    tokenizer = Tokenizer.from_pretrained(VOCABULARY, max_length=40)
    ends = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    text = GroupViTTextConfig(vocab_size=tokenizer.vocab_size, **TEXT, **ends)
    sizes = {"projection_dim": 8, "projection_intermediate_dim": 20}
    config = GroupViTConfig.from_text_vision_configs(text, GroupViTVisionConfig(**VISION), **sizes)
    model, random = TFGroupViTModel(config), np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) > 1:
            # Queries and keys are small, so that a token looks at all others and texts differ.
            quiet = any(
                part in variable.path for part in ("q_proj", "k_proj", "position_embedding")
            )
            variable.assign(random.normal(0, 0.15 if quiet else 0.5, variable.shape))
    ids = tokenizer([f"{'abcdefgh'[i % 8] * (i % 5 + 1)} {i * i}" for i in range(40)])["input_ids"]
    _center(model.text_projection, model.text_model(ids)["pooler_output"])
    pixels = (
        np.stack([drawn(32, 32, seed) for seed in range(12)]).transpose(0, 3, 1, 2) / 64.0 - 2.0
    )
    _center(
        model.visual_projection, model.vision_model(pixels.astype("float32"))["last_hidden_state"]
    )
    return model, tokenizer


def _center(projection: Any, features: Any) -> None:
    """Take the mean out, as training would: else all embeddings point one way, and ties decide."""
    found = np.asarray(projection(features, training=False))
    projection.outer.bias.assign_sub(found.reshape(-1, found.shape[-1]).mean(axis=0))


def tiny_segmenter(**choices: Any) -> Segmenter:
    return Segmenter(*tiny_parts(), ImageProcessor(), **{**DEFAULTS, **choices})


@dataclass(frozen=True)
class Export:
    segmenter: Segmenter
    path: Path  # of the version


@cache
def export_of(**choices: Any) -> Export:
    base = Path(tempfile.mkdtemp(prefix="tf_groupvit_export_"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    segmenter = tiny_segmenter(**choices)
    return Export(segmenter, export_saved_model(segmenter, base))


# Reads a folder's path and requests from standard input, answers on standard output, until there
# are no more.
LOOP = """
import importlib.util, os, pickle, sys
answers = os.fdopen(os.dup(1), "wb"); os.dup2(2, 1)
spec = importlib.util.spec_from_file_location("replay", sys.argv[1])
replay = importlib.util.module_from_spec(spec); spec.loader.exec_module(replay)
sys.modules["tf_groupvit"] = None
model = replay.Model(sys.argv[2])
while True:
    try: request = pickle.load(sys.stdin.buffer)
    except EOFError: break
    pickle.dump(model.answer(*request), answers); answers.flush()
"""


class SessionProcess:
    """An export in a ``tf.compat.v1`` Session of a process that cannot import this package."""

    def __init__(self, path: Path, python: str = sys.executable) -> None:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [python, "-I", "-c", LOOP, str(replay.__file__), str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip

    def answer(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        pickle.dump((signature, inputs), self.process.stdin)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def close(self) -> None:
        self.process.communicate()


def strings(*values: str | bytes) -> np.ndarray:
    return np.array(
        [value.encode() if isinstance(value, str) else value for value in values], object
    )


def drawn(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pixels (H, W, 3): blocks of color with hard edges."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST))


def as_file(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def labels_of(mask: bytes) -> np.ndarray:
    assert (mask[24], mask[25]) == (
        8,
        0,
    ), "one byte a pixel, gray (PNG 11.2.2): numbers for every reader"
    return np.asarray(Image.open(io.BytesIO(mask)))
