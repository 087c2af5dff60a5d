"""Named arrays to a safetensors file, by the safetensors library; an unfinished file never has its
name.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from tf_groupvit.checkpoints.names import batch_counters
from tf_groupvit.checkpoints.safetensors_file import DTYPES
from tf_groupvit.checkpoints.tensors import Entry, Tensors
from tf_groupvit.errors import CheckpointError
from tf_groupvit.files import replacing

WEIGHTS = "model.safetensors"


def write_checkpoint(folder: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> Path:
    """``folder``/model.safetensors as transformers' PyTorch class expects it; the path of the file.

    ``tensors`` have PyTorch's names and layouts; the ``num_batches_tracked`` that PyTorch wants
    beside each batch norm are added as zeros where they are missing. Errors: CheckpointError where
    the file cannot be written.
    """
    entries = Tensors.of(tensors).entries()
    zero = Entry.of(np.zeros((), np.int64))
    counters = dict.fromkeys(batch_counters(entries), zero)
    path = Path(folder) / WEIGHTS
    write_safetensors(path, Tensors({**counters, **entries}), {"format": "pt"})
    return path


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``tensors`` to a file beside ``path`` that takes its place once it is whole; all are in
    memory for it.

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
        raise CheckpointError(
            f"Cannot write {path}: {getattr(error, 'strerror', None) or error}."
        ) from error


def _writable(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.name not in DTYPES.values():
        raise CheckpointError(
            f"Tensor '{name}' is {array.dtype}, which a checkpoint cannot hold: "
            f"use one of {', '.join(DTYPES.values())}."
        )
    return np.asarray(array, order="C")  # the library writes the memory of an array as it lies
