"""The tf_model.h5 of transformers' TensorFlow classes: its weights by the names in the file.

The file holds one dataset for each weight, at its Keras 2 name:
``groupvit/tf_group_vi_t_model/.../kernel:0``. Its attributes repeat those names; the datasets are
taken as they are found, so the attributes may be missing or cut.
"""

from pathlib import Path
from typing import Any

from tf_groupvit.checkpoints.tensors import LONGEST_NAME, Entry, FileBytes, Tensors
from tf_groupvit.errors import CheckpointError, one_line

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_hdf5(path: Path) -> Tensors:
    """All datasets of numbers in the file, read when asked for.

    Errors: CheckpointError for a file that is truncated or damaged, holds no weights, or points to
        data that is not in it.
    """
    import h5py  # 0.1 s, and only for this format

    file = FileBytes(path)
    if file.bytes(0, len(SIGNATURE)) != SIGNATURE:
        raise CheckpointError(
            f"{path} is not an HDF5 file: expected its signature, fetch the file again."
        )
    entries: dict[str, Entry] = {}

    def visit(name: str | bytes, node: Any) -> None:
        # The library walks through groups in groups, with names that grow with their depth.
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            raise CheckpointError(f"{path} holds a name that no weight has: fetch it again.")
        if isinstance(node, h5py.Dataset):
            entries[name] = _entry(file, name, node)

    try:
        with h5py.File(path, "r") as opened:
            opened.visititems(visit)
    except CheckpointError:
        raise
    except Exception as error:  # h5py turns every error of the C library into one of six kinds
        raise CheckpointError(
            f"{path} is not a sound HDF5 file ({one_line(error, 120)}): fetch it again."
        ) from error
    if not entries:
        raise CheckpointError(
            f"{path} holds no weights: expected a tf_model.h5 of transformers' TensorFlow class."
        )
    return Tensors(entries)


def _entry(file: FileBytes, name: str, dataset: Any) -> Entry:
    """Where one dataset's numbers lie, to be read without the C library.

    Keras writes them in one piece.
    """
    whose, shape, dtype = f"{file.path}: '{name[:120]}'", dataset.shape, dataset.dtype
    if shape is None or dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise CheckpointError(f"{whose} holds {dtype} values, expected numbers.")
    if dataset.external or dataset.is_virtual:
        raise CheckpointError(f"{whose} keeps its data in another file, which is not read.")
    offset, needed = dataset.id.get_offset(), dataset.size * dtype.itemsize
    stored = dataset.id.get_storage_size()
    if needed and offset is None and dataset.chunks is None and stored == needed:
        return Entry.of(dataset[()])  # a few bytes, kept in the dataset's header
    if needed and (offset is None or stored != needed or offset + needed > file.size):
        raise CheckpointError(
            f"{whose} is compressed or cut short: expected {needed} bytes in one piece, as Keras"
            " writes them."
        )
    return file.entry(offset or 0, tuple(shape), dtype)
