"""Threads that start again, and say so, when they end by an exception.

A thread that ended without a word would take polling, batches or a front with it, and the server
would seem well.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

_log = logging.getLogger("tf_groupvit.server")
PAUSE = 1.0  # seconds before a thread starts again
_LOW = 10  # a tenth of the time of a thread that does not step back


def step_back() -> None:
    """Leave the processors to other threads where they need them; only Linux has this for one."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW)


def lasting(name: str, run: Callable[[], None]) -> threading.Thread:
    """A daemon thread, not started, that ends when ``run`` returns."""

    def run_until_it_returns() -> None:
        while True:
            try:
                return run()
            except Exception:
                _log.exception(
                    "The thread %s ended by an exception; it starts again in %g s", name, PAUSE
                )
                time.sleep(PAUSE)

    return threading.Thread(target=run_until_it_returns, daemon=True, name=name)
