"""Small files for the tests of this folder: safetensors written by hand, torch files written byte
by byte.
"""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "checkpoints"


def reference() -> dict[str, np.ndarray]:
    """The golden model's 214 arrays, as the safetensors library reads transformers' own file."""
    return load_file(GOLDEN / "transformers" / "model.safetensors")


def safetensors(rows, data=b"", header=None, length=None) -> bytes:
    """A file with this header (a dict, or bytes as they are) in front of these data."""
    text = json.dumps(rows).encode() if header is None else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def row(dtype="F32", shape=(2,), span=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}


def torch_zip(pickled: bytes, records=None, order="little", **options) -> bytes:
    """A file of torch.save since 1.6: a zip with data.pkl and one record for each storage."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", order)
        for key, data in (records or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return held.getvalue()


class Global:
    """Pickles as a bare name: ``Global("torch", "FloatStorage")``."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a name with arguments, and a state where there is one."""

    def __init__(self, called, *arguments, state=None):
        self.called, self.arguments, self.state = called, arguments, state


class Stored:
    """Pickles as a storage: class, key, number of elements."""

    def __init__(self, kind, key, count, view=()):
        self.id = ("storage", Global("torch", kind), key, "cpu", count, *view)


PythonPickler: Any = pickle._Pickler


class Writer(PythonPickler):
    """Python's pickler in Python, so that names can be written that nothing on this machine bears."""

    dispatch = dict(PythonPickler.dispatch)

    def persistent_id(self, value):
        return value.id if isinstance(value, Stored) else None

    def write_global(self, value):
        self.write(b"c" + f"{value.module}\n{value.name}\n".encode())

    def write_call(self, value):
        self.save(value.called)
        self.save(value.arguments)
        self.write(pickle.REDUCE)
        if value.state is not None:
            self.save(value.state)
            self.write(pickle.BUILD)

    dispatch[Global] = write_global
    dispatch[Call] = write_call


def pickled(value, protocol=2) -> bytes:
    held = io.BytesIO()
    Writer(held, protocol).dump(value)
    return held.getvalue()


def tensor(
    kind="FloatStorage", key="0", count=4, offset=0, shape=(4,), strides=(1,), view=()
) -> Call:
    """A tensor as torch pickles it."""
    hooks = Call(Global("collections", "OrderedDict"))
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, Stored(kind, key, count, view), offset, shape, strides, False, hooks)


FACTS = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}


def torch_legacy(
    value, storages: dict[str, tuple[int, bytes]], facts: bytes = pickled(FACTS)
) -> bytes:
    """A file of torch.save before 1.6: five pickles, then each storage behind its number of
    elements.
    """
    head = [
        pickled(0x1950A86A20F9469CFC6C),
        pickled(1001),
        facts,
        pickled(value),
        pickled(list(storages)),
    ]
    return b"".join(head + [struct.pack("<q", count) + data for count, data in storages.values()])
