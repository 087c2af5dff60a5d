"""A file of PyTorch's ``torch.save`` in, its tensors out, read without PyTorch; both of its
formats, no code is run.

Since PyTorch 1.6 the file is a zip with a pickle, ``data.pkl``, and one uncompressed record for
each storage. Before, it was a row of pickles (a magic number, the version, facts of the machine,
the object, the storages' keys), then the storages, each behind its number of elements. Source:
torch/serialization.py.
"""

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tf_groupvit.checkpoints import opcodes
from tf_groupvit.checkpoints.tensors import Entry, FileBytes, Tensors
from tf_groupvit.checkpoints.torch_names import Place, Storage, TorchAnswers
from tf_groupvit.checkpoints.wrappers import state_dict_of
from tf_groupvit.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
LONGEST_PICKLE = 2**28  # bytes; the full model's is 60,000


def read_pickle(path: Path) -> Tensors:
    """The tensors of a state dict, read when asked for.

    The state dict is the file's object itself, or the one that is in it. Errors: CheckpointError
    for a name that is not in torch_names.py, for several state dicts, and for a file that is
    truncated or inconsistent.
    """
    file = FileBytes(path)
    try:
        found, places = (_read_zip if _is_zip(file) else _read_legacy)(file)
        state, note = state_dict_of(path, found, lambda value: isinstance(value, Place))
        entries = {
            name: _entry(file, name, place, places(place.storage)) for name, place in state.items()
        }
        return Tensors(entries, (note,) if note else ())
    except CheckpointError:
        raise
    except Exception as error:  # a broken stream breaks the reading in any way that Python knows
        raise CheckpointError(
            f"{path} is not a sound PyTorch file ({_reason(error)}): fetch it again."
        ) from error


def _is_zip(file: FileBytes) -> bool:
    return file.size >= 4 and file.read(0, 4, np.dtype("u1")).tobytes() == b"PK\x03\x04"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:120]


def _entry(file: FileBytes, name: str, place: Place, begin: int) -> Entry:
    """One tensor, its place checked against its storage; only the bytes that it spans are read."""
    storage, shape = place.storage, place.shape
    if len(shape) > 32 or math.prod(size or 1 for size in shape) >= 2**60:
        raise CheckpointError(
            f"{file.path}: tensor '{name}' has a shape that no model has: {str(shape)[:80]}."
        )
    empty = 0 in shape
    span = (
        0
        if empty
        else 1 + sum((size - 1) * step for size, step in zip(shape, place.strides, strict=True))
    )
    first = storage.start + place.offset
    if not empty and first + span > storage.count:
        raise CheckpointError(
            f"{file.path}: tensor '{name}' reaches to element {first + span} of a storage of"
            f" {storage.count}: fetch it again."
        )
    steps = tuple(
        step * storage.dtype.itemsize for step in ([0] * len(shape) if empty else place.strides)
    )

    def read() -> np.ndarray:
        flat = file.read(begin + first * storage.dtype.itemsize, span, storage.dtype)
        return np.ndarray(shape, storage.dtype, flat, strides=steps)

    return Entry(shape, storage.dtype, read)


# --- The zip format
# ------------------------------------------------------------------------------------------------


def _read_zip(file: FileBytes) -> tuple[Any, Callable[[Storage], int]]:
    with zipfile.ZipFile(file.path) as archive:
        records = {info.filename: info for info in archive.infolist()}
        folder = next(
            (
                name.rpartition("/")[0]
                for name in records
                if name.endswith("/data.pkl") and name.count("/") == 1
            ),
            None,
        )
        if folder is None:
            raise CheckpointError(
                f"{file.path} is a zip without data.pkl: expected a file of torch.save."
            )
        pickled = records[f"{folder}/data.pkl"]
        _check_record(file.path, pickled, LONGEST_PICKLE)
        if (
            (order := records.get(f"{folder}/byteorder"))
            and order.file_size < 16
            and archive.read(order) != b"little"
        ):
            raise CheckpointError(
                f"{file.path} was written on a big-endian machine: save it again on another."
            )
        found = opcodes.run(io.BytesIO(archive.read(pickled)), TorchAnswers(file.path))
    return found, lambda storage: _record_start(
        file, records.get(f"{folder}/data/{storage.key}"), storage
    )


def _check_record(path: Path, record: zipfile.ZipInfo, most: int) -> None:
    if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
        raise CheckpointError(
            f"{path}: record '{record.filename}' is compressed or encrypted: torch.save writes"
            " neither."
        )
    if record.file_size > most or record.compress_size != record.file_size:
        raise CheckpointError(
            f"{path}: record '{record.filename}' has an impossible size, {record.file_size} bytes."
        )


def _record_start(file: FileBytes, record: zipfile.ZipInfo | None, storage: Storage) -> int:
    """Where the bytes of a storage's record begin; its local header may be longer than the
    directory's entry tells.
    """
    if record is None:
        raise CheckpointError(
            f"{file.path} has no record for storage '{storage.key}': fetch it again."
        )
    _check_record(file.path, record, storage.count * storage.dtype.itemsize)
    header = file.read(record.header_offset, 30, np.dtype("u1")).tobytes()
    signature, name_length, extra_length = struct.unpack("<4s22xHH", header)
    begin = record.header_offset + 30 + name_length + extra_length
    needed = storage.count * storage.dtype.itemsize
    if signature != b"PK\x03\x04" or record.file_size != needed or begin + needed > file.size:
        raise CheckpointError(
            f"{file.path}: storage '{storage.key}' needs {needed} bytes, its record has other:"
            " fetch it again."
        )
    return begin


# --- The format before PyTorch 1.6
# -----------------------------------------------------------------------------------


def _read_legacy(file: FileBytes) -> tuple[Any, Callable[[Storage], int]]:
    with (
        open(file.path, "rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as stream,
    ):
        answers = TorchAnswers(file.path)
        if _run(stream, answers) != MAGIC or _run(stream, answers) != LEGACY_VERSION:
            raise CheckpointError(
                f"{file.path} is a pickle, but not one of torch.save: expected its magic number."
            )
        facts, found, keys = (_run(stream, answers) for _ in range(3))
        if not facts["little_endian"]:
            raise CheckpointError(
                f"{file.path} was written on a big-endian machine: save it again on another."
            )
        starts = _legacy_starts(stream, answers.storages, keys)
    return found, lambda storage: starts[storage.key]


def _run(stream: mmap.mmap, answers: TorchAnswers) -> Any:
    return opcodes.run(stream, answers)  # type: ignore[arg-type]


def _legacy_starts(
    stream: mmap.mmap, storages: dict[str, Storage], keys: list[str]
) -> dict[str, int]:
    """Key of each storage -> its first byte; they follow each other in the order of ``keys``."""
    starts = {}
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack_from("<q", stream, position)
        starts[key] = position + 8
        position = starts[key] + count * storage.dtype.itemsize
        if count != storage.count or position > len(stream):
            raise ValueError(f"storage {key[:40]} is cut short")
    return starts
