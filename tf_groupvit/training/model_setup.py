"""A recipe's model and tokenizer before any step: from a checkpoint, or from sizes with new
weights.

A new model starts as published: dense kernels N(0, 0.02) or scaled by width and depth as CLIP's
are, biases 0, norms 1 and 0, position embeddings truncated N(0, 0.02), group tokens N(0, 0.02), or
0 where a projector makes them from those of the stage before. transformers leaves position
embeddings and group tokens at 0, where all groups are alike and stay so. Those choices are the
layers' own; ``spread_groups`` is what departs from them.
"""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from tf_groupvit.config import GroupViTConfig
from tf_groupvit.errors import InputError
from tf_groupvit.hub import demo_checkpoint, resolve
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.optimizer import (
    adamw,
    rematerialise,
    set_drop_path,
    train_lora,
    train_only,
    warm_up_then_cosine,
)
from tf_groupvit.training.recipe import DEMO, Recipe
from tf_groupvit.training.texts import train_vocabulary


def begin(
    recipe: Recipe, folder: Path, seed: int, captions: Iterable[str], goes_on: bool = False
) -> tuple[Tokenizer, TrainingModel]:
    """Tokenizer and model, of which learns what the recipe says; ``captions`` are read where there
    is no vocabulary.

    A run that goes on has learned one already, which is in its ``folder``.

    Raises:
        CheckpointError, ConfigError, HubError: the checkpoint or the tokenizer cannot be read.
        InputError: the tokenizer is not the model's, or the model lacks what is to be trained.
    """
    place = checkpoint_of(recipe)
    if place is None:
        tokenizer = _tokenizer(recipe, folder, captions, goes_on)
        model = TFGroupViTModel(config_of(recipe, tokenizer), dtype=recipe.precision)
        spread_groups(
            model, recipe.initialisation.group_token_std, recipe.initialisation.assign_gain, seed
        )
    else:
        tokenizer = Tokenizer.from_pretrained(
            recipe.start.tokenizer or (place if place.is_dir() else place.parent)
        )
        model = TFGroupViTModel.from_pretrained(place, dtype=recipe.precision)
        _check_tokenizer(tokenizer, model.config)
    _choose_what_learns(model, recipe)
    return tokenizer, TrainingModel(model, recipe.losses)


def checkpoint_of(recipe: Recipe) -> Path | None:
    """Where the checkpoint is that training begins at; None for sizes."""
    name = recipe.start.checkpoint
    if not name:
        return None
    return demo_checkpoint() if name == DEMO else resolve(name)


def _tokenizer(recipe: Recipe, folder: Path, captions: Iterable[str], goes_on: bool) -> Tokenizer:
    if recipe.start.tokenizer or goes_on:
        return Tokenizer.from_pretrained(recipe.start.tokenizer or folder)
    wanted = recipe.vocabulary
    prompts = (f"a photo of a {word}." for word in recipe.words)
    return train_vocabulary(folder, [*captions, *prompts], wanted.merges, wanted.max_length)


def config_of(recipe: Recipe, tokenizer: Tokenizer) -> GroupViTConfig:
    """The recipe's model, for the tokens that there are."""
    sections = {name: dict(values) for name, values in recipe.model.items()}
    text = {
        "vocab_size": tokenizer.vocab_size,
        "max_position_embeddings": tokenizer.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **sections.pop("text", {}),
    }
    vision, joint = sections.pop("vision", {}), sections.pop("joint", {})
    return GroupViTConfig.from_dict({"text_config": text, "vision_config": vision, **joint})


def _check_tokenizer(tokenizer: Tokenizer, config: GroupViTConfig) -> None:
    """Ids beyond the model's embeddings would be read as zeros, on some devices, and learn nothing."""
    there = config.text_config.vocab_size
    if tokenizer.vocab_size > there:
        raise InputError(
            f"The tokenizer has {tokenizer.vocab_size:,} tokens, the model {there:,}: give the"
            " model's own tokenizer."
        )


def _choose_what_learns(model: TFGroupViTModel, recipe: Recipe) -> None:
    if recipe.trains == "lora":
        train_lora(model, recipe.lora_rank)
    elif recipe.trains != "all":
        train_only(model, recipe.trains)
    if recipe.drop_path:
        set_drop_path(model, recipe.drop_path)
    rematerialise(model, recipe.rematerialise)


def compile_for(training: TrainingModel, recipe: Recipe) -> keras.Model:
    """The optimizer of a recipe whose steps are known."""
    chosen = recipe.optimizer
    warm_up = min(chosen.warm_up, recipe.steps // 4)  # of a run cut short to look at
    rate = warm_up_then_cosine(chosen.rate, warm_up, recipe.steps, chosen.start, chosen.floor)
    training.compile(adamw(training, rate, chosen.weight_decay, chosen.clip, chosen.accumulation))
    training.optimizer.build(
        training.trainable_variables
    )  # a state can be put back before the first step
    return training


def spread_groups(model: TFGroupViTModel, token_std: float, assign_gain: float, seed: int) -> None:
    """Group tokens from N(0, token_std), query and key kernels of each assignment from N(0,
    assign_gain / sqrt(C)).

    As published, assignment logits start with a spread near 0.1, against Gumbel noise whose spread
    is 1.3: patches are dealt to groups at random, groups all see the same picture, and in a small
    and short training nothing tells them apart. With 1.0 and 1.5 the logits start wider than the
    noise. Stages without group tokens of their own are left.
    """
    rng = np.random.default_rng(seed)
    for stage in model.vision_model.stages:
        if not stage.tokens:
            continue
        if stage.group_projector is None:
            _draw(stage.group_token, token_std, rng)
        assign = stage.downsample.assign
        for layer in (assign.q_proj, assign.k_proj):
            _draw(layer.kernel, assign_gain / np.sqrt(layer.kernel.shape[0]), rng)


def _draw(variable: keras.Variable, std: float, rng: np.random.Generator) -> None:
    variable.assign(rng.normal(0, std, variable.shape).astype("float32"))
