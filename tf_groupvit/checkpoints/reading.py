"""A folder or a file of weights of whatever format to named arrays in transformers' PyTorch layout,
shards included.

An index of shards comes with the weights, from somebody else, so what it says is checked: a shard
is a bare file name beside the index. A shard may be a link only to a file in the same folder, or,
as in the cache of huggingface_hub (``.../snapshots/<revision>/shard -> ../../blobs/<hash>``), to
one in the ``blobs`` beside ``snapshots``.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tf_groupvit.checkpoints import original, wrappers
from tf_groupvit.checkpoints.hdf5 import read_hdf5
from tf_groupvit.checkpoints.names import checkpoint_shape, tensorflow_name, to_checkpoint_layout
from tf_groupvit.checkpoints.pickles import read_pickle
from tf_groupvit.checkpoints.safetensors_file import read_safetensors
from tf_groupvit.checkpoints.tensors import Entry, Tensors, collect
from tf_groupvit.errors import CheckpointError
from tf_groupvit.files import refuse_pointer

LONGEST_INDEX = 2**26  # bytes; the full model's has 40,000


def read_shards(index: Path, read: Callable[[Path], Tensors], suffix: str) -> Tensors:
    """All tensors that ``index`` names, each from the shard that it names; ``read`` reads one
    shard.

    Errors: CheckpointError for an index that is broken or names a file outside its folder, a shard
        that is missing or lacks a tensor, and a tensor that stands in two shards.
    """
    weight_map = _weight_map(index)
    shards = {name: read(_shard(index, name, suffix)) for name in sorted(set(weight_map.values()))}
    entries: dict[str, Entry] = {}
    for shard, tensors in shards.items():
        twice = sorted(entries.keys() & set(tensors))
        if twice:
            raise CheckpointError(
                f"{index}: tensor '{twice[0]}' stands in two shards, '{shard}' is the second: fetch"
                " them again."
            )
        entries |= tensors.entries()
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise CheckpointError(
                f"{index}: tensor '{name}' is not in its shard '{shard}': fetch the shards again."
            )
    return Tensors(entries)


def _weight_map(index: Path) -> dict[str, str]:
    """Name of each tensor -> name of its shard."""
    refuse_pointer(index, CheckpointError)
    try:
        if index.stat().st_size > LONGEST_INDEX:
            raise ValueError("too long")
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except OSError as error:
        raise CheckpointError(f"Cannot read {index}: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is not an index of shards: expected JSON with a 'weight_map', fetch it again."
        ) from error
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(shard, str) for shard in found.values())
    ):
        raise CheckpointError(
            f"{index}: 'weight_map' is not a table of tensor names and file names: fetch it again."
        )
    return found


def _shard(index: Path, name: str, suffix: str) -> Path:
    """The path of one shard, which must lie where the index may point."""
    bare = (
        name.isprintable()
        and not set(name) & set("/\\:")
        and name.endswith(suffix)
        and name.strip(".") != suffix[1:]
    )
    if not bare:
        raise CheckpointError(
            f"{index} names the shard {name[:120]!r}: expected a bare file name ending in {suffix};"
            " nothing outside the folder is read."
        )
    path = index.parent / name
    if not path.is_file():
        raise CheckpointError(f"{index}: shard '{name}' is not there: fetch it too.")
    folder = index.parent.resolve()
    allowed = (
        [folder, folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else [folder]
    )
    if path.resolve().parent not in allowed:
        raise CheckpointError(
            f"{index}: shard '{name}' is a link to a file outside its folder: put the file itself"
            " there."
        )
    return path


def _real(read: Callable[[Path], Tensors]) -> Callable[[Path], Tensors]:
    """``read``, with a word of its own for a pointer of git-lfs."""

    def checked(path: Path) -> Tensors:
        refuse_pointer(path, CheckpointError)
        return read(path)

    return checked


_read_safetensors, _read_pickle, _read_hdf5 = map(_real, (read_safetensors, read_pickle, read_hdf5))


def _read_safetensors_shards(index: Path) -> Tensors:
    return read_shards(index, _read_safetensors, ".safetensors")


def _read_pickle_shards(index: Path) -> Tensors:
    return read_shards(index, _read_pickle, ".bin")


# What a folder may hold, the first that is there is read; and what a single file may end in.
FILES: dict[str, tuple[str, Callable[[Path], Tensors]]] = {
    "model.safetensors": ("safetensors", _read_safetensors),
    "model.safetensors.index.json": ("safetensors shards", _read_safetensors_shards),
    "tf_model.h5": ("h5", _read_hdf5),
    "pytorch_model.bin": ("pickle", _read_pickle),
    "pytorch_model.bin.index.json": ("pickle shards", _read_pickle_shards),
}
SUFFIXES: dict[str, tuple[str, Callable[[Path], Tensors]]] = {
    ".safetensors.index.json": FILES["model.safetensors.index.json"],
    ".bin.index.json": FILES["pytorch_model.bin.index.json"],
    ".safetensors": FILES["model.safetensors"],
    ".h5": FILES["tf_model.h5"],
    ".bin": FILES["pytorch_model.bin"],
    ".pth": FILES["pytorch_model.bin"],
    ".pth.tar": FILES["pytorch_model.bin"],
    ".pt": FILES["pytorch_model.bin"],
    ".ckpt": FILES["pytorch_model.bin"],
}


@dataclass(frozen=True)
class Checkpoint:
    """What was read: the arrays, what they came from, and remarks for the user, one line each."""

    tensors: Tensors
    source: Path
    format: str
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The weights in a folder, or in one file, under transformers' PyTorch names and layouts, read
    when asked for.

    ``format`` is that of the file: "safetensors", "safetensors shards", "h5", "pickle" or "pickle
    shards", with ", original" behind it where the names were those of the original repository.
    Prefixes of wrappers are removed from the names, and a state dict is taken out of the container
    that it is in; ``notes`` say so. Errors: CheckpointError for a path without weights, for every
    file that is not sound or not safe, for one that holds several models, and for LoRA weights that
    are not merged.
    """
    source, (format_name, read) = _find(Path(path).expanduser())
    try:
        found = read(source)
    except OSError as error:
        raise CheckpointError(f"Cannot read {source}: {error.strerror or error}.") from error
    _check_names(source, found)
    opened = found.notes
    found, removed = wrappers.unwrap(source, found)
    notes = opened + removed
    if original.is_original(found):
        found, more = original.from_original(found)
        return Checkpoint(found, source, f"{format_name}, original", notes + more)
    return Checkpoint(_from_tensorflow(found), source, format_name, notes)


