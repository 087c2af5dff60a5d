"""Freed memory: kept by the process for its next step, or given back to the system now; and when
Python looks for more of it.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Of glibc's malloc.h: how much free memory is handed back, and how large a block is mapped by
# itself and given back at once.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
M_ARENA_MAX = -8  # how many pools threads take memory from; eight for each CPU unless it is set
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, for the next step to use: True where that is done, with glibc.

    A step over a batch frees some hundred megabytes, and would get them page by page again at the
    next one. The process then stays as large as it was at most. It changes the whole process, so a
    program decides that, and the package never does. Measured on two cores: `tf-groupvit train
    --recipe demo` spends 8 s in the system instead of 20 in 40 steps; the full-size image tower at
    batch 32 takes some 0.10 s an image instead of 0.12, and 5% more memory at most.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, NEVER)) and bool(mallopt(M_MMAP_MAX, 0))


@contextmanager
def nothing_to_collect(for_good: bool = False) -> Iterator[None]:
    """Inside, Python looks for no garbage cycles: little of what is made there is freed again.

    Importing TensorFlow, making a model and tracing it make a million objects, through which Python
    would look again and again. Measured: that is a fifth of the time of each.

    Args:
        for_good: everything made so far is taken for as old as can be, to be looked through last.
    """
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if for_good and not gc.get_freeze_count():
            gc.freeze()  # which makes it older than any, and
            gc.unfreeze()  # as old as the oldest, without a look at it
        if looks:
            gc.enable()


@contextmanager
def nothing_old_to_collect() -> Iterator[None]:
    """Inside, Python looks for garbage cycles among what is made there alone, also when asked to.

    Keras asks for each layer that it quantizes, and each look at all that TensorFlow and a model
    have made takes a quarter of a second.
    """
    if gc.get_freeze_count():  # what a program froze stays as it is
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def share_pools() -> bool:
    """Let malloc have a pool for each CPU at most: True where that is done, with glibc.

    Threads then leave fewer holes. Measured: 50 MiB less in a server whose default signature is
    warm, on two cores.
    """
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and bool(mallopt(M_ARENA_MAX, os.cpu_count() or 1))


def give_back_freed_memory() -> bool:
    """Hand what malloc holds unused back to the system: True where there was any, with glibc."""
    trim = _of_glibc("malloc_trim")
    return trim is not None and bool(trim(ctypes.c_size_t(0)))


def resident_bytes() -> int:
    """Memory that this process has now; 0 where the system does not say, as outside Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Growth:
    """Gives freed memory back when the process grew by ``most`` bytes since that last helped."""

    def __init__(
        self,
        most: int = 2**26,
        resident: Callable[[], int] = resident_bytes,
        give_back: Callable[[], object] = give_back_freed_memory,
    ) -> None:
        self._most, self._resident, self._give_back = most, resident, give_back
        self._least = resident()

    def look(self) -> None:
        """Compare, and give back where there may be something; for times of no work."""
        now = self._resident()
        if now > self._least + self._most:
            self._give_back()
            self._least = self._resident()
        else:
            self._least = min(self._least, now)


def _of_glibc(name: str) -> Any:
    """A function of glibc's malloc; None elsewhere: musl has none of them."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
