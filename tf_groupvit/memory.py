"""Nothing in; freed memory that stays with this process, instead of going back to the system after every step, out."""

import ctypes
import sys

# Of glibc's malloc.h: how much free memory is handed back, and how large a block is one of its own, given back at once.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, for the next step to use: True where that could be done, which is under glibc.

    A step over a batch frees some hundred megabytes, and gets them anew page by page at the next one. The process then
    stays as large as it has been at most. For the whole process: a program decides that, the package never unasked.
    Measured on two cores: `tf-groupvit train --recipe demo` spends 8 s in the system instead of 20 in 40 steps; the
    full-size image tower at batch 32 takes some 0.10 s an image instead of 0.12, and 5% more memory at most.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, NEVER)) and bool(mallopt(M_MMAP_MAX, 0))
