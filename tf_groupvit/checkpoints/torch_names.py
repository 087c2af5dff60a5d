"""The names that a PyTorch checkpoint may use in, inert values out: tensors as places, plain
containers, stand-ins.

Three tables say everything: what may be called (CALLS), what is only ever mentioned (MENTIONED),
the storages (STORAGES). Any other name is refused where it is first read, before anything else of
the file is looked at.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_groupvit.checkpoints.opcodes import Inert, Name, dict_of, key
from tf_groupvit.checkpoints.tensors import dtype_of
from tf_groupvit.errors import CheckpointError

# Class of a storage -> numpy's name of its elements.
STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}

# Only mentioned, never called with effect: types in annotations (OmegaConf keeps those), devices,
# dtypes, and what Lightning and command lines keep settings in.
MENTIONED = re.compile(
    r"omegaconf(\.\w+)+|argparse\.Namespace|pathlib\.(Pure)?(Posix|Windows)?Path|pathlib\._local\.PosixPath"
    r"|(pytorch_lightning|lightning\.pytorch)\.utilities\.parsing\.AttributeDict"
    r"|(lightning_fabric|lightning\.fabric)\.utilities\.data\.AttributeDict|typing\.Any|torch\.(device|Tensor|nn\.parameter\.Parameter|u?int\d+|b?float\d+|bfloat16|bool)"
    r"|(builtins|__builtin__)\.(int|long|float|bool|str|unicode|complex|object|NoneType)"
)


@dataclass(frozen=True)
class Storage:
    """A run of elements somewhere in the file: ``count`` of them in all, the tensor's own from
    ``start`` on.
    """

    key: str
    dtype: np.dtype
    count: int
    start: int = 0


@dataclass(frozen=True)
class Place:
    """A tensor as the pickle tells it: a storage, and how to walk through it. Nothing is checked
    yet.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Dtype:
    """numpy.dtype of a scalar: ``f8``, and the byte order that its state brings later."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[fiu][1248]|b1", code):
            raise ValueError("a number of numpy has an unknown dtype")
        self.code = code

    def set_order(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.code = state[1] + self.code.lstrip("<>")

    def scalar(self, data: bytes) -> np.generic:
        return np.frombuffer(data, np.dtype(self.code), 1)[0]


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Place:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor has no storage")
    if len(shape) > 32:
        raise ValueError("a tensor has too many dimensions")
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(
        strides
    ):
        raise ValueError("a tensor has an impossible shape")
    return Place(storage, offset, tuple(shape), tuple(strides))


def _tensor(data: Any, *_: Any) -> Place:
    if not isinstance(data, Place):
        raise TypeError("a parameter holds no tensor")
    return data


def _rebuild_subclass(rebuild: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    """A tensor with attributes of its own: the attributes are let go."""
    if str(rebuild) not in REBUILDS:
        raise TypeError("a tensor is rebuilt in an unknown way")
    return REBUILDS[str(rebuild)](*arguments)


def _encode(text: Any, code: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes: as text, one letter a byte."""
    if not isinstance(text, str) or code not in ("latin1", "latin-1"):
        raise ValueError("bytes are written in an unknown way")
    return text.encode("latin-1")


def _scalar(dtype: Any, data: Any) -> np.generic:
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes):
        raise TypeError("a number of numpy is broken")
    return dtype.scalar(data)


def _pairs(pairs: Any = ()) -> dict[Any, Any]:
    return (
        dict(pairs)
        if isinstance(pairs, dict)
        else dict_of([part for pair in pairs for part in pair])
    )


def _keys(values: Any = ()) -> list[Any]:
    return [key(value) for value in values]


REBUILDS: dict[str, Callable[..., Place]] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_parameter": _tensor,
    "torch._utils._rebuild_parameter_with_state": _tensor,
}
CALLS: dict[str, Callable[..., Any]] = {
    **REBUILDS,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": lambda _factory=None, pairs=(): _pairs(pairs),
    "numpy.dtype": Dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
}
for _module in ("builtins.", "__builtin__."):
    CALLS |= {
        _module + "dict": _pairs,
        _module + "list": lambda values=(): list(values),
        _module + "tuple": lambda values=(): tuple(values),
        _module + "set": lambda values=(): set(_keys(values)),
        _module + "frozenset": lambda values=(): frozenset(_keys(values)),
        _module + "bytes": lambda: b"",
    }


# values given to all calls together: a list that is remembered can be copied at no cost
MOST_ARGUMENTS = 10_000_000


class TorchAnswers:
    """What the names in the pickles of one PyTorch file mean; ``storages`` are those it has asked
    for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.given = 0
        self.storages: dict[str, Storage] = {}

    def name(self, name: Name) -> Name | Inert:
        if str(name) in CALLS or str(name) in STORAGES:
            return name
        if MENTIONED.fullmatch(str(name)):
            return Inert(str(name))
        raise CheckpointError(
            f"{self.path} asks for '{str(name)[:120]}', which no checkpoint of GroupViT needs: "
            "nothing of the file was run. Convert it to safetensors where you trust it."
        )

    def call(self, called: Any, arguments: tuple) -> Any:
        self.given += len(arguments) + sum(
            len(part) for part in arguments if hasattr(part, "__len__")
        )
        if self.given > MOST_ARGUMENTS:
            raise ValueError("its calls are given more than any checkpoint holds")
        if isinstance(called, Inert):
            return Inert(called.name)
        if not isinstance(called, Name) or str(called) not in CALLS:
            raise TypeError("something is called that is no function")
        return CALLS[str(called)](*arguments)

    def state(self, value: Any, state: Any) -> None:
        """Only a numpy dtype has a use for it; PyTorch's OrderedDict brings the versions of its
        modules.
        """
        if isinstance(value, Dtype):
            value.set_order(state)
        elif not isinstance(value, (dict, Inert)):
            raise TypeError(f"a {type(value).__name__} is given a state")

    def stored(self, key: Any) -> Storage:
        """``("storage", type, key, device, count[, view])``. Source: torch.serialization, in both
        formats.
        """
        kind, type_name, name, _device, count, *view = key
        if (
            kind != "storage"
            or str(type_name) not in STORAGES
            or not isinstance(name, str)
            or not _is_count(count)
        ):
            raise ValueError("a storage is described in an unknown way")
        dtype = dtype_of(STORAGES[str(type_name)])
        storage = Storage(name, dtype, count)
        if self.storages.setdefault(name, storage) != storage:
            raise ValueError("a storage is described in two ways")
        return _part(storage, view[0]) if view and view[0] is not None else storage


def _part(storage: Storage, view: Any) -> Storage:
    """The legacy format's view: (key of the view, first element, number of elements)."""
    _, start, count = view
    if not _is_count(start) or not _is_count(count) or start + count > storage.count:
        raise ValueError("a view reaches past its storage")
    return Storage(storage.key, storage.dtype, storage.count, start)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**60
