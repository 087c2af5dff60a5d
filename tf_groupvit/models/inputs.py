"""What a caller passes in, what a model's call needs out: dicts unpacked, flags settled, mistakes named early."""

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from tf_groupvit.errors import InputError


def unpack(first: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Spread a dict that came as the first argument over the named inputs.

    Raises:
        InputError: a key that is no input, naming the nearest one; an input that was given twice.
    """
    first_name, *others = given
    merged: dict[str, Any] = {first_name: None, **{name: given[name] for name in others}}
    for name, value in first.items():
        if name not in given:
            near = difflib.get_close_matches(name, list(given), n=1, cutoff=0)[0]
            raise InputError(f"There is no input {name!r}: did you mean {near!r}? Inputs: {', '.join(given)}.")
        if merged[name] is not None:
            raise InputError(f"{name} came twice, in the dict and as an argument: give it once.")
        merged[name] = value
    return merged


def refuse_tuple(return_dict: bool | None) -> None:
    """``return_dict=False`` has no meaning here: results are dicts that also read by position."""
    if return_dict is False:
        raise InputError(
            "return_dict=False is not supported: results are dicts that are also read by position; "
            "use result.to_tuple() for a tuple."
        )


def as_ids(ids: Any) -> Any:
    """Token or position ids as int32, at least two-dimensional."""
    ids = ops.cast(ops.convert_to_tensor(ids), "int32")
    return ids[None] if len(ids.shape) == 1 else ids


def concrete(values: Any) -> np.ndarray | None:
    """The values as an array, or None while a graph is being traced and there are none yet."""
    try:
        array = np.asarray(values)
    except (NotImplementedError, TypeError, ValueError):
        return None
    return array if array.dtype != object else None
