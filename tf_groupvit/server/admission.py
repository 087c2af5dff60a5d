"""Limits under load: how many requests run, wait and arrive, and how long each may take.

REST and gRPC share one ConcurrencyLimit, so that a server under five times its load keeps its
memory and its latency. A request is admitted when it has arrived whole; until then it is one of the
`Arrivals`, of which the slowest makes room for a new one.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from tf_groupvit.server.status import TIMED_OUT, StatusError

_FAST_ENOUGH = 2**17  # bytes a second; who sends less falls behind
_CREDIT = 1.0  # seconds that nobody needs to send in
_MANY_FILES = 2**16  # more than which is not asked for


class Deadline:
    """A moment after which an answer is of no use; ``seconds`` from now, or None for never."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds left. Raises StatusError (DEADLINE_EXCEEDED) when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)
        return left


class ConcurrencyLimit:
    """At most ``running`` requests at work and ``waiting`` behind them, in order of arrival."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running, self.waiting = running, waiting
        self.admitted = 0
        self._lock = threading.Lock()
        self._free = running
        self._queue: deque[threading.Event] = deque()

    @property
    def places(self) -> int:
        """How many requests may be admitted at once."""
        return self.running + self.waiting

    def admit(self) -> "Ticket":
        """A place in the server. Raises StatusError (RESOURCE_EXHAUSTED) when all are taken."""
        with self._lock:
            if self.admitted >= self.places:
                raise StatusError(
                    "RESOURCE_EXHAUSTED",
                    f"The server is full: {self.running} requests may run and {self.waiting} wait;"
                    " try again later",
                )
            self.admitted += 1
        return Ticket(self)

    def leave(self) -> None:
        """Give a place back."""
        with self._lock:
            self.admitted -= 1

    def take_slot(self, timeout: float | None) -> None:
        """Wait, at most ``timeout`` seconds, to be at work. Raises StatusError."""
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

    def free_slot(self) -> None:
        """Hand the slot to the request that has waited longest."""
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1


class Ticket:
    """One admitted request; leaving the block gives its place back."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self._limit = limit
        self._has_slot = False

    def start(self, deadline: Deadline) -> None:
        """Wait for a slot to run in. Raises StatusError (DEADLINE_EXCEEDED)."""
        self._limit.take_slot(deadline.remaining())
        self._has_slot = True

    @contextlib.contextmanager
    def paused(self, deadline: Deadline) -> Iterator[None]:
        """Leave the slot to others within, where the request waits for another process."""
        self._free_slot()
        yield
        self.start(deadline)

    def _free_slot(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._limit.free_slot()

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *_: object) -> None:
        self._free_slot()
        self._limit.leave()


class Arrival:
    """A request body on its way in. ``drop`` is called when others need the room."""

    def __init__(self, now: float) -> None:
        self.drop: Callable[[], None] = lambda: None
        self.size = 0
        self.dropped = False
        self.excused = now + _CREDIT  # until then, what has arrived is enough


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
        """A body that begins to arrive."""
        if len(self._arriving) >= self._most:
            self._drop_slowest()
        arrival = Arrival(self._clock())
        self._arriving[arrival] = None
        return arrival

    def grow(self, arrival: Arrival, size: int) -> None:
        """``size`` more bytes have arrived; they count until the request leaves."""
        if arrival.dropped:
            return
        now = self._clock()
        arrival.size += size
        arrival.excused = min(max(arrival.excused, now) + size / _FAST_ENOUGH, now + _CREDIT)
        self.held += size
        while self.held > self._most_bytes and self._arriving:
            self._drop_slowest()

    def whole(self, arrival: Arrival) -> None:
        """The body has arrived."""
        self._arriving.pop(arrival, None)

    def leave(self, arrival: Arrival) -> None:
        """The request is answered, or given up."""
        self.whole(arrival)
        self.held -= arrival.size
        arrival.size = 0

    def _drop_slowest(self) -> None:
        slowest = min(self._arriving, key=lambda arrival: arrival.excused)
        self.leave(slowest)
        slowest.dropped = True
        slowest.drop()


def open_files(most: bool = False) -> int:
    """How many files and connections the process may open; with ``most``, raised if possible."""
    try:
        import resource
    except ImportError:  # Windows
        return _MANY_FILES
    soft, hard = (
        _MANY_FILES if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if most and soft < min(hard, _MANY_FILES):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _MANY_FILES), hard))
            return min(hard, _MANY_FILES)
    return soft
