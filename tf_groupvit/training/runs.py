"""A recipe, a seed and a folder in; a checkpoint in that folder out. A run that was stopped goes on
where it was.
"""

from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_groupvit.files import atomic_write
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.training.building import (
    BEST,
    CLASS_NAMES,
    HISTORY,
    STATE,
    Run,
    build,
    class_names,
    measure_of,
    pictures_of,
)
from tf_groupvit.training.callbacks import (
    History,
    Progress,
    SaveState,
    StopAt,
    StopOnNaN,
    TellSkipped,
    TensorBoard,
    say,
)
from tf_groupvit.training.card import write_card
from tf_groupvit.training.data import Position
from tf_groupvit.training.recipe import Recipe
from tf_groupvit.training.records import size_in_words
from tf_groupvit.training.scene_batches import SceneBatches
from tf_groupvit.training.state import KeepBest, position_of, restore_state

__all__ = ["HISTORY", "STATE", "Run", "build", "train"]


def train(
    recipe: Recipe, folder: Path, seed: int = 0, bar: bool = False, tensorboard: Path | None = None
) -> list[dict[str, Any]]:
    """Train as the recipe says and write the checkpoint to ``folder``; returns the history, a dict
    a round.

    A folder with a state of the same recipe and seed is gone on from, with the same losses as if it
    had never stopped. What is trained on, how long the rest will take, and which records were left
    out is told on standard error. With ``tensorboard``, a folder, numbers of each round and
    pictures of groups and masks are written to it on the way; they change nothing else.

    Raises:
        TrainingError: the loss is no number any more, or nothing can be written for TensorBoard.
        CheckpointError: the folder's state is of another recipe, or it cannot be written.
        DatasetError: the pairs cannot be read, or are fewer than a batch.
    """
    run = build(recipe, folder, seed)
    recipe, state = run.recipe, folder / STATE
    start = restore_state(state, run.training, run.about) if state.exists() else 0
    _announce(run, start)
    history = History(
        folder / HISTORY,
        recipe.batch_size,
        measure_of(run),
        recipe.validate_every,
        start,
        recipe.steps,
    )
    best = KeepBest(
        folder / BEST, run.training.model, recipe.keep == "best", recipe.patience, history.lines
    )
    if not best.enough:
        shown = (
            []
            if tensorboard is None
            else [TensorBoard(tensorboard, history, pictures_of(run).draw)]
        )
        _fit(run, start, [*_watchers(run, start, history, best, bar), *shown])
    _save(run)
    write_card(folder, recipe, seed, history.lines)
    return history.lines


def _announce(run: Run, start: int) -> None:
    """Say what is about to happen, before the first step, which takes longer than the others."""
    recipe = run.recipe
    what = (
        "scenes"
        if isinstance(run.data, SceneBatches)
        else f"{recipe.data.source} ({size_in_words(run.data.source)})"
    )
    say(
        f"Training on {what}: {recipe.steps:,} steps of {recipe.batch_size} pictures, into"
        f" {run.folder}."
    )
    if start >= recipe.steps:
        say(f"{run.folder} is at step {start} of {recipe.steps}: nothing is left to train.")
    elif start:
        say(f"Resuming at step {start} of {recipe.steps} from {run.folder}.")


def _watchers(run: Run, start: int, history: History, best: KeepBest, bar: bool) -> list[Any]:
    """In an order that counts: what reads the history stands behind it, and a state has the line of
    its round.
    """
    recipe, state = run.recipe, run.folder / STATE
    return [
        StopOnNaN(state, start),
        StopAt(recipe.steps, start),
        history,
        Progress(recipe.steps, recipe.batch_size, start, bar),
        best,
        SaveState(state, run.about, start, getattr(run.data, "position", None)),
        TellSkipped(getattr(run.data, "skipped", None)),
    ]


def _fit(run: Run, start: int, watchers: list[Any]) -> None:
    """In rounds of ``save_every`` steps; ``StopAt`` cuts the last one short. One iterator feeds
    them all.
    """
    every, left = run.recipe.save_every, run.recipe.steps - start
    if left <= 0:
        return
    if isinstance(run.data, SceneBatches):
        batches = run.data.batches(start)
    else:
        batches = run.data.batches(position_of(run.folder / STATE) if start else Position())
    rounds = dict(epochs=-(-left // every), steps_per_epoch=every)
    try:
        run.training.fit(batches, **rounds, shuffle=False, verbose=0, callbacks=watchers)
    except tf.errors.OpError:
        if failure := getattr(run.data, "failure", None):
            raise failure from None  # what TensorFlow says of it is a traceback in a string
        raise
    finally:
        for progress in watchers:
            if isinstance(progress, Progress):
                progress.close()


def _save(run: Run) -> None:
    best = run.folder / BEST
    kept = best.exists() and run.recipe.keep == "best"
    model = TFGroupViTModel.from_pretrained(best) if kept else run.training.model
    model.save_pretrained(run.folder)
    run.processor.save_pretrained(run.folder)
    run.tokenizer.save_pretrained(run.folder)
    if names := class_names(run):
        atomic_write(run.folder / CLASS_NAMES, "".join(f"{name}\n" for name in names).encode())
