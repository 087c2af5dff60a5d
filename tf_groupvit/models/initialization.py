"""Config in, initial weights out.

A model that is about to be loaded skips the drawing of random numbers: see ``weights_will_be_loaded``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import keras

_LOADING = ContextVar("weights_will_be_loaded", default=False)


@contextmanager
def weights_will_be_loaded() -> Iterator[None]:
    """Models made in this context start from zeros, since a checkpoint overwrites them at once."""
    token = _LOADING.set(True)
    try:
        yield
    finally:
        _LOADING.reset(token)


def normal(std: float) -> keras.initializers.Initializer:
    """N(0, std), or zeros where a checkpoint follows."""
    return keras.initializers.Zeros() if _LOADING.get() else keras.initializers.RandomNormal(stddev=std)


def truncated_normal(std: float) -> keras.initializers.Initializer:
    """N(0, std) cut at two deviations, or zeros where a checkpoint follows."""
    return keras.initializers.Zeros() if _LOADING.get() else keras.initializers.TruncatedNormal(stddev=std)
