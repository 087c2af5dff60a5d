"""Freed memory stays with the process: what counts is how often the system is asked for pages."""

import ctypes
import gc
import os
import subprocess
import sys
import weakref

import pytest

from tf_groupvit.memory import Growth, nothing_old_to_collect, nothing_to_collect

# Takes and frees 64 MiB ten times, and prints the page faults that the last nine of them cost.
FAULTS = """
import resource
import numpy as np
from tf_groupvit.memory import Growth, keep_freed_memory
KEEP
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)
before = faults()
for _ in range(9): np.ones(2**23)
print(faults() - before)
"""


# Has two threads for each CPU, and one more, take memory at once, and prints malloc's account of it.
POOLS = """
import ctypes, os, threading
from tf_groupvit.memory import share_pools
SHARE
count = 2 * os.cpu_count() + 1
libc, ready = ctypes.CDLL(None), threading.Barrier(count)
libc.malloc.restype = ctypes.c_void_p
def take(): assert libc.malloc(ctypes.c_size_t(100)) and ready.wait(10) >= 0
threads = [threading.Thread(target=take) for _ in range(count)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def faults(keep: str) -> int:
    return int(printed(FAULTS.replace("KEEP", keep)))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is asked, which is Linux'")
def test_memory_that_is_kept_costs_no_more_page_faults():
    usual = faults("")
    if usual < 100:
        pytest.skip("this malloc keeps freed memory unasked")
    assert faults("assert keep_freed_memory()") < usual / 20


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="it is glibc's")
def test_threads_share_a_pool_of_memory_for_each_cpu():
    usual, shared = (
        printed(POOLS.replace("SHARE", "")),
        printed(POOLS.replace("SHARE", "assert share_pools()")),
    )
    assert shared.count("<heap nr=") <= (os.cpu_count() or 1) < usual.count("<heap nr=")


def test_where_there_is_no_glibc_nothing_is_done(monkeypatch):
    from tf_groupvit import memory

    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False and memory.share_pools() is False


def test_memory_is_given_back_when_the_process_has_grown_since_that_last_helped():
    sizes, calls = [100], []
    growth = Growth(
        most=50,
        resident=lambda: sizes[-1],
        give_back=lambda: [calls.append(sizes[-1]), sizes.append(120)],
    )
    for size, so_far in (
        (150, []),
        (151, [151]),
        (170, [151]),
        (60, [151]),
        (110, [151]),
        (111, [151, 111]),
    ):
        sizes.append(size)
        growth.look()
        assert calls == so_far


def test_garbage_is_looked_for_again_afterwards_where_it_was_before():
    assert gc.isenabled()
    with pytest.raises(KeyError), nothing_to_collect():
        assert not gc.isenabled()
        with nothing_to_collect():
            pass
        assert not gc.isenabled()  # the inner one leaves it as it was
        raise KeyError
    assert gc.isenabled()


@pytest.mark.parametrize("for_good", [False, True])
def test_what_is_made_for_good_is_as_old_as_can_be_and_not_frozen(nothing_frozen, for_good):
    with nothing_to_collect(for_good):
        made = [[]]
    old = any(one is made for one in gc.get_objects(generation=2))
    assert old == for_good and not gc.get_freeze_count()


def test_what_a_program_froze_stays_frozen():
    gc.freeze()
    with nothing_to_collect(for_good=True):
        pass
    assert gc.get_freeze_count()


def test_what_is_older_is_not_looked_through_and_what_is_new_is_collected(nothing_frozen):
    with nothing_old_to_collect():
        assert gc.get_freeze_count()
        with nothing_old_to_collect():
            pass
        assert gc.get_freeze_count()  # the inner one leaves it as it was
        cycle = type("Cycle", (), {})()
        cycle.itself, gone = cycle, weakref.ref(cycle)
        del cycle
        gc.collect()
        assert gone() is None
    assert not gc.get_freeze_count()
