"""A restricted unpickler for PyTorch's files: nothing that they name is imported or called.

It makes tensors' places, plain containers and stand-ins.

Measured: Python's own Unpickler, restricted by ``find_class``, has no bounds. Nine bytes with a
large memo index take a gigabyte, and 60 bytes with nested tuples as a key take minutes. So the
opcodes are read by ``pickletools``, and interpreted here.
"""

import pickletools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from tf_groupvit.checkpoints.tensors import dtype_of
from tf_groupvit.errors import CheckpointError

# A stream can remember a value and use it again with every byte that follows, so what takes time
# or memory by size is bounded.
MOST_OPCODES = 1_000_000  # the full model's state dict has 15,000
MOST_ARGUMENTS = 10_000_000  # values given to all calls together
LONGEST_NAME = 500  # letters
LONGEST_KEY = 8  # parts of a tuple, each SIMPLE: hashing nested tuples may take forever
# Tuples of numbers can be chosen so that their hashes are equal, and a dict then compares each with
# all the others.
MOST_TUPLE_KEYS = 100  # of a dict
MOST_TUPLE_KEYS_SET = 1_000  # one after the other, in all dicts together
SIMPLE = (str, bytes, int, float, bool, type(None))

# Class of a storage -> NumPy's name of its elements.
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

# Names that a file may have and that have no effect: settings (OmegaConf, Lightning, command
# lines), NumPy's numbers, bytes and sets as protocol 2 writes them, types, devices.
MENTIONED = re.compile(
    r"omegaconf(\.\w+)+|argparse\.Namespace|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path"
    r"|(pytorch_lightning|lightning\.pytorch)\.utilities\.parsing\.AttributeDict"
    r"|(lightning_fabric|lightning\.fabric)\.utilities\.data\.AttributeDict|typing\.Any"
    r"|numpy\.(dtype|_?core\.multiarray\.scalar)|_codecs\.encode"
    r"|torch\.(device|Tensor|nn\.parameter\.Parameter|u?int\d+|b?float\d+|bool)"
    r"|(builtins|__builtin__)\.(int|long|float|bool|str|unicode|complex|object|NoneType|bytes"
    r"|dict|list|tuple|set|frozenset)"
)


@dataclass(frozen=True)
class Storage:
    """A run of ``count`` elements somewhere in the file; the tensor's own begin at ``start``."""

    key: str
    dtype: np.dtype
    count: int
    start: int = 0


@dataclass(frozen=True)
class Place:
    """A tensor as the pickle describes it. Whether it fits its storage is not checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Stub:
    """In place of a name, or of an object that is not loaded: what is done to it is ignored."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


# ---- What names do when they are called ----


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Place:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor has no storage")
    if len(shape) > 32 or len(shape) != len(strides):
        raise ValueError("a tensor has an impossible number of dimensions")
    if not all(map(_is_count, (offset, *shape, *strides))):
        raise ValueError("a tensor has an impossible shape")
    return Place(storage, offset, tuple(shape), tuple(strides))


def _parameter(data: Any, *_: Any) -> Place:
    if not isinstance(data, Place):
        raise TypeError("a parameter holds no tensor")
    return data


def _rebuild_subclass(rebuild: Any, _type: Any, arguments: Any, *_: Any) -> Place:
    """A tensor with attributes of its own, which are dropped."""
    if not isinstance(rebuild, Stub) or rebuild.name not in REBUILDS:
        raise TypeError("a tensor is rebuilt in an unknown way")
    return REBUILDS[rebuild.name](*arguments)


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    if isinstance(pairs, dict):
        return dict(pairs)
    return dict_of([part for name, value in pairs for part in (name, value)])


REBUILDS: dict[str, Callable[..., Place]] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
CALLS: dict[str, Callable[..., Any]] = {
    **REBUILDS,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch.Size": tuple,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda _factory=None, pairs=(): _dict(pairs),
}


def dict_of(parts: Sequence[Any]) -> dict[Any, Any]:
    """``[key, value, key, value]`` as a dict."""
    if len(parts) % 2:
        raise ValueError("a key has no value")
    if _tuples(parts[::2]) > MOST_TUPLE_KEYS:
        raise ValueError("a dict has more tuples as keys than any checkpoint's")
    return {_key(name): value for name, value in zip(parts[::2], parts[1::2], strict=True)}


def _key(value: Any) -> Any:
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) > LONGEST_KEY or not all(isinstance(part, (*SIMPLE, Stub)) for part in parts):
        raise TypeError(f"a {type(value).__name__} is used as a key")
    if any(isinstance(part, int) and abs(part) >= 2**64 for part in parts):
        raise ValueError("a number is too large to be a key")
    return value


def _tuples(values: Iterable[Any]) -> int:
    return sum(isinstance(value, tuple) for value in values)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**60


# ---- The interpreter ----