def _find(path: Path) -> tuple[Path, tuple[str, Callable[[Path], Tensors]]]:
    """The file to read, and how."""
    if path.is_dir():
        for name, how in FILES.items():
            if (path / name).is_file():
                return path / name, how
        if (path / "adapter_config.json").is_file():
            raise CheckpointError(
                f"{path} holds an adapter of PEFT alone: merge it into its model with"
                " merge_and_unload(), save what that returns, and give that."
            )
        others = sorted(
            file.name
            for file in path.iterdir()
            if file.name.endswith(tuple(SUFFIXES)) and file.is_file()
        )
        hint = f"; to read {others[0]}, name that file" if others else ""
        raise CheckpointError(f"{path} holds no weights: expected one of {', '.join(FILES)}{hint}.")
    if not path.exists():
        raise CheckpointError(
            f"{path} is not there: expected a folder with weights, or a file of them."
        )
    for suffix, how in SUFFIXES.items():
        if path.name.endswith(suffix) and path.is_file():
            return path, how
    raise CheckpointError(
        f"{path} is no file of weights: expected a name that ends in {', '.join(SUFFIXES)}."
    )


def _check_names(source: Path, tensors: Tensors) -> None:
    """Names go into messages of one line."""
    for name in tensors:
        if not name.isprintable() or len(name) > 500:
            raise CheckpointError(
                f"{source} holds a tensor with the name {name[:80]!r}: expected plain words and"
                " dots."
            )


def _from_tensorflow(tensors: Tensors) -> Tensors:
    """Names and layouts of transformers' TensorFlow class, known by their slashes, -> PyTorch's;
    others as they are.
    """
    return Tensors(collect(_renamed(name, entry) for name, entry in tensors.entries().items()))


def _renamed(name: str, entry: Entry) -> tuple[str, Entry]:
    if "/" not in name and ":" not in name:
        return name, entry
    shape = checkpoint_shape(entry.shape, name)
    return tensorflow_name(name), entry.map(shape, lambda array: to_checkpoint_layout(array, name))
