"""A recipe, a seed and a folder in; a checkpoint in that folder out. A run that was stopped goes on where it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tf_groupvit.config import GroupViTConfig
from tf_groupvit.evaluation.scenes import scenes
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.preprocessing.image_statistics import STATISTICS
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.segmentation.writing import write_whole
from tf_groupvit.training.callbacks import History, Progress, SaveState, StopOnNaN
from tf_groupvit.training.card import write_card
from tf_groupvit.training.initialisation import spread_groups
from tf_groupvit.training.measuring import SceneScores
from tf_groupvit.training.optimizer import adamw, warm_up_then_cosine
from tf_groupvit.training.recipe import Recipe
from tf_groupvit.training.scene_batches import DRAWN_AT, SceneBatches
from tf_groupvit.training.state import restore_state
from tf_groupvit.training.step import TrainingModel
from tf_groupvit.training.vocabulary import train_vocabulary

STATE, HISTORY = "training/state.safetensors", "training/history.jsonl"


@dataclass(frozen=True)
class Run:
    """Where a run stands, built from its recipe and seed, before any step."""

    recipe: Recipe
    seed: int
    folder: Path
    tokenizer: Tokenizer
    processor: ImageProcessor
    training: TrainingModel
    data: SceneBatches

    @property
    def about(self) -> dict[str, Any]:
        """What a state must agree with, to be gone on from."""
        return {"seed": self.seed, **self.recipe.to_dict()}


def train(recipe: Recipe, folder: Path, seed: int = 0, bar: bool = False) -> list[dict[str, Any]]:
    """Train as the recipe says and write the checkpoint to ``folder``; returns the history, a dict a round.

    A folder with a state of the same recipe and seed is gone on from, with the same losses as if it had never stopped.

    Raises:
        TrainingError: the loss is no number any more.
        CheckpointError: the folder's state is of another recipe, or it cannot be written.
    """
    run = build(recipe, folder, seed)
    state, start = folder / STATE, 0
    if state.exists():
        start = restore_state(state, run.training, run.about)
    scores = SceneScores(run.training.model, run.tokenizer, run.data.to_pixels, recipe.validation_scenes)
    history = History(folder / HISTORY, recipe.batch_size, scores.measure, recipe.validate_every, start)
    watchers = [
        StopOnNaN(state, start),
        history,
        Progress(recipe.steps, recipe.batch_size, start, bar),
        SaveState(state, run.about, start),  # behind the history: a state has the line of its round
    ]
    _fit(run, start, watchers)
    _save(run)
    write_card(folder, recipe, seed, history.lines)
    return history.lines


def build(recipe: Recipe, folder: Path, seed: int = 0) -> Run:
    """Tokenizer, model, optimizer and data of a run, the same for the same recipe and seed."""
    keras.utils.set_random_seed(seed)
    (folder / STATE).parent.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(recipe, folder, seed)
    config = config_of(recipe, tokenizer)
    model = TFGroupViTModel(config, dtype=recipe.precision)
    spread_groups(model, recipe.initialisation.group_token_std, recipe.initialisation.assign_gain, seed)
    training = TrainingModel(model, recipe.losses)
    _compile(training, recipe)
    size = config.vision_config.image_height_width[0]
    mean, std = STATISTICS["imagenet"]
    square = {"height": size, "width": size}
    processor = ImageProcessor(size=square, crop_size=square, image_mean=mean, image_std=std)
    texts, words = recipe.vocabulary.text_length, recipe.vocabulary.words
    data = SceneBatches(tokenizer, words, size, recipe.batch_size, (mean, std), seed, texts)
    return Run(recipe, seed, folder, tokenizer, processor, training, data)


def _tokenizer(recipe: Recipe, folder: Path, seed: int) -> Tokenizer:
    wanted = recipe.vocabulary
    captions = (one.caption for one in scenes(seed, wanted.captions, DRAWN_AT, "training"))
    prompts = (f"a photo of a {word}." for word in wanted.words)
    return train_vocabulary(folder, [*captions, *prompts], wanted.merges, wanted.max_length)


def config_of(recipe: Recipe, tokenizer: Tokenizer) -> GroupViTConfig:
    """The recipe's model, for the tokens that there are."""
    sections = {name: dict(values) for name, values in recipe.model.items()}
    text = {
        "vocab_size": tokenizer.vocab_size,
        "max_position_embeddings": recipe.vocabulary.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **sections.pop("text", {}),
    }
    vision, joint = sections.pop("vision", {}), sections.pop("joint", {})
    return GroupViTConfig.from_dict({"text_config": text, "vision_config": vision, **joint})


def _compile(training: TrainingModel, recipe: Recipe) -> None:
    chosen = recipe.optimizer
    warm_up = min(chosen.warm_up, recipe.steps // 4)  # of a run cut short to look at
    rate = warm_up_then_cosine(chosen.rate, warm_up, recipe.steps, chosen.start, chosen.floor)
    training.compile(adamw(training, rate, chosen.weight_decay, chosen.clip, chosen.accumulation))
    training.optimizer.build(training.trainable_variables)  # a state can be put back before the first step


def _fit(run: Run, start: int, watchers: list[Any]) -> None:
    """In rounds of ``save_every`` steps; the last one may be shorter."""
    every, steps = run.recipe.save_every, run.recipe.steps
    dataset = run.data.batches(start)
    rounds = [(start, (steps - start) // every, every)]
    rounds.append((start + rounds[0][1] * every, 1, (steps - start) % every))
    for _, epochs, length in rounds:
        if epochs and length:
            run.training.fit(
                dataset, epochs=epochs, steps_per_epoch=length, shuffle=False, verbose=0, callbacks=watchers
            )


def _save(run: Run) -> None:
    run.training.model.save_pretrained(run.folder)
    run.processor.save_pretrained(run.folder)
    run.tokenizer.save_pretrained(run.folder)
    words = "".join(f"{word}\n" for word in run.recipe.vocabulary.words)
    write_whole(run.folder / "classes.txt", words.encode())
