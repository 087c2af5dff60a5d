"""Safetensors files: the safetensors library checks a file, and each tensor is read when it is
asked for.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tf_groupvit.checkpoints.tensors import Entry, FileBytes, Tensors, dtype_of
from tf_groupvit.errors import CheckpointError

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
    with _opened(path):
        length = int(file.read(0, 1, np.dtype("<u8"))[0])
        text = file.read(8, length, np.dtype("u1")).tobytes().decode()
    try:
        header = json.loads(text, object_pairs_hook=_without_twins)
        header.pop("__metadata__", None)
        return Tensors({name: _entry(file, 8 + length, name, row) for name, row in header.items()})
    except (
        ValueError,
        TypeError,
        RecursionError,
    ) as error:  # the library takes more than is read here
        raise _broken(path, f"its header is not in the usual form, {error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a file says of itself beside its tensors. Errors: CheckpointError for a file that cannot
    be read.
    """
    with _opened(path) as opened:
        return opened.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file as the library opens it: the header fits the bytes, and the tensors cover each of
    them once.
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
    reason = "".join(filter(str.isprintable, " ".join(what.split())))[
        :160
    ]  # it may hold names of the file
    return CheckpointError(
        f"{path} is not a sound safetensors file: {reason}. Fetch or save it again."
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
    np.broadcast_to(
        np.zeros((), dtype), shape
    )  # refuses a shape that NumPy cannot hold, and takes no memory
    return file.entry(start + begin, shape, dtype)
