"""A model's variables in, arrays by checkpoint name out; and arrays of a checkpoint back into the variables."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tf_groupvit.checkpoints.names import checkpoint_name, checkpoint_shape, to_checkpoint_layout, to_keras_layout
from tf_groupvit.checkpoints.tensors import Entry, Tensors


def variables_by_name(model: keras.Model) -> dict[str, Any]:
    """The variables that a checkpoint holds, under their names there; states of random generators are not weights."""
    return {checkpoint_name(variable.path): variable for variable in model.weights}


def expected_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Name -> shape, as the checkpoint must have them."""
    named = variables_by_name(model)
    return {name: checkpoint_shape(tuple(variable.shape), variable.path) for name, variable in named.items()}


def as_tensors(model: keras.Model) -> Tensors:
    """The model's weights under checkpoint names and in checkpoint layout, each read when it is written."""
    shapes = expected_shapes(model)
    return Tensors({name: _entry(variable, shapes[name]) for name, variable in variables_by_name(model).items()})


def _entry(variable: Any, shape: tuple[int, ...]) -> Entry:
    dtype = np.dtype(keras.ops.convert_to_numpy(variable[..., :0]).dtype if shape else np.float32)
    return Entry(shape, dtype, lambda: to_checkpoint_layout(keras.ops.convert_to_numpy(variable), variable.path))


def assign(model: keras.Model, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Copy each array, named and laid out as in a checkpoint, to its variable; names and shapes have been matched."""
    variables = variables_by_name(model)
    for name, array in arrays:
        variable = variables[name]
        variable.assign(to_keras_layout(array.astype("float32", copy=False), variable.path))
