"""A model's variables in, arrays by checkpoint name out; and a checkpoint's arrays in, variables'
first values out.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tf_groupvit.checkpoints.matching import fits, sound
from tf_groupvit.checkpoints.names import (
    checkpoint_name,
    checkpoint_shape,
    to_checkpoint_layout,
    to_keras_layout,
)
from tf_groupvit.checkpoints.tensors import Entry, Tensors, dtype_of
from tf_groupvit.errors import CheckpointError
from tf_groupvit.models.initialization import Source


def variables_by_name(model: keras.Model) -> dict[str, Any]:
    """The variables that a checkpoint holds, under their names there.

    States of random generators are not weights, and LoRA's factors are no weights of their own.
    """
    return {
        checkpoint_name(variable.path): variable
        for variable in model.weights
        if not variable.path.rpartition("/")[2].startswith("lora_")
    }


def expected_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Name -> shape, as the checkpoint must have them."""
    named = variables_by_name(model)
    return {
        name: checkpoint_shape(tuple(variable.shape), variable.path)
        for name, variable in named.items()
    }


def as_tensors(model: keras.Model) -> Tensors:
    """The model's weights under checkpoint names and in checkpoint layout, each read when it is
    written.

    LoRA's factors are merged into the weights that they belong to. Errors: CheckpointError for a
    quantized model.
    """
    shapes, merged = expected_shapes(model), dict(_merged_weights(model))
    return Tensors(
        {
            name: _entry(v, merged.get(v.path), shapes[name])
            for name, v in variables_by_name(model).items()
        }
    )


def _merged_weights(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Path of each variable with LoRA factors, and its layer, whose ``kernel`` or ``embeddings``
    has them merged.
    """
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "quantization_mode", None):
            raise CheckpointError(
                f"Layer '{layer.name}' is quantized ({layer.quantization_mode}): a checkpoint holds"
                " floats, save it before quantize(), or save the model as .keras."
            )
        if getattr(layer, "lora_enabled", False):
            yield from (
                (v.path, layer)
                for v in layer.weights
                if v.path.endswith(("/kernel", "/embeddings"))
            )


def _entry(variable: Any, layer: Any, shape: tuple[int, ...]) -> Entry:
    dtype = dtype_of(variable.dtype)

    def read() -> np.ndarray:
        value = variable if layer is None else getattr(layer, variable.path.rpartition("/")[2])
        array = keras.ops.convert_to_numpy(value).astype(dtype, copy=False)
        return to_checkpoint_layout(array, variable.path)

    return Entry(shape, dtype, read)


def first_values(tensors: Tensors) -> Source:
    """What a model's variables start from: each tensor that is there in the right shape, read when
    it is asked for.

    Whether all are there, and no others, is for ``match`` to say. Errors: CheckpointError for NaN
    or infinity.
    """

    def read(path: str, shape: tuple[int, ...]) -> np.ndarray | None:
        name, wanted = checkpoint_name(path), checkpoint_shape(shape, path)
        if name not in tensors or not fits(tensors.entry(name).shape, wanted):
            return None
        array = sound(name, wanted, tensors[name])
        return to_keras_layout(array, path).astype("float32", copy=False)

    return read
