"""Pressure: requests in; at most so many arriving, so many running and so many waiting, the rest
refused at once.

Both front ends share one gate, so that a server under five times its load keeps its memory and its
latency. Waiting requests are served first come, first served. A request has a place in the gate
only when it has arrived whole; until then it is one of the `Arrivals`, of which the slowest makes
room for a new one.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from tf_groupvit.server.status import TIMED_OUT, StatusError

_FAST_ENOUGH = 2**17  # bytes a second; who sends less falls behind
_MANY_FILES = 2**16  # more than which is not asked for
_CREDIT = 1.0  # seconds that nobody needs to send in


def open_files(most: bool = False) -> int:
    """How many files and connections the process may open; with ``most``, after raising that as far
    as it may.
    """
    try:
        import resource
    except ImportError:  # Windows
        return _MANY_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (
        _MANY_FILES if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard)
    )
    if most and soft < min(hard, _MANY_FILES):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _MANY_FILES), hard))
            return min(hard, _MANY_FILES)
    return soft


class Deadline:
    """A moment after which an answer is of no use; None is never."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds left. Raises StatusError when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)
        return left


class ConcurrencyLimit:
    """At most ``running`` requests at work and ``waiting`` behind them."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running, self.waiting = running, waiting
        self._lock = threading.Lock()
        self._admitted = 0
        self._free = running
        self._queue: deque[threading.Event] = deque()

    def admit(self) -> "Ticket":
        """A place in the server. Raises StatusError (RESOURCE_EXHAUSTED) when all are taken."""
        with self._lock:
            if self._admitted >= self.running + self.waiting:
                raise StatusError(
                    "RESOURCE_EXHAUSTED",
                    f"The server is full: {self.running} requests may run and {self.waiting} wait;"
                    " try again later",
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
                raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)

    def _leave(self, has_slot: bool) -> None:
        with self._lock:
            self._admitted -= 1
            if has_slot and self._queue:
                self._queue.popleft().set()
            elif has_slot:
                self._free += 1


class Ticket:
    """One admitted request; leaving the block gives its place back."""

    def __init__(self, gate: ConcurrencyLimit) -> None:
        self._gate = gate
        self._has_slot = False

    def start(self, deadline: Deadline) -> None:
        """Wait for a slot to run in. Raises StatusError (DEADLINE_EXCEEDED)."""
        self._gate._take_slot(deadline.remaining())
        self._has_slot = True

    def leave(self) -> None:
        self._gate._leave(self._has_slot)
        self._has_slot = False

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Arrival:
    """A request body on its way in. ``drop`` is called when others need the room."""

    def __init__(self, now: float) -> None:
        self.drop: Callable[[], None] = lambda: None
        self.size = 0
        self.dropped = False
        self.excused = now + _CREDIT  # until then, what has arrived is enough

    def grow(self, size: int, now: float) -> None:
        self.size += size
        self.excused = min(max(self.excused, now) + size / _FAST_ENOUGH, now + _CREDIT)


class Arrivals:
    """At most ``most`` bodies arriving, and ``most_bytes`` of bodies held; for use in one thread.

    Where there are too many, the sender that is furthest behind is dropped: someone who sends
    nothing cannot keep others out.
    """

    def __init__(
        self, most: int, most_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._most_bytes, self._clock = most, most_bytes, clock
        self._arriving: dict[Arrival, None] = {}
        self.held = 0  # bytes of bodies, from their arrival to their answer

    def __len__(self) -> int:
        return len(self._arriving)

    def enter(self) -> Arrival:
        if len(self._arriving) >= self._most:
            self._drop_slowest()
        arrival = Arrival(self._clock())
        self._arriving[arrival] = None
        return arrival

    def grow(self, arrival: Arrival, size: int) -> None:
        """So many more bytes are there; they are counted until the request leaves."""
        if arrival.dropped:
            return
        arrival.grow(size, self._clock())
        self.held += size
        while self.held > self._most_bytes and self._arriving:
            self._drop_slowest()

    def whole(self, arrival: Arrival) -> None:
        self._arriving.pop(arrival, None)

    def leave(self, arrival: Arrival) -> None:
        self.whole(arrival)
        self.held -= arrival.size
        arrival.size = 0

    def _drop_slowest(self) -> None:
        slowest = min(self._arriving, key=lambda arrival: arrival.excused)
        self.leave(slowest)
        slowest.dropped = True
        slowest.drop()
