"""A seed in, a checkpoint folder of the published size out, tokenizer included: what measurements
run on, made once.

Weights are random, so its masks mean nothing; they are drawn so that groups are used and classes
win in turn, since a collapsed model would hide differences between engines.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench" / "full_size_1"  # another number when what is made changes
DEMO = ROOT / "tf_groupvit" / "assets" / "demo"


def checkpoint_at(given: Path | None = None) -> Path:
    """The folder that was given, or the one of the published size, which is made if it is not
    there.
    """
    if given is None and not CACHE.exists():
        print("Making the full-size checkpoint, once ...", file=sys.stderr)
        make_checkpoint(CACHE)
    return given or CACHE


def make_checkpoint(folder: Path) -> None:
    """About half a minute."""
    from tf_groupvit import GroupViTConfig, TFGroupViTModel

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        model = TFGroupViTModel(GroupViTConfig())
        draw_weights(model, np.random.default_rng(0))
        centre_embeddings(model, np.random.default_rng(1))
        model.save_pretrained(beside)
        write_tokenizer(Path(beside), model.config.text_config.vocab_size)
        write_processor(Path(beside), model.config.vision_config.image_height_width[0])
        Path(beside).rename(folder)
        Path(beside).mkdir()  # what the context will remove


def draw_weights(model: Any, random: np.random.Generator) -> None:
    for variable in model.weights:
        name, shape = variable.path, tuple(variable.shape)
        noise = random.normal(size=shape)
        if name.endswith("logit_scale"):
            continue
        if "moving_variance" in name or "running_var" in name:
            variable.assign(0.5 + random.random(shape))
        elif "group_token" in name or "embed" in name:
            variable.assign(noise)
        elif len(shape) > 1:
            sharp = 3 if "assign.q_proj" in name or "assign.k_proj" in name else 1.2
            variable.assign(noise * sharp / np.prod(shape[:-1]) ** 0.5)
        else:
            variable.assign(np.asarray(variable) + 0.1 * noise)


def centre_embeddings(model: Any, random: np.random.Generator) -> None:
    """Fit the projections' batch norms and last biases to features, as training would: embeddings
    of different inputs then point in different directions.
    """
    text, vision = model.config.text_config, model.config.vision_config
    ids = random.integers(1000, text.vocab_size - 10, (64, 8))
    ids[:, -1] = text.eos_token_id
    pixels = random.normal(size=(4, 3, vision.image_size, vision.image_size)).astype("float32")
    groups = np.asarray(model.vision_model(pixels).last_hidden_state)
    centre(model.text_projection, np.asarray(model.text_model(ids.astype("int32")).pooler_output))
    centre(model.visual_projection, groups.reshape(-1, groups.shape[-1]))


def centre(projection: Any, features: np.ndarray) -> None:
    hidden = np.asarray(projection.inner(features))
    projection.norm.moving_mean.assign(hidden.mean(0))
    projection.norm.moving_variance.assign(hidden.var(0))
    outer = projection.outer
    outer.bias.assign(
        np.asarray(outer.bias) - np.asarray(projection(features, training=False)).mean(0)
    )


def write_tokenizer(folder: Path, size: int) -> None:
    """The demo's vocabulary and merges, filled up to CLIP's size, the special tokens at its end."""
    special = ["<|startoftext|>", "<|endoftext|>"]
    known = [
        word
        for word in json.loads((DEMO / "vocab.json").read_text(encoding="utf-8"))
        if word not in special
    ]
    filling = [f"<unused {i}>" for i in range(size - len(known) - len(special))]
    vocabulary = {word: number for number, word in enumerate([*known, *filling, *special])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_bytes((DEMO / "merges.txt").read_bytes())
    start, end = special
    settings = dict(
        bos_token=start, eos_token=end, unk_token=end, pad_token=end, model_max_length=77
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "tokenizer_class": "CLIPTokenizer"})
    )


def write_processor(folder: Path, side: int) -> None:
    settings = json.loads((DEMO / "preprocessor_config.json").read_text())
    square = {"height": side, "width": side}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**settings, "size": square, "crop_size": square})
    )
