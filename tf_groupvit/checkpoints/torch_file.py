"""Files of PyTorch's ``torch.save``, read without PyTorch: both of its formats, and no code is run.

Since PyTorch 1.6 the file is a zip with a pickle, ``data.pkl``, and one uncompressed record for
each storage. Before, it was a row of pickles (a magic number, the version, facts of the machine,
the object, the storages' keys), then the storages, each after its number of elements. Source:
torch/serialization.py.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tf_groupvit.checkpoints.tensors import Entry, FileBytes, Tensors
from tf_groupvit.checkpoints.unpickling import Place, Storage, Unpickler
from tf_groupvit.checkpoints.wrappers import state_dict_of
from tf_groupvit.errors import CheckpointError, one_line

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
LONGEST = 2**24  # bytes of all pickles, or of a zip's directory; the full model's have 60,000
Starts = Callable[[Storage], int]  # the first byte of a storage's elements in the file


def read_torch(path: Path) -> Tensors:
    """The tensors of a state dict, read when asked for.

    The state dict is the file's object itself, or the one that is in it. Errors: CheckpointError
    for a name that unpickling.py does not allow, for several state dicts, and for a file that is
    truncated or inconsistent.
    """
    file = FileBytes(path)
    try:
        found, start_of = (_read_zip if file.bytes(0, 4) == b"PK\x03\x04" else _read_legacy)(file)
        state, note = state_dict_of(path, found, lambda value: isinstance(value, Place))
        entries = {
            name: _entry(file, name, place, start_of(place.storage))
            for name, place in state.items()
        }
        return Tensors(entries, (note,) if note else ())
    except CheckpointError:
        raise
    except Exception as error:  # a broken stream breaks the reading in any way that Python knows
        reason = one_line(f"{type(error).__name__}: {error}", 120)
        raise CheckpointError(
            f"{path} is not a sound PyTorch file ({reason}): fetch it again."
        ) from error


def _entry(file: FileBytes, name: str, place: Place, begin: int) -> Entry:
    """One tensor, its place checked against its storage; only the bytes that it spans are read."""
    storage, shape = place.storage, place.shape
    if math.prod(size or 1 for size in shape) >= 2**60:
        raise CheckpointError(
            f"{file.path}: tensor '{name}' has a shape that no model has: {str(shape)[:80]}."
        )
    strides = (0,) * len(shape) if 0 in shape else place.strides
    steps = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    span = 0 if 0 in shape else 1 + steps
    first = storage.start + place.offset
    if span and first + span > storage.count:
        raise CheckpointError(
            f"{file.path}: tensor '{name}' reaches to element {first + span} of a storage of"
            f" {storage.count}: fetch it again."
        )
    itemsize = storage.dtype.itemsize
    byte_strides = tuple(stride * itemsize for stride in strides)

    def read() -> np.ndarray:
        flat = file.read(begin + first * itemsize, span, storage.dtype)
        return np.ndarray(shape, storage.dtype, flat, strides=byte_strides)

    return Entry(shape, storage.dtype, read)


def _refuse_big_endian(path: Path, little: bool) -> None:
    if not little:
        raise CheckpointError(
            f"{path} was written on a big-endian machine: save it again on another."
        )


# ---- The zip format ----


class _Bounded(io.BufferedReader):
    """A file of which one read gives LONGEST bytes at most: zipfile reads the directory at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(LONGEST if size is None or size < 0 else min(size, LONGEST))


def _read_zip(file: FileBytes) -> tuple[Any, Starts]:
    with _Bounded(io.FileIO(file.path)) as opened, zipfile.ZipFile(opened) as archive:
        records = {info.filename: info for info in archive.infolist()}
        pickles = [n for n in records if n.endswith("/data.pkl") and n.count("/") == 1]
        if not pickles:
            raise CheckpointError(
                f"{file.path} is a zip without data.pkl: expected a file of torch.save."
            )
        folder = pickles[0].removesuffix("/data.pkl")
        pickled, order = records[pickles[0]], records.get(f"{folder}/byteorder")
        _check_record(file.path, pickled, LONGEST)
        if order is not None:
            _check_record(file.path, order, 16)
            _refuse_big_endian(file.path, archive.read(order) == b"little")
        found = Unpickler(file.path).load(io.BytesIO(archive.read(pickled)))

    def start_of(storage: Storage) -> int:
        return _record_start(file, records.get(f"{folder}/data/{storage.key}"), storage)

    return found, start_of


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
    """Where the bytes of a storage's record begin.

    Its local header may be longer than the entry in the directory says.
    """
    if record is None:
        raise CheckpointError(
            f"{file.path} has no record for storage '{storage.key}': fetch it again."
        )
    needed = storage.count * storage.dtype.itemsize
    _check_record(file.path, record, needed)
    header = file.bytes(record.header_offset, 30)
    signature, name_length, extra_length = struct.unpack("<4s22xHH", header)
    begin = int(record.header_offset + 30 + name_length + extra_length)
    if signature != b"PK\x03\x04" or record.file_size != needed or begin + needed > file.size:
        raise CheckpointError(
            f"{file.path}: storage '{storage.key}' needs {needed} bytes, its record has other:"
            " fetch it again."
        )
    return begin


# ---- The format before PyTorch 1.6 ----


def _read_legacy(file: FileBytes) -> tuple[Any, Starts]:
    stream = io.BytesIO(file.bytes(0, LONGEST))
    unpickler = Unpickler(file.path)
    if unpickler.load(stream) != MAGIC or unpickler.load(stream) != LEGACY_VERSION:
        raise CheckpointError(
            f"{file.path} is a pickle, but not one of torch.save: expected its magic number."
        )
    facts, found, keys = (unpickler.load(stream) for _ in range(3))
    _refuse_big_endian(file.path, facts["little_endian"])
    starts = _legacy_starts(file, stream.tell(), unpickler.storages, keys)
    return found, lambda storage: starts[storage.key]


def _legacy_starts(
    file: FileBytes, position: int, storages: dict[str, Storage], keys: list[str]
) -> dict[str, int]:
    """Key of each storage -> its first byte; they follow each other in the order of ``keys``."""
    starts = {}
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack("<q", file.bytes(position, 8))
        starts[key] = position + 8
        position = starts[key] + storage.count * storage.dtype.itemsize
        if count != storage.count or position > file.size:
            raise ValueError(f"storage {key[:40]} is cut short")
    return starts
