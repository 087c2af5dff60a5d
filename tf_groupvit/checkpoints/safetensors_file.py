"""A .safetensors file in, its tensors out; a header that does not fit the bytes behind it is refused.

Format: 8 bytes, little-endian, the length of the header; the header, JSON; then the bytes of the tensors, without gap.
Source: the format's description in the README of the safetensors project.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tf_groupvit.checkpoints.tensors import Entry, FileBytes, Tensors, bfloat16
from tf_groupvit.errors import CheckpointError

LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself

DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
    "BF16": "bfloat16",
}


def read_safetensors(path: Path) -> Tensors:
    """All tensors of one file, read when asked for.

    Errors: CheckpointError for a file that is truncated, empty, or whose header is too long, no JSON, or names
    dtypes, shapes and places that do not fit each other or the file.
    """
    file = FileBytes(path)
    header, start = _read_header(path, file.size)
    if not isinstance(header.pop("__metadata__", {}), dict):
        raise _broken(path, "its metadata is not a JSON object")
    places = {name: _place(path, name, row) for name, row in header.items()}
    _check_cover(path, places, file.size - start)
    return Tensors({name: _entry(file, start, place) for name, place in places.items()})


def read_metadata(path: Path) -> dict[str, str]:
    """What a file says of itself beside its tensors. Errors: CheckpointError for a header that cannot be read."""
    header, _ = _read_header(path, path.stat().st_size)
    about = header.get("__metadata__", {})
    if not isinstance(about, dict):
        raise _broken(path, "its metadata is not a JSON object")
    return about


def _broken(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a sound safetensors file: {what}. Fetch or save it again.")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in it")
    return found


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The parsed header, and where the tensors' bytes begin."""
    with open(path, "rb") as file:
        length_bytes = file.read(8)
        if len(length_bytes) < 8:
            raise _broken(path, f"it has {size} bytes, fewer than the 8 that it begins with")
        (length,) = struct.unpack("<Q", length_bytes)
        if length > min(LONGEST_HEADER, size - 8):
            raise _broken(path, f"its header claims {length} bytes of a file of {size}")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not JSON ({str(error)[:80]})") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    return header, 8 + length


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**60


def _is_shape(sizes: list[Any]) -> bool:
    """Sizes that numpy can hold: it multiplies them up even where one of them is 0."""
    return len(sizes) <= 32 and all(map(_is_count, sizes)) and math.prod(size or 1 for size in sizes) < 2**60


def _place(path: Path, name: str, row: Any) -> tuple[str, tuple[int, ...], int, int]:
    """One row of the header, checked in itself: dtype, shape, begin, end."""
    if not isinstance(row, dict):
        raise _broken(
            path, f"tensor '{name}' is described by {str(row)[:40]!r}, expected dtype, shape and data_offsets"
        )
    dtype, shape, span = row.get("dtype"), row.get("shape"), row.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _broken(path, f"tensor '{name}' has the dtype {str(dtype)[:40]!r}, expected one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not _is_shape(shape):
        raise _broken(path, f"tensor '{name}' has the shape {str(shape)[:80]}, expected a list of sizes")
    if not isinstance(span, list) or len(span) != 2 or not all(map(_is_count, span)):
        raise _broken(path, f"tensor '{name}' has the offsets {str(span)[:80]}, expected [begin, end]")
    needed = math.prod(shape) * _dtype(dtype).itemsize
    if span[1] - span[0] != needed:
        raise _broken(path, f"tensor '{name}' needs {needed} bytes and is given {span[1] - span[0]}")
    return dtype, tuple(shape), span[0], span[1]


def _check_cover(path: Path, places: dict[str, tuple[str, tuple[int, ...], int, int]], room: int) -> None:
    """The tensors follow each other from the first byte to the last: nothing outside, twice or between."""
    end = 0
    for name, (_, _, start, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
        if start != end:
            raise _broken(path, f"tensor '{name}' begins at byte {start}, expected {end}")
        end = stop
    if end != room:
        raise _broken(path, f"its tensors take {end} bytes and the file holds {room}")


def _dtype(name: str) -> np.dtype:
    return bfloat16() if name == "BF16" else np.dtype(DTYPES[name])


def _entry(file: FileBytes, start: int, place: tuple[str, tuple[int, ...], int, int]) -> Entry:
    dtype, shape, begin, _ = place
    return file.entry(start + begin, shape, _dtype(dtype))
