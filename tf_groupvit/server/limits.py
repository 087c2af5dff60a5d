"""Pressure: requests in; at most so many running and so many waiting, the rest refused at once.

Both front ends share one gate, so that a server under five times its load keeps its memory and its latency. Waiting
requests are served first come, first served.
"""

import threading
import time
from collections import deque

from tf_groupvit.server.refusal import TIMED_OUT, Refusal


class Deadline:
    """A moment after which an answer is of no use; None is never."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds left. Raises Refusal when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise Refusal("DEADLINE_EXCEEDED", TIMED_OUT)
        return left


class Gate:
    """At most ``running`` requests at work and ``waiting`` behind them."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running, self.waiting = running, waiting
        self._lock = threading.Lock()
        self._admitted = 0
        self._free = running
        self._queue: deque[threading.Event] = deque()

    def admit(self) -> "Ticket":
        """A place in the server. Raises Refusal (RESOURCE_EXHAUSTED) when all are taken."""
        with self._lock:
            if self._admitted >= self.running + self.waiting:
                raise Refusal(
                    "RESOURCE_EXHAUSTED",
                    f"The server is full: {self.running} requests may run and {self.waiting} wait; try again later",
                )
            self._admitted += 1
        return Ticket(self)

    @property
    def admitted(self) -> int:
        return self._admitted

    def _take_slot(self, timeout: float | None) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._queue.append(turn)
        if turn.wait(timeout):
            return
        with self._lock:
            if not turn.is_set():  # else the slot was handed over a moment ago
                self._queue.remove(turn)
                raise Refusal("DEADLINE_EXCEEDED", TIMED_OUT)

    def _leave(self, has_slot: bool) -> None:
        with self._lock:
            self._admitted -= 1
            if has_slot and self._queue:
                self._queue.popleft().set()
            elif has_slot:
                self._free += 1


class Ticket:
    """One admitted request; leaving the block gives its place back."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._has_slot = False

    def start(self, deadline: Deadline) -> None:
        """Wait for a slot to run in. Raises Refusal (DEADLINE_EXCEEDED)."""
        self._gate._take_slot(deadline.remaining())
        self._has_slot = True

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *_: object) -> None:
        self._gate._leave(self._has_slot)
        self._has_slot = False