MARK = object()
ARGUMENT = set(  # opcodes that push their argument
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING"
    " UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Stub("set"),
    "MARK": lambda: MARK,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MARKED: dict[str, Callable[[list[Any]], Any]] = {  # of what lies above the last mark
    "TUPLE": tuple,
    "LIST": list,
    "DICT": dict_of,
    "FROZENSET": lambda _: Stub("frozenset"),
}
IGNORED = {"PROTO", "FRAME"}


class Unpickler:
    """Loads the pickles of one PyTorch file, in turn; ``storages`` are those that they name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.given = 0  # arguments of all calls
        self.tuple_keys = 0  # that were set in a dict
        self.storages: dict[str, Storage] = {}
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}  # a dict, so that a large index costs nothing

    def load(self, stream: IO[bytes]) -> Any:
        """The one value of a pickle; the stream is left behind its end.

        Errors: CheckpointError for a name that is not allowed; ValueError, TypeError, KeyError,
            IndexError and others for a stream that is broken or too large.
        """
        self.stack, self.memo = [], {}
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                return self._pop()
            if count > MOST_OPCODES:
                raise ValueError("it is longer than any checkpoint's")
            self._step(opcode.name, argument)
        raise ValueError("it has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in ARGUMENT:
            self.stack.append(argument)
        elif name in NEW:
            self.stack.append(NEW[name]())
        elif name in TUPLES:
            self.stack.append(tuple(self._pop(TUPLES[name])))
        elif name in MARKED:
            self.stack.append(MARKED[name](self._marked()))
        elif name in STEPS:
            STEPS[name](self, argument)
        elif name not in IGNORED:
            raise ValueError(f"it uses {name}, which no checkpoint needs")

    def _pop(self, count: int | None = None) -> Any:
        """The value on top, or the ``count`` values there, as a list."""
        size = 1 if count is None else count
        values = self.stack[-size:]
        if len(values) < size or any(value is MARK for value in values):
            raise IndexError("a value is missing")
        del self.stack[-size:]
        return values[0] if count is None else values

    def _top(self) -> Any:
        if self.stack[-1] is MARK:
            raise IndexError("a value is missing")
        return self.stack[-1]

    def _marked(self) -> list[Any]:
        """What lies above the last mark, taken away together with the mark."""
        found: list[Any] = []
        while (value := self.stack.pop()) is not MARK:
            found.append(value)
        return found[::-1]

    def _remember(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self._top()

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Stub):
            raise TypeError(f"something is appended to a {type(target).__name__}")

    def _update(self, parts: list[Any]) -> None:
        target = self._top()
        if isinstance(target, dict):
            added = dict_of(parts)
            self.tuple_keys += _tuples(added)
            if self.tuple_keys > MOST_TUPLE_KEYS_SET:
                raise ValueError("more tuples are keys than in any checkpoint")
            target.update(added)
        elif not isinstance(target, Stub):
            raise TypeError(f"something is set in a {type(target).__name__}")

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is not text")
        if len(module) + len(name) > LONGEST_NAME:
            raise ValueError("a name is longer than any name")
        whole = f"{module}.{name}"
        if whole not in CALLS and whole not in STORAGES and not MENTIONED.fullmatch(whole):
            raise CheckpointError(
                f"{self.path} asks for {whole[:120]!r}, which no checkpoint of GroupViT needs:"
                " nothing of the file was run. Convert it to safetensors where you trust it."
            )
        self.stack.append(Stub(whole))

    def _call(self) -> None:
        called, arguments = self._pop(2)
        if not isinstance(called, Stub) or not isinstance(arguments, tuple):
            raise TypeError("something is called that is no function")
        self.given += len(arguments)
        self.given += sum(len(part) for part in arguments if hasattr(part, "__len__"))
        if self.given > MOST_ARGUMENTS:
            raise ValueError("its calls are given more than any checkpoint holds")
        make = CALLS.get(called.name)
        self.stack.append(make(*arguments) if make else Stub(called.name))

    def _set_state(self) -> None:
        """States have no effect; PyTorch's OrderedDict has one, the versions of its modules."""
        self._pop()
        if not isinstance(self._top(), dict | Stub):
            raise TypeError(f"a {type(self._top()).__name__} is given a state")

    def _storage(self) -> None:
        """``("storage", type, key, device, count[, view])``. Source: torch.serialization."""
        key = self._pop()
        if not isinstance(key, tuple) or len(key) not in (5, 6):
            raise ValueError("a storage is described in an unknown way")
        kind, type_, name, _device, count, view = (*key, None)[:6]
        known = isinstance(type_, Stub) and type_.name in STORAGES
        if kind != "storage" or not known or not isinstance(name, str) or not _is_count(count):
            raise ValueError("a storage is described in an unknown way")
        storage = Storage(name, dtype_of(STORAGES[type_.name]), count)
        if self.storages.setdefault(name, storage) != storage:
            raise ValueError("a storage is described in two ways")
        self.stack.append(storage if view is None else _viewed(storage, view))


def _viewed(storage: Storage, view: Any) -> Storage:
    """The legacy format's view: (key of the view, first element, number of elements)."""
    _, start, count = view
    if not _is_count(start) or not _is_count(count) or start + count > storage.count:
        raise ValueError("a view reaches past its storage")
    return replace(storage, start=start)


STEPS: dict[str, Callable[[Unpickler, Any], None]] = {
    "PUT": Unpickler._remember,
    "BINPUT": Unpickler._remember,
    "LONG_BINPUT": Unpickler._remember,
    "MEMOIZE": Unpickler._remember,
    "GET": lambda self, index: self.stack.append(self.memo[index]),
    "BINGET": lambda self, index: self.stack.append(self.memo[index]),
    "LONG_BINGET": lambda self, index: self.stack.append(self.memo[index]),
    "APPEND": lambda self, _: self._extend(self._pop(1)),
    "APPENDS": lambda self, _: self._extend(self._marked()),
    "SETITEM": lambda self, _: self._update(self._pop(2)),
    "SETITEMS": lambda self, _: self._update(self._marked()),
    "ADDITEMS": lambda self, _: self._extend(self._marked()),
    "GLOBAL": lambda self, text: self._name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda self, _: self._name(*self._pop(2)),
    "REDUCE": lambda self, _: self._call(),
    "NEWOBJ": lambda self, _: self._call(),
    "BUILD": lambda self, _: self._set_state(),
    "BINPERSID": lambda self, _: self._storage(),
}
