"""A variable's path in, its first values out: random ones, or at once those of the checkpoint that
is being loaded.

Loading at the place where a variable is made spares the drawing of numbers, a pass over all of the
memory, and half of the peak.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
from keras import ops

# Path and shape of a variable -> its values, or None where there are none.
Source = Callable[[str, tuple[int, ...]], np.ndarray | None]

_SOURCE: ContextVar[Source | None] = ContextVar("first_values", default=None)


@contextmanager
def starting_from(source: Source) -> Iterator[None]:
    """Models made in this context start from the values of ``source``, and where it has none from
    zeros.
    """
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def weights_will_be_loaded() -> Any:
    """Models made in this context start from zeros, since something else overwrites them at once."""
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

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        values = self.source(self.path, tuple(shape))
        return (
            ops.zeros(shape, dtype)
            if values is None
            else ops.cast(ops.convert_to_tensor(values), dtype)
        )


def normal(path: str, std: float) -> keras.initializers.Initializer:
    """N(0, std), or the checkpoint's values."""
    return first(path, keras.initializers.RandomNormal(stddev=std))


def truncated_normal(path: str, std: float) -> keras.initializers.Initializer:
    """N(0, std) cut at two deviations, or the checkpoint's values."""
    return first(path, keras.initializers.TruncatedNormal(stddev=std))


def constant(path: str, value: float) -> keras.initializers.Initializer:
    """One number everywhere, or the checkpoint's values."""
    return first(path, keras.initializers.Constant(value))
