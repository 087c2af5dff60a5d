"""Named arrays that lie in files, each read when it is asked for.

Reading one array at a time, with ``read`` and not through a memory map, keeps the peak at the
model's own weights and the largest array: pages of a map count as memory of the process for as long
as the file is open.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tf_groupvit.errors import CheckpointError

LONGEST_NAME = 500  # letters of a tensor's name: it goes into messages of one line


@dataclass(frozen=True)
class Entry:
    """One array that has not been read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def map(self, shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray]) -> "Entry":
        """The same array, changed by ``change`` to ``shape`` once it is read."""
        return replace(self, shape=shape, read=lambda: change(self.read()))

    @classmethod
    def of(cls, array: np.ndarray) -> "Entry":
        """An array in memory, of any shape; each read gives a copy, as from a file."""
        return cls(array.shape, array.dtype, array.copy)


class Tensors(Mapping[str, np.ndarray]):
    """Named arrays: ``tensors[name]`` reads, ``tensors.entry(name)`` has shape and dtype unread.

    ``notes`` are remarks for the user on what was read.
    """

    def __init__(self, entries: Mapping[str, Entry], notes: tuple[str, ...] = ()) -> None:
        self._entries = dict(entries)
        self.notes = notes

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> "Tensors":
        """Any mapping of arrays, each of any shape, as Tensors; Tensors as they are."""
        if isinstance(tensors, cls):
            return tensors
        return cls({name: Entry.of(array) for name, array in tensors.items()})

    def entry(self, name: str) -> Entry:
        """One array, not read."""
        return self._entries[name]

    def entries(self) -> dict[str, Entry]:
        """All arrays by name, not read."""
        return dict(self._entries)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: entry.shape for name, entry in self._entries.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._entries[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # Mapping's own would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def collect(renamed: Iterable[tuple[str, Entry]]) -> dict[str, Entry]:
    """Entries by their new names. Errors: CheckpointError where two have the same name."""
    entries: dict[str, Entry] = {}
    for name, entry in renamed:
        if name in entries:
            raise CheckpointError(
                f"Two tensors of the file are both '{name}': expected one, save the weights again."
            )
        entries[name] = entry
    return entries


class FileBytes:
    """Byte ranges of one file, which must stay as it was when it was first opened.

    Errors of all methods: CheckpointError for a file that cannot be read, changed or is too short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size, self._changed = self._stat()

    def _stat(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except OSError as error:
            raise CheckpointError(f"Cannot read {self.path}: {error.strerror or error}.") from error
        return found.st_size, found.st_mtime_ns

    def bytes(self, offset: int, most: int) -> bytes:
        """At most ``most`` bytes from ``offset`` on, fewer where the file ends before."""
        count = max(min(most, self.size - offset), 0)
        return self.read(offset, count, np.dtype("u1")).tobytes()

    def read(self, offset: int, count: int, dtype: np.dtype) -> np.ndarray:
        """``count`` elements, of shape (count,), from byte ``offset`` on."""
        flat = np.empty(count, dtype)
        if not flat.nbytes:
            return flat
        if self._stat() != (self.size, self._changed):
            raise CheckpointError(f"{self.path} changed while it was being read: load it again.")
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(offset)
                room = flat.view(np.uint8).data
                while room:  # one read gives at most 2 GB on Linux
                    got = file.readinto(room)
                    if not got:
                        raise CheckpointError(
                            f"{self.path} ends in the middle of a tensor: fetch it again."
                        )
                    room = room[got:]
        except OSError as error:
            raise CheckpointError(f"Cannot read {self.path}: {error.strerror or error}.") from error
        return flat

    def entry(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Entry:
        """A dense array of ``shape``, row by row, from byte ``offset`` on."""
        count = math.prod(shape)
        return Entry(shape, dtype, lambda: self.read(offset, count, dtype).reshape(shape))


def dtype_of(name: str) -> np.dtype:
    """NumPy's dtype of that name, or one that ml_dtypes adds: bfloat16 and the kinds of float8."""
    if not name.startswith(("bfloat", "float8")):
        return np.dtype(name)
    import ml_dtypes  # comes with TensorFlow and Keras; most files do without

    kind: type = getattr(ml_dtypes, name)
    return np.dtype(kind)
