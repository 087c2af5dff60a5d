"""Safetensors files, checked and written by their library; tensors are read when asked for."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tf_groupvit.checkpoints.names import batch_counters
from tf_groupvit.checkpoints.tensors import Entry, FileBytes, Tensors, dtype_of
from tf_groupvit.errors import CheckpointError, one_line
from tf_groupvit.files import replacing

# The format's names of the dtypes that a checkpoint may have, and NumPy's.
DTYPES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
LONGEST_HEADER = 2**24  # bytes; the full model's has 50,000


def read_safetensors(path: Path) -> Tensors:
    """All tensors of one file, read when asked for.

    The library checks the file and does not read the tensors: it maps the file, and a map that
    stays open counts as memory of the process; a map for each tensor makes loading half as long
    again; and float8 it cannot give to NumPy. So their places are taken from the header, as for the
    other formats.

    Errors: CheckpointError for a file that cannot be read, that the library refuses, that has a
        name twice, or whose dtypes and shapes NumPy does not have.
    """
    file = FileBytes(path)
    length = int.from_bytes(file.bytes(0, 8), "little")
    if length > LONGEST_HEADER:
        raise _broken(path, f"its header is said to have {length:,} bytes")
    with _opened(path):
        text = file.bytes(8, length).decode()
    try:
        header = json.loads(text, object_pairs_hook=_without_twins)
        header.pop("__metadata__", None)
        return Tensors({name: _entry(file, 8 + length, name, row) for name, row in header.items()})
    except (ValueError, TypeError, RecursionError) as error:  # the library takes more than we do
        raise _broken(path, f"its header is not in the usual form, {error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a file says of itself besides its tensors.

    Errors: CheckpointError for a file that cannot be read.
    """
    with _opened(path) as opened:
        return opened.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file as the library opens it.

    It checks that the header fits the bytes, and that the tensors cover each of them once.
    """
    try:
        with safe_open(path, framework="np") as opened:
            yield opened
    except SafetensorError as error:
        raise _broken(
            path, str(error).removeprefix("Error while deserializing header: ")
        ) from error
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error


def _broken(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a sound safetensors file: {one_line(what, 160)}. Fetch or save it again."
    )


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is in it twice")  # the library takes the last
    return found


def _entry(file: FileBytes, start: int, name: str, row: dict[str, Any]) -> Entry:
    code, shape, begin = row["dtype"], tuple(row["shape"]), row["data_offsets"][0]
    if code not in DTYPES:
        raise _broken(
            file.path, f"tensor '{name}' has the dtype {code}, expected one of {', '.join(DTYPES)}"
        )
    dtype = dtype_of(DTYPES[code])
    np.broadcast_to(np.zeros((), dtype), shape)  # refuses a shape that NumPy cannot hold
    return file.entry(start + begin, shape, dtype)


# ---- Writing ----


def write_checkpoint(folder: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> Path:
    """Write ``folder``/model.safetensors for transformers' PyTorch class; returns its path.

    Each of ``tensors`` has PyTorch's name and shape; the ``num_batches_tracked`` () that
    PyTorch wants for each batch norm are added as zeros where they are missing. Errors:
    CheckpointError where the file cannot be written.
    """
    entries = Tensors.of(tensors).entries()
    counters = dict.fromkeys(batch_counters(entries), Entry.of(np.zeros((), np.int64)))
    path = Path(folder) / "model.safetensors"
    write_safetensors(path, Tensors({**counters, **entries}), {"format": "pt"})
    return path


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays of any shape to a file that has its name once it is whole.

    All are in memory for it.

    Errors: CheckpointError for a dtype that a checkpoint cannot have, and where the file cannot be
        written.
    """
    path = Path(path)
    arrays = {name: _writable(name, array) for name, array in tensors.items()}
    try:
        with replacing(path) as unfinished:
            unfinished.touch()
            mode = unfinished.stat().st_mode
            save_file(arrays, unfinished, dict(metadata) if metadata else None)
            unfinished.chmod(mode)  # safetensors 0.8 writes a file that nobody else may read
            with open(unfinished, "r+b") as file:
                os.fsync(file.fileno())  # else a power cut can leave the name on an empty file
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"Cannot write {path}: {reason}.") from error


def _writable(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.name not in DTYPES.values():
        raise CheckpointError(
            f"Tensor '{name}' is {array.dtype}, which a checkpoint cannot hold: "
            f"use one of {', '.join(DTYPES.values())}."
        )
    return np.asarray(array, order="C")  # the library writes the memory of an array as it lies
