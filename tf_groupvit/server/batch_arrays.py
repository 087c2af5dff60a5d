"""Arrays of a batch: the inputs of several requests in, one input of all out; and the other way for
outputs.

The rules and their texts are those of the contract, section 10. Every array of a request has the
same first dimension, which is its number of rows.
"""

import math
from collections.abc import Sequence

import numpy as np

from tf_groupvit.server.status import StatusError, invalid
from tf_groupvit.server.tensor_protos import MOST_FILLED, filling_cost

Arrays = dict[str, np.ndarray]  # tensor name -> values
_MOST_PADDED = 6  # dimensions that the real server pads


def rows_of(arrays: Arrays) -> int:
    """The first dimension that all inputs of a request share. Raises StatusError."""
    if not arrays:
        raise invalid("Batching Run() must have at least one input tensor")
    sizes = set()
    for array in arrays.values():
        if not array.ndim:
            raise invalid("Batching Run() input tensors must have at least one dimension")
        sizes.add(array.shape[0])
        if len(sizes) > 1:
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def cut(arrays: Arrays, sizes: Sequence[int]) -> list[Arrays]:
    """Rows of the inputs, so many at a time."""
    ends = np.cumsum(sizes)
    return [
        {name: array[end - size : end] for name, array in arrays.items()}
        for end, size in zip(ends, sizes, strict=True)
    ]


def merged(requests: Sequence[Arrays], padding: int, pad_lengths: bool) -> Arrays:
    """One array per input, with ``padding`` more rows, copies of the last request's first. Raises
    StatusError.
    """
    return {
        name: _joined(name, [arrays[name] for arrays in requests], padding, pad_lengths)
        for name in sorted(requests[0])
    }


def _joined(name: str, parts: list[np.ndarray], padding: int, pad_lengths: bool) -> np.ndarray:
    if len({part.dtype for part in parts}) > 1:
        raise StatusError(
            "INTERNAL",
            f"Tensor concat operation failed: the tensors of '{name}' have different types",
        )
    if pad_lengths:
        parts = _lengthened(parts)
    elif any(part.shape[1:] != parts[0].shape[1:] for part in parts):
        raise StatusError(
            "FAILED_PRECONDITION",
            f"Tensors with name '{name}' from different tasks have different shapes and padding is"
            " turned off. Set pad_variable_length_inputs to true, or ensure that all tensors with"
            " the same name have equal dimensions starting with the first dim.",
        )
    rows = [parts[-1][:1]] * padding if len(parts[-1]) else []
    return np.concatenate([*parts, *rows]) if len(parts) + len(rows) > 1 else parts[0]


def _lengthened(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Every dimension but the first as long as the longest, filled up with the array's own first
    value.
    """
    ranks = {part.ndim for part in parts}
    if max(ranks) > _MOST_PADDED:
        raise invalid("Only tensors with rank from 1 to 6 can be padded.")
    if len(ranks) > 1:
        raise invalid("Only tensors of one rank can be padded.")
    longest = np.max([part.shape for part in parts], axis=0)
    row = math.prod(map(int, longest[1:]))
    added = sum(
        (len(part) * row - part.size) * filling_cost(part.flat[0]) for part in parts if part.size
    )
    if added > MOST_FILLED:
        raise invalid(
            f"Padding would add {added:,} elements to the batch; at most {MOST_FILLED:,} are added."
        )
    return [_filled(part, longest) for part in parts]


def _filled(part: np.ndarray, longest: np.ndarray) -> np.ndarray:
    shape = (part.shape[0], *map(int, longest[1:]))
    if shape == part.shape:
        return part
    if not part.size and np.prod(shape):
        raise invalid("Got empty tensor in batch of non-empty tensors.")
    full = np.empty(shape, part.dtype)
    full[...] = part.flat[0] if part.size else None
    full[tuple(slice(size) for size in part.shape)] = part
    return full


def split(
    outputs: Sequence[np.ndarray], sizes: Sequence[int], padding: int
) -> list[list[np.ndarray]]:
    """Each request's rows of the outputs. Raises StatusError for an output that has no row for each
    input row.
    """
    for output in outputs:
        if not output.ndim:
            raise StatusError("FAILED_PRECONDITION", "Batched output tensor has 0 dimensions")
        if output.shape[0] != sum(sizes) + padding:
            raise StatusError(
                "FAILED_PRECONDITION",
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension"
                " sizes of the input tensors",
            )
    ends = np.cumsum(sizes)
    return [
        [output[end - size : end] for output in outputs]
        for end, size in zip(ends, sizes, strict=True)
    ]
