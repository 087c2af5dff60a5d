"""An index of shards in, the tensors of all of them out as one.

An index comes with the weights, from somebody else, so what it says is checked: a shard is a bare file name beside the
index. A shard may be a link only to a file in the same folder, or, as in the cache of huggingface_hub
(``.../snapshots/<revision>/shard -> ../../blobs/<hash>``), to one in the ``blobs`` beside ``snapshots``.
"""

import json
from collections.abc import Callable
from pathlib import Path

from tf_groupvit.checkpoints.tensors import Entry, Tensors
from tf_groupvit.errors import CheckpointError
from tf_groupvit.hub import refuse_pointer

LONGEST_INDEX = 2**26  # bytes; the full model's has 40,000


def read_shards(index: Path, read: Callable[[Path], Tensors], suffix: str) -> Tensors:
    """All tensors that ``index`` names, each from the shard that it names; ``read`` reads one shard.

    Errors: CheckpointError for an index that is broken or names a file outside its folder, a shard that is missing or
    lacks a tensor, and a tensor that stands in two shards.
    """
    weight_map = _weight_map(index)
    shards = {name: read(_shard(index, name, suffix)) for name in sorted(set(weight_map.values()))}
    entries: dict[str, Entry] = {}
    for shard, tensors in shards.items():
        twice = sorted(entries.keys() & set(tensors))
        if twice:
            raise CheckpointError(
                f"{index}: tensor '{twice[0]}' stands in two shards, '{shard}' is the second: fetch them again."
            )
        entries |= tensors.entries()
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise CheckpointError(f"{index}: tensor '{name}' is not in its shard '{shard}': fetch the shards again.")
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
    if not isinstance(found, dict) or not found or not all(isinstance(shard, str) for shard in found.values()):
        raise CheckpointError(f"{index}: 'weight_map' is not a table of tensor names and file names: fetch it again.")
    return found


def _shard(index: Path, name: str, suffix: str) -> Path:
    """The path of one shard, which must lie where the index may point."""
    bare = (
        name.isprintable() and not set(name) & set("/\\:") and name.endswith(suffix) and name.strip(".") != suffix[1:]
    )
    if not bare:
        raise CheckpointError(
            f"{index} names the shard {name[:120]!r}: expected a bare file name ending in {suffix}; "
            "nothing outside the folder is read."
        )
    path = index.parent / name
    if not path.is_file():
        raise CheckpointError(f"{index}: shard '{name}' is not there: fetch it too.")
    folder = index.parent.resolve()
    allowed = [folder, folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else [folder]
    if path.resolve().parent not in allowed:
        raise CheckpointError(
            f"{index}: shard '{name}' is a link to a file outside its folder: put the file itself there."
        )
    return path
