"""Scores in, the first best index out: TensorFlow leaves ties undefined, PyTorch takes the first, and so does this."""

from typing import Any

import keras
import numpy as np
from keras import ops


def first_argmax(x: Any, axis: int) -> Any:
    """The index of the first maximum along ``axis``, which is kept with size 1; int32."""
    if 0 in x.shape:  # Keras on PyTorch answers with the bare ``initial``
        return ops.zeros_like(ops.take(x, [0], axis=axis), dtype="int32")
    index, size = _index_along(x, axis)
    # A lowest value to begin with: Keras refuses the maximum of an empty batch, and puts that check into graphs.
    best = ops.equal(x, ops.max(x, axis=axis, keepdims=True, initial=_lowest(x)))
    return ops.min(ops.where(best, index, size - 1), axis=axis, keepdims=True, initial=size - 1)


def one_hot_max(x: Any, axis: int) -> Any:
    """1.0 at the first maximum along ``axis``, 0.0 elsewhere; float32."""
    index, _ = _index_along(x, axis)
    return ops.cast(ops.equal(index, first_argmax(x, axis)), "float32")


def _lowest(x: Any) -> Any:
    dtype = keras.backend.standardize_dtype(x.dtype)
    return float("-inf") if "float" in dtype else int(np.iinfo(dtype).min)


def _index_along(x: Any, axis: int) -> tuple[Any, Any]:
    """0, 1, 2, ... along ``axis``, shaped to go with ``x``; and how many there are."""
    shape = [1] * len(x.shape)
    shape[axis] = -1
    size = ops.shape(x)[axis]
    return ops.reshape(ops.arange(size, dtype="int32"), shape), size
