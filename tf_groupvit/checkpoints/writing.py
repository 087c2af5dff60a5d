"""Named arrays in, a safetensors file out, one array in memory at a time; an unfinished file never bears the name."""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tf_groupvit.checkpoints.names import batch_counters
from tf_groupvit.checkpoints.safetensors_file import DTYPES
from tf_groupvit.checkpoints.tensors import Entry, Tensors
from tf_groupvit.errors import CheckpointError

WEIGHTS = "model.safetensors"
CODES = {np.dtype(kind).name if kind != "bfloat16" else kind: code for code, kind in DTYPES.items()}


def write_checkpoint(folder: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> Path:
    """``folder``/model.safetensors as transformers' PyTorch class expects it; the path of the file.

    ``tensors`` have PyTorch's names and layouts; the ``num_batches_tracked`` that PyTorch wants beside each batch norm
    are added as zeros where they are missing. Errors: CheckpointError where the file cannot be written.
    """
    entries = Tensors.of(tensors).entries()
    zero = Entry.of(np.zeros((), np.int64))
    counters = dict.fromkeys(batch_counters(entries), zero)
    path = Path(folder) / WEIGHTS
    write_safetensors(path, Tensors({**counters, **entries}), {"format": "pt"})
    return path


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``tensors`` to ``path``, widest dtype first and then by name, so that every array is aligned.

    Arrays of a ``Tensors`` are read one by one and let go. Errors: CheckpointError for a dtype that the format does
    not have, and where the file cannot be written.
    """
    path, tensors = Path(path), Tensors.of(tensors)
    names = sorted(tensors, key=lambda name: (-tensors.entry(name).dtype.itemsize, name))
    header = _header(tensors, names, metadata)
    try:
        with replacing(path) as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for name in names:
                file.write(_bytes(name, tensors.entry(name), tensors[name]))
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` that takes its place when the block ends well, and goes away when it does not."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name on an empty file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _header(tensors: Tensors, names: list[str], metadata: Mapping[str, str] | None) -> bytes:
    rows: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        entry = tensors.entry(name)
        begin, end = end, end + int(np.prod(entry.shape, dtype=np.int64)) * entry.dtype.itemsize
        rows[name] = {"dtype": _code(name, entry.dtype), "shape": list(entry.shape), "data_offsets": [begin, end]}
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)  # the format aligns the first tensor to 8 bytes


def _code(name: str, dtype: np.dtype) -> str:
    if dtype.name not in CODES:
        raise CheckpointError(
            f"Tensor '{name}' is {dtype}, which safetensors cannot hold: use one of {', '.join(CODES)}."
        )
    return CODES[dtype.name]


def _bytes(name: str, entry: Entry, array: np.ndarray) -> memoryview:
    if array.shape != entry.shape or array.dtype != entry.dtype:
        raise CheckpointError(
            f"Tensor '{name}' was announced as {entry.dtype} {entry.shape} and came as {array.dtype} {array.shape}."
        )
    little = array.astype(array.dtype.newbyteorder("<"), copy=False) if array.dtype.byteorder == ">" else array
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
