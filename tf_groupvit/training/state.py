"""Files that a training run keeps: its state, from which it goes on exactly, and its best
checkpoint.

One safetensors file holds every variable: weights, optimizer, logit scales, and the states of
random generators. Its metadata say which step it is, which recipe made it, and where it stands in
the data, where these are a user's own. Scenes need no position but the step: batch number n is
there for the asking.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_groupvit.checkpoints.safetensors_file import read_metadata, read_safetensors
from tf_groupvit.checkpoints.writing import write_safetensors
from tf_groupvit.errors import CheckpointError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.training.data import Position

BETTER = {"val_miou": 1, "val_loss": -1}  # measured -> 1 where more is better


def save_state(
    path: Path,
    model: keras.Model,
    step: int,
    recipe: Mapping[str, Any],
    position: Position | None = None,
) -> None:
    """Write the state beside ``path`` and rename it: a full disk or a kill leaves the older one
    whole.

    Raises:
        CheckpointError: it cannot be written; the older state is named, where there is one.
    """
    arrays = {
        name: keras.ops.convert_to_numpy(variable) for name, variable in _variables(model).items()
    }
    about = {"step": str(step), "recipe": json.dumps(recipe, sort_keys=True)}
    if position is not None:
        about["position"] = json.dumps(position.to_dict())
    try:
        write_safetensors(path, arrays, about)
    except CheckpointError as error:
        kept = f" The state of step {step_of(path)} is kept." if path.exists() else ""
        raise CheckpointError(f"{error}{kept}") from error


def restore_state(path: Path, model: keras.Model, recipe: Mapping[str, Any]) -> int:
    """Put a state back into a model that was built and compiled the same way; returns its step.

    Raises:
        CheckpointError: it is of another recipe, or does not fit the model.
    """
    tensors, about = read_safetensors(path), read_metadata(path)
    if json.loads(about.get("recipe", "{}")) != json.loads(json.dumps(recipe, sort_keys=True)):
        raise CheckpointError(
            f"{path} is of another recipe: train into another folder, or empty this one."
        )
    variables = _variables(model)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    if {name: tensors.entry(name).shape for name in tensors} != shapes:
        raise CheckpointError(
            f"{path} does not fit the model that the recipe makes: empty the folder."
        )
    for name, variable in variables.items():
        variable.assign(np.asarray(tensors[name]))
    return int(about["step"])


def step_of(path: Path) -> int:
    """The step that a state was saved at."""
    return int(read_metadata(path)["step"])


def position_of(path: Path) -> Position:
    """Where a state stands in its data."""
    return Position.from_dict(json.loads(read_metadata(path).get("position", "{}")))


def _variables(model: keras.Model) -> dict[str, Any]:
    """Every variable by its place: Keras numbers layers through a process, so that their names are
    not the same.
    """
    kinds = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {
        f"{kind}.{i}": variable for kind, found in kinds.items() for i, variable in enumerate(found)
    }


class KeepBest(keras.callbacks.Callback):
    """Stands behind ``History``, whose measurements it reads.

    Args:
        folder: where the best checkpoint goes, each time that one is measured.
        model: what is saved.
        keep: whether it is saved at all.
        patience: measurements in a row without a better one, after which training stops; 0: it does
            not.
        lines: the history of a run that goes on.

    Attribute ``enough``: whether training has been stopped.
    """

    def __init__(
        self,
        folder: Path,
        model: TFGroupViTModel,
        keep: bool,
        patience: int,
        lines: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        self.folder, self.kept_model, self.keep, self.patience = folder, model, keep, patience
        self.best, self.since = float("-inf"), 0
        for line in lines:
            self._is_better(line)

    @property
    def enough(self) -> bool:
        return 0 < self.patience <= self.since

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._is_better(logs or {}) and self.keep:
            self.kept_model.save_pretrained(self.folder)
        if self.enough:
            self.model.stop_training = True

    def _is_better(self, numbers: Mapping[str, float]) -> bool:
        """Counts a measurement, where there is one."""
        for name, sign in BETTER.items():
            if name in numbers:
                better = sign * numbers[name] > self.best
                self.best = max(self.best, sign * numbers[name])
                self.since = 0 if better else self.since + 1
                return better
        return False
