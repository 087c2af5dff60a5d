"""First values of variables, random or of a checkpoint, and weights under checkpoint names.

A checkpoint is read at the place where a variable is made. That spares drawing random numbers, a
pass over all of the memory, and half of the peak.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from math import prod

import keras
import numpy as np
from keras import ops

from tf_groupvit.checkpoints.matching import CHECK_CONFIG, fits, sound
from tf_groupvit.checkpoints.names import (
    checkpoint_name,
    checkpoint_shape,
    to_checkpoint_layout,
    to_keras_layout,
)
from tf_groupvit.checkpoints.tensors import Entry, Tensors, dtype_of
from tf_groupvit.errors import CheckpointError
from tf_groupvit.types import Tensor

# Path and shape of a variable -> its values, or None where there are none.
Source = Callable[[str, tuple[int, ...]], np.ndarray | None]

ALIGNMENT = 64  # bytes, of what TensorFlow takes as it is
# Numbers that a config may describe beyond those of its checkpoint, before the model is given up;
# each weight counts as LEAST at least, as layers without end would take memory, too.
MOST_ABSENT, LEAST = 2**27, 2**17

_SOURCE: ContextVar[Source | None] = ContextVar("first_values", default=None)


@contextmanager
def starting_from(source: Source) -> Iterator[None]:
    """Models made in this context start from the values of ``source``, or from zeros where it has
    none.
    """
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def weights_will_be_loaded() -> AbstractContextManager[None]:
    """Models made in this context start from zeros, since something overwrites them at once."""
    return starting_from(lambda path, shape: None)


def first(path: str, otherwise: keras.initializers.Initializer) -> keras.initializers.Initializer:
    """What a variable starts from: the source of the context if there is one, else ``otherwise``.

    ``path`` is its layer's name in a checkpoint and Keras' word for it:
    ``text_model.final_layer_norm/gamma``.
    """
    source = _SOURCE.get()
    return otherwise if source is None else _FromSource(source, path)


class _FromSource(keras.initializers.Initializer):
    def __init__(self, source: Source, path: str) -> None:
        self.source, self.path = source, path

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        values = self.source(self.path, tuple(shape))
        if values is None:
            return ops.zeros(shape, dtype)
        if keras.backend.backend() == "tensorflow" and values.size and values.dtype.name == dtype:
            return _copied_once(values)
        return ops.cast(ops.convert_to_tensor(values), dtype)


def _copied_once(values: np.ndarray) -> Tensor:
    """An array (...) in the layout in which TensorFlow wants it, as a tensor of that very memory.

    TensorFlow's own conversion copies twice where an array does not begin at a multiple of 64
    bytes, and NumPy's begin there by chance. Measured: a sixth of the time of loading.
    """
    import tensorflow as tf

    room = np.empty(values.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    np.copyto(copy, values)
    return tf.experimental.dlpack.from_dlpack(copy.__dlpack__())


def normal(path: str, std: float) -> keras.initializers.Initializer:
    """N(0, std), or the checkpoint's values."""
    return first(path, keras.initializers.RandomNormal(stddev=std))


def truncated_normal(path: str, std: float) -> keras.initializers.Initializer:
    """N(0, std) cut at two deviations, or the checkpoint's values."""
    return first(path, keras.initializers.TruncatedNormal(stddev=std))


def constant(path: str, value: float) -> keras.initializers.Initializer:
    """One number everywhere, or the checkpoint's values."""
    return first(path, keras.initializers.Constant(value))


def variables_by_name(model: keras.Model) -> dict[str, keras.Variable]:
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


def _entry(
    variable: keras.Variable, layer: keras.layers.Layer | None, shape: tuple[int, ...]
) -> Entry:
    dtype = dtype_of(variable.dtype)

    def read() -> np.ndarray:
        value = variable if layer is None else getattr(layer, variable.path.rpartition("/")[2])
        array = keras.ops.convert_to_numpy(value).astype(dtype, copy=False)
        return to_checkpoint_layout(array, variable.path)

    return Entry(shape, dtype, read)


def first_values(tensors: Tensors, source: object, with_values: bool = True) -> Source:
    """What a model's variables start from: each tensor that is there in the right shape, read when
    it is asked for.

    Whether all are there, and no others, is for ``match`` to say.

    Args:
        source: the file of the tensors, for messages.
        with_values: else zeros stand for them all, where only shapes are wanted.

    Raises:
        CheckpointError: NaN or infinity; or a config of far more weights than there are tensors,
            which would take as much memory as it says.
    """
    absent = 0

    def read(path: str, shape: tuple[int, ...]) -> np.ndarray | None:
        nonlocal absent
        name, wanted = checkpoint_name(path), checkpoint_shape(shape, path)
        if name not in tensors or not fits(tensors.entry(name).shape, wanted):
            absent += max(LEAST, prod(wanted))
            if absent > MOST_ABSENT:
                raise CheckpointError(
                    f"{source} does not fit the model: far more weights are missing than it has,"
                    f" {name} {wanted!s:.80} among them. {CHECK_CONFIG}"
                )
            return None
        if not with_values:
            return None
        array = sound(name, wanted, tensors[name])
        return to_keras_layout(array, path).astype("float32", copy=False)

    return read
