"""Arguments of a call: lists and dicts of them taken, and mistakes named before anything runs."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from tf_groupvit.errors import InputError, did_you_mean
from tf_groupvit.types import Tensor

# Name -> what it is, and what its dtype may begin with.
TENSORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "input_ids": ("token ids (N, T), integers, as the tokenizer gives them", ("int", "uint")),
    "attention_mask": (
        "(N, T), 1 for a token and 0 for padding",
        ("int", "uint", "bool", "float", "bfloat"),
    ),
    "position_ids": ("positions (N, T), integers", ("int", "uint")),
    "pixel_values": (
        "normalized pixels (B, 3, H, W), floats, as the image processor gives them",
        ("float", "bfloat"),
    ),
    "text_embeds": ("normalized embeddings (N, D), floats", ("float", "bfloat")),
}


def accept(name: str, value: Any) -> Any:
    """An argument of a call as it is, or a nested list as an array; flags pass.

    Raises:
        InputError: rows of different lengths, strings, or numbers of another kind than the input
            takes.
    """
    if name not in TENSORS or value is None:
        return value
    if isinstance(value, Mapping):
        if flags := [
            key
            for key, part in value.items()
            if key not in TENSORS and isinstance(part, bool | str)
        ]:
            raise InputError(
                f"{flags[0]!r} is in the dict of inputs: it holds tensors alone, flags are"
                " arguments."
            )
        for key, part in value.items():
            if key not in TENSORS and isinstance(part, list | tuple):  # Keras refuses it in riddles
                raise InputError(f"There is no input {key!r}: {did_you_mean(key, TENSORS)}")
        return {key: accept(key, part) for key, part in value.items()}
    expected, dtypes = TENSORS[name]
    if not hasattr(value, "dtype"):
        value = _from_lists(name, value, expected)
    try:
        dtype = keras.backend.standardize_dtype(value.dtype)
    except ValueError:  # of a NumPy array of strings or objects
        dtype = str(value.dtype)
    if not dtype.startswith(dtypes) or hasattr(value, "row_splits"):
        kind = "ragged" if hasattr(value, "row_splits") else dtype
        raise InputError(f"{name} is {kind}: expected {expected}.")
    if (
        name == "input_ids"
        and isinstance(value, np.ndarray)
        and value.size
        and abs(value).max() >= 2**31
    ):
        # JAX would cut them to 32 bits before the model sees them.
        raise InputError(f"input_ids hold numbers up to {abs(value).max()}: expected {expected}.")
    return value


def _from_lists(name: str, value: Any, expected: str) -> Any:
    several = (
        isinstance(value, list | tuple)
        and len({getattr(part, "shape", None) for part in value}) > 1
    )
    try:
        array = None if several else np.asarray(value)
    except (ValueError, TypeError, NotImplementedError):
        array = None
    if array is None or array.dtype.kind not in "iufb":
        came = (
            "parts of different shapes or kinds"
            if isinstance(value, list | tuple)
            else f"{type(value).__name__}"
        )
        raise InputError(f"{name} is {came}: expected {expected}; several inputs go in as a dict.")
    return (
        array.astype("float32")
        if "float" in TENSORS[name][1] and array.dtype.kind in "iuf"
        else array
    )


def unpack(first: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Spread a dict that came as the first argument over the named inputs.

    Raises:
        InputError: a key that is no input, naming the nearest one; an input that was given twice.
    """
    first_name, *others = given
    merged: dict[str, Any] = {first_name: None, **{name: given[name] for name in others}}
    for name, value in first.items():
        if name not in given:
            raise InputError(
                f"There is no input {name!r}: {did_you_mean(name, given)}"
                f" Inputs: {', '.join(given)}."
            )
        if merged[name] is not None:
            raise InputError(
                f"{name} was given twice, in the dict and as an argument: give it once."
            )
        merged[name] = value
    return merged


def text_inputs(
    input_ids: Tensor | Mapping[str, Tensor] | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
) -> dict[str, Any]:
    """The inputs of the text tower (N, T) by name, where the first may be a dict of them.

    Raises:
        InputError: there are no token ids.
    """
    given = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
    given = unpack(input_ids, given) if isinstance(input_ids, Mapping) else given
    if given["input_ids"] is None:
        raise InputError("input_ids are missing: give token ids (N, T).")
    return given


def image_input(pixel_values: Tensor | Mapping[str, Tensor] | None) -> Tensor:
    """The input of the vision tower (B, 3, H, W), which may be in a dict.

    Raises:
        InputError: there are no pixels.
    """
    if isinstance(pixel_values, Mapping):
        pixel_values = unpack(pixel_values, {"pixel_values": None})["pixel_values"]
    if pixel_values is None:
        raise InputError("pixel_values are missing: give normalized pixels (B, 3, H, W).")
    return pixel_values


def check_pairs_of_rows(x: Any) -> None:
    """Keras splits inputs into batches by rows: arrays (B, ...) with one row a pair; datasets pass.

    Raises:
        InputError: a list of inputs, or entries with different numbers of rows.
    """
    if isinstance(x, list | tuple):
        raise InputError(
            "Keras' loops take one dict of inputs, {'input_ids': ..., 'pixel_values': ...}, not a"
            " list."
        )
    rows = (
        {name: len(value) for name, value in x.items() if hasattr(value, "__len__")}
        if isinstance(x, dict)
        else {}
    )
    if len(set(rows.values())) > 1:
        raise InputError(
            f"Keras' loops take pairs, one text an image, but rows differ: {rows}; for N texts"
            " against B images call model(...), or predict with"
            " model.with_text_embeds(text_embeds)."
        )


def refuse_tuple(return_dict: bool | None) -> None:
    """``return_dict=False`` has no meaning here: results are dicts that also read by position."""
    if return_dict is False:
        raise InputError(
            "return_dict=False is not supported: results are dicts that are also read by position; "
            "use result.to_tuple() for a tuple."
        )


def refuse_flags(flags: Mapping[str, Any]) -> None:
    """Flags that transformers' ``get_*_features`` take, and no others."""
    known = ("output_attentions", "output_hidden_states", "return_dict")
    for name in flags.keys() - set(known):
        raise InputError(
            f"There is no argument {name!r}: besides the inputs there are {', '.join(known)}."
        )
    refuse_tuple(flags.get("return_dict"))


def as_ids(ids: Tensor) -> Tensor:
    """Token or position ids, or a mask, as int32 (N, T); one row may come as (T,)."""
    ids = ops.cast(ops.convert_to_tensor(ids), "int32")
    if len(ids.shape) == 0:
        raise InputError(
            "A single number was given in place of (N, T): give one row of numbers for each text."
        )
    return ids if len(ids.shape) == 2 else ops.reshape(ids, (-1, ops.shape(ids)[-1]))


def concrete(values: Tensor) -> np.ndarray | None:
    """Values (...) as an array, or None while a graph is traced or Keras infers shapes.

    On the PyTorch backend Keras infers with ones in place of data, which no rule about values may
    judge.
    """
    if in_symbolic_scope():
        return None
    try:
        array = np.asarray(values)
    except (NotImplementedError, TypeError, ValueError):
        return None
    return array if array.dtype != object else None
