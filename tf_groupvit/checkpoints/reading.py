"""Weights in a folder or a file of any format, as named arrays in transformers' PyTorch layout.

To add a format: a row in FORMATS, the function that it names, and in ``hub.WEIGHTS`` the name that
its file has in a folder.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tf_groupvit.checkpoints.hdf5 import read_hdf5
from tf_groupvit.checkpoints.names import from_original, from_tensorflow, is_original
from tf_groupvit.checkpoints.safetensors_file import read_safetensors
from tf_groupvit.checkpoints.tensors import LONGEST_NAME, Entry, Tensors
from tf_groupvit.checkpoints.torch_file import read_torch
from tf_groupvit.checkpoints.wrappers import unwrap
from tf_groupvit.errors import CheckpointError
from tf_groupvit.files import read_json, refuse_pointer
from tf_groupvit.hub import INDEX, WEIGHTS


@dataclass(frozen=True)
class Format:
    """A format of files of weights: what their names end in, and how one file is read."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Tensors]


FORMATS = (
    Format("safetensors", (".safetensors",), read_safetensors),
    Format("h5", (".h5",), read_hdf5),
    Format("pickle", (".bin", ".pth", ".pth.tar", ".pt", ".ckpt"), read_torch),
)


@dataclass(frozen=True)
class Checkpoint:
    """The arrays that were read, what they were read from, and notes for the user."""

    tensors: Tensors
    source: Path
    format: str
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The weights in a folder or a file, in transformers' PyTorch layout, read when asked for.

    ``format`` is that of the file: "safetensors", "safetensors shards", "h5", "pickle" or "pickle
    shards", with ", original" after it where the names were those of the original repository.
    Prefixes of wrappers are removed from the names, and a state dict is taken out of the container
    that it is in; ``notes`` say so. Errors: CheckpointError for a path without weights, for every
    file that is not sound or not safe, for one that holds several models, and for LoRA weights that
    are not merged.
    """
    source = _source(Path(path).expanduser())
    format_, shards = _format_of(source)
    try:
        found = _read_shards(source, format_) if shards else _read_file(source, format_)
    except OSError as error:
        raise CheckpointError(f"Cannot read {source}: {error.strerror or error}.") from error
    for name in found:
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise CheckpointError(
                f"{source} holds a tensor with the name {name[:80]!r}: expected plain words and"
                " dots."
            )
    label, notes = format_.name + " shards" * shards, found.notes
    found, removed = unwrap(source, found)
    if is_original(found):
        found, dropped = from_original(found)
        return Checkpoint(found, source, f"{label}, original", notes + removed + dropped)
    return Checkpoint(from_tensorflow(found), source, label, notes + removed)


def _source(path: Path) -> Path:
    """The file to read: the path itself, or the first of hub.WEIGHTS in that folder."""
    if not path.exists():
        raise CheckpointError(
            f"{path} is not there: expected a folder with weights, or a file of them."
        )
    if not path.is_dir():
        return path
    there = [path / name for name in WEIGHTS if (path / name).is_file()]
    if there:
        return there[0]
    if (path / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{path} holds an adapter of PEFT alone: merge it into its model with"
            " merge_and_unload(), save what that returns, and give that."
        )
    suffixes = tuple(suffix for row in FORMATS for suffix in row.suffixes)
    others = sorted(f.name for f in path.iterdir() if f.name.endswith(suffixes) and f.is_file())
    hint = f"; to read {others[0]}, name that file" if others else ""
    raise CheckpointError(f"{path} holds no weights: expected one of {', '.join(WEIGHTS)}{hint}.")


def _format_of(source: Path) -> tuple[Format, bool]:
    """The format by the file's name, and whether it is an index of shards."""
    name = source.name.removesuffix(INDEX)
    for row in FORMATS:
        if name.endswith(row.suffixes) and source.is_file():
            return row, name != source.name
    suffixes = [suffix for row in FORMATS for suffix in row.suffixes]
    raise CheckpointError(
        f"{source} is no file of weights: expected a name that ends in {', '.join(suffixes)}."
    )


def _read_file(path: Path, format_: Format) -> Tensors:
    refuse_pointer(path, CheckpointError)
    return format_.read(path)


# ---- Shards ----


def _read_shards(index: Path, format_: Format) -> Tensors:
    """All tensors that ``index`` names, each from the shard that it names.

    Errors: CheckpointError for an index that is broken or names a file outside its folder, a shard
        that is missing or lacks a tensor, and a tensor that stands in two shards.
    """
    weight_map = _weight_map(index)
    suffix = format_.suffixes[0]
    shards = {
        name: _read_file(_shard(index, name, suffix), format_)
        for name in sorted(set(weight_map.values()))
    }
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


def _weight_map(index: Path) -> Mapping[str, str]:
    """Name of each tensor -> name of its shard."""
    found = read_json(index, CheckpointError).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(
            f"{index} is not an index of shards: expected JSON with a 'weight_map', fetch it again."
        )
    if not all(isinstance(shard, str) for shard in found.values()):
        raise CheckpointError(
            f"{index}: 'weight_map' is not a table of tensor names and file names: fetch it again."
        )
    return found


def _shard(index: Path, name: str, suffix: str) -> Path:
    """The path of one shard, which the index may name only in its own folder.

    The index was written by somebody else, so a shard must be a bare file name; it may be a link
    only to a file in the same folder or, as in the cache of huggingface_hub
    (``.../snapshots/<revision>/shard -> ../../blobs/<hash>``), in the ``blobs`` next to
    ``snapshots``.
    """
    bare = name.isprintable() and not set(name) & set("/\\:") and name.endswith(suffix)
    if not bare or name.strip(".") == suffix[1:]:
        raise CheckpointError(
            f"{index} names the shard {name[:120]!r}: expected a bare file name ending in {suffix};"
            " nothing outside the folder is read."
        )
    path, folder = index.parent / name, index.parent.resolve()
    if not path.is_file():
        raise CheckpointError(f"{index}: shard '{name}' is not there: fetch it too.")
    blobs = [folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else []
    if path.resolve().parent not in [folder, *blobs]:
        raise CheckpointError(
            f"{index}: shard '{name}' is a link to a file outside its folder: put the file itself"
            " there."
        )
    return path
