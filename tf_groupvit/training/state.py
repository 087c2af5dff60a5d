"""The state of a training run in one file, from which the run resumes exactly.

One safetensors file holds every variable: weights, optimizer, logit scales, and the states of
random generators. Its metadata say which step it is, which recipe made it, and where it stands in
the data, where these are a user's own; scenes are batch number ``step``. Keras'
``BackupAndRestore`` resumes at epochs, without a place in the data, and a kill while it writes
leaves a broken file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from tf_groupvit.checkpoints.safetensors_file import (
    read_metadata,
    read_safetensors,
    write_safetensors,
)
from tf_groupvit.errors import CheckpointError
from tf_groupvit.training.caption_batches import Position
from tf_groupvit.training.recipe import with_new_names


def save_state(
    path: Path,
    model: keras.Model,
    step: int,
    recipe: Mapping[str, object],
    positions: Sequence[Position] = (),
) -> None:
    """Write the state; a full disk or a kill leaves the older one whole.

    ``positions`` are those of all workers in their data.

    Raises:
        CheckpointError: it cannot be written; the older state is named, where there is one.
    """
    variables = variables_of(model).items()
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in variables}
    about = {"step": str(step), "recipe": json.dumps(recipe, sort_keys=True)}
    if positions:
        places = [position.to_dict() for position in positions]
        about["position"] = json.dumps(places if len(places) > 1 else places[0])
    try:
        write_safetensors(path, arrays, about)
    except CheckpointError as error:
        kept = f" The state of step {step_of(path)} is kept." if path.exists() else ""
        raise CheckpointError(f"{error}{kept}") from error


def restore_state(path: Path, model: keras.Model, recipe: Mapping[str, object]) -> int:
    """Put a state into a model that was built and compiled the same way; returns its step.

    Raises:
        CheckpointError: it is of another recipe, was trained on other pairs, or does not fit the
            model.
    """
    tensors, about = read_safetensors(path), read_metadata(path)
    made_by = with_new_names(json.loads(about.get("recipe", "{}")))
    wanted = json.loads(json.dumps(recipe))
    pairs = wanted.pop("pairs", None)
    if made_by.pop("pairs", pairs) != pairs:  # older states do not tell
        raise CheckpointError(
            f"{path} was trained on other pairs than are there now: put those back, or train into"
            " another folder."
        )
    if made_by != wanted:
        raise CheckpointError(
            f"{path} is of another recipe: train into another folder, or empty this one."
        )
    variables = variables_of(model)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    if {name: tensors.entry(name).shape for name in tensors} != shapes:
        raise CheckpointError(
            f"{path} does not fit the model that the recipe makes: empty the folder."
        )
    for name, variable in variables.items():
        variable.assign(np.asarray(tensors[name]))
    return int(about["step"])


def step_of(path: Path) -> int:
    """The step at which a state was saved."""
    return int(read_metadata(path)["step"])


def position_of(path: Path, worker: int = 0, workers: int = 1) -> Position:
    """Where a state stands in a worker's data.

    Where another number of workers made it, each goes on behind what any of those has read.
    """
    content = json.loads(read_metadata(path).get("position", "{}"))
    places = list(map(Position.from_dict, content if isinstance(content, list) else [content]))
    if len(places) == workers:
        return places[worker]
    return max(places, key=lambda place: (place.round, place.record))


def variables_of(model: keras.Model) -> dict[str, keras.Variable]:
    """Every variable by its place: Keras numbers layers through a process, so names differ."""
    kinds = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {
        f"{kind}.{i}": variable for kind, found in kinds.items() for i, variable in enumerate(found)
    }
