"""A folder or a file of weights in whatever format in, named arrays in transformers' PyTorch layout out."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tf_groupvit.checkpoints import original
from tf_groupvit.checkpoints.hdf5 import read_hdf5
from tf_groupvit.checkpoints.names import checkpoint_shape, tensorflow_name, to_checkpoint_layout
from tf_groupvit.checkpoints.pickles import read_pickle
from tf_groupvit.checkpoints.safetensors_file import read_safetensors
from tf_groupvit.checkpoints.shards import read_shards
from tf_groupvit.checkpoints.tensors import Entry, Tensors, collect
from tf_groupvit.errors import CheckpointError


def _read_safetensors_shards(index: Path) -> Tensors:
    return read_shards(index, read_safetensors, ".safetensors")


def _read_pickle_shards(index: Path) -> Tensors:
    return read_shards(index, read_pickle, ".bin")


# What a folder may hold, the first that is there is read; and what a single file may end in.
FILES: dict[str, tuple[str, Callable[[Path], Tensors]]] = {
    "model.safetensors": ("safetensors", read_safetensors),
    "model.safetensors.index.json": ("safetensors shards", _read_safetensors_shards),
    "tf_model.h5": ("h5", read_hdf5),
    "pytorch_model.bin": ("pickle", read_pickle),
    "pytorch_model.bin.index.json": ("pickle shards", _read_pickle_shards),
}
SUFFIXES: dict[str, tuple[str, Callable[[Path], Tensors]]] = {
    ".safetensors.index.json": FILES["model.safetensors.index.json"],
    ".bin.index.json": FILES["pytorch_model.bin.index.json"],
    ".safetensors": FILES["model.safetensors"],
    ".h5": FILES["tf_model.h5"],
    ".bin": FILES["pytorch_model.bin"],
    ".pth": FILES["pytorch_model.bin"],
    ".pt": FILES["pytorch_model.bin"],
}


@dataclass(frozen=True)
class Checkpoint:
    """What was read: the arrays, what they came from, and remarks for the user, one line each."""

    tensors: Tensors
    source: Path
    format: str
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The weights in a folder, or in one file, under transformers' PyTorch names and layouts, read when asked for.

    ``format`` is that of the file: "safetensors", "safetensors shards", "h5", "pickle" or "pickle shards", with
    ", original" behind it where the names were those of the original repository. Errors: CheckpointError for a path
    without weights, and for every file that is not sound or not safe.
    """
    source, (format_name, read) = _find(Path(path).expanduser())
    _refuse_pointer(source)
    try:
        found = read(source)
    except OSError as error:
        raise CheckpointError(f"Cannot read {source}: {error.strerror or error}.") from error
    _check_names(source, found)
    if original.is_original(found):
        found, notes = original.from_original(found)
        return Checkpoint(found, source, f"{format_name}, original", notes)
    return Checkpoint(_from_tensorflow(found), source, format_name)


def _find(path: Path) -> tuple[Path, tuple[str, Callable[[Path], Tensors]]]:
    """The file to read, and how."""
    if path.is_dir():
        for name, how in FILES.items():
            if (path / name).is_file():
                return path / name, how
        raise CheckpointError(f"{path} holds no weights: expected one of {', '.join(FILES)}.")
    if not path.exists():
        raise CheckpointError(f"{path} is not there: expected a folder with weights, or a file of them.")
    for suffix, how in SUFFIXES.items():
        if path.name.endswith(suffix) and path.is_file():
            return path, how
    raise CheckpointError(f"{path} is no file of weights: expected a name that ends in {', '.join(SUFFIXES)}.")


def _refuse_pointer(path: Path) -> None:
    """A clone without git-lfs leaves a few lines of text in the place of each large file."""
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
    if start.startswith(b"version ") and b"git-lfs" in start:
        raise CheckpointError(f"{path} is a pointer of git-lfs, not the weights: run 'git lfs pull' in its folder.")


def _check_names(source: Path, tensors: Tensors) -> None:
    """Names go into messages of one line."""
    for name in tensors:
        if not name.isprintable() or len(name) > 500:
            raise CheckpointError(
                f"{source} holds a tensor with the name {name[:80]!r}: expected plain words and dots."
            )


def _from_tensorflow(tensors: Tensors) -> Tensors:
    """Names and layouts of transformers' TensorFlow class, known by their slashes, -> PyTorch's; others as they are."""
    return Tensors(collect(_renamed(name, entry) for name, entry in tensors.entries().items()))


def _renamed(name: str, entry: Entry) -> tuple[str, Entry]:
    if "/" not in name and ":" not in name:
        return name, entry
    shape = checkpoint_shape(entry.shape, name)
    return tensorflow_name(name), entry.map(shape, lambda array: to_checkpoint_layout(array, name))
