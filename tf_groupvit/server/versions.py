"""The state machine of versions: loaded, AVAILABLE, in use by requests, unloaded.

A version is loaded, warmed up and AVAILABLE before the one that it replaces is unloaded; a version
that fails leaves the old one serving; a request keeps the version that it began on (contract,
sections 7 and 8).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum

from tf_groupvit.server.servable import Servable
from tf_groupvit.server.status import StatusError, loggable

_log = logging.getLogger("tf_groupvit.server")
Loader = Callable[[str], Servable]  # folder -> loaded and warmed servable; raises StatusError
_LONGEST_ERROR = 1024  # characters in the log


class State(IntEnum):
    """As in get_model_status.proto."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class Retries:
    """How often a failed load is tried again, and the seconds in between."""

    count: int = 5
    seconds: float = 60.0


@dataclass(eq=False)
class Version:
    """One version of one model, from START to END."""

    model: str
    number: int
    path: str
    state: State = State.START
    error: StatusError | None = None
    servable: Servable | None = None
    in_flight: int = 0  # requests
    finishing: bool = False  # serves, and its `afterwards` still runs
    unwanted: threading.Event = field(default_factory=threading.Event)

    @property
    def loaded(self) -> Servable:
        """The servable of a version in use."""
        assert self.servable is not None, "a version in use is loaded"
        return self.servable

    @property
    def name(self) -> str:
        """Model and number, for the log."""
        return f"{loggable(self.model)} version {self.number}"


class Versions:
    """The versions of all models: one state machine under one lock."""

    def __init__(self, loader: Loader, retries: Retries = Retries()) -> None:
        self._loader = loader
        self._retries = retries
        self._changed = threading.Condition()
        self._active: dict[str, dict[int, Version]] = {}  # what is managed now
        self._seen: dict[str, dict[int, Version]] = {}  # the last life of every version ever
        self._wanted: dict[str, dict[int, str]] = {}

    def want(self, model: str, wanted: dict[int, str]) -> None:
        """Serve these versions (number -> folder) of a model from now on, and no others."""
        with self._changed:
            self._wanted[model] = wanted
            self._settle(model)

    def _settle(self, model: str) -> None:
        """Start what is wanted and not there, drop what is there and not wanted. Under the lock."""
        active, wanted = self._active.setdefault(model, {}), self._wanted.get(model, {})
        for number in sorted(wanted.keys() - active.keys()):
            version = Version(model, number, wanted[number])
            # First the thread, which waits for the lock: where none can be started, the version is
            # tried again.
            threading.Thread(target=self._load, args=[version], daemon=True, name="load").start()
            active[number] = self._seen.setdefault(model, {})[number] = version
        one_serves = any(active[number].state is State.AVAILABLE for number in wanted)
        for version in [active[n] for n in sorted(active.keys() - wanted.keys())]:
            version.unwanted.set()
            if version.state is State.END:
                del active[version.number]
            elif version.state is State.AVAILABLE and (one_serves or not wanted):
                threading.Thread(
                    target=self._unload, args=[version], daemon=True, name="unload"
                ).start()
                self._move(version, State.UNLOADING)

    def _move(self, version: Version, state: State) -> None:
        version.state = state
        level = logging.WARNING if version.error else logging.INFO
        why = f": {_shown(version.error)}" if version.error else ""
        _log.log(level, "Model %s is %s%s", version.name, state.name, why)
        self._changed.notify_all()

    def _load(self, version: Version) -> None:
        with self._changed:
            self._move(version, State.LOADING)
        version.servable, version.error = self._attempts(version)
        with self._changed:
            serves = version.servable is not None and not version.unwanted.is_set()
            if serves:
                self._move(version, State.AVAILABLE)
                self._settle(version.model)
                version.finishing = True
        if not serves:
            self._end(version)
            return
        try:  # what is left to do; the version is not closed before it is done
            afterwards = getattr(version.servable, "afterwards", None)
            if afterwards is not None:
                afterwards(version.unwanted.is_set)
        except Exception:
            _log.exception("What was left to do for %s failed", loggable(version.path))
        finally:
            with self._changed:
                version.finishing = False
                self._changed.notify_all()

    def _attempts(self, version: Version) -> tuple[Servable | None, StatusError | None]:
        """Load, again and again while that fails and the version is still wanted."""
        error, retries = None, self._retries
        for left in range(retries.count, -1, -1):
            started = time.perf_counter()
            try:
                servable = self._loader(version.path)
            except StatusError as refused:
                error = refused
            except Exception as bug:
                _log.exception("Loading %s failed in an unexpected way", loggable(version.path))
                error = StatusError("INTERNAL", f"{type(bug).__name__}: {bug}")
            else:
                seconds = time.perf_counter() - started
                path = loggable(version.path)
                _log.info("Loaded %s from %s in %.1f s", version.name, path, seconds)
                return servable, None
            then = f"next attempt in {retries.seconds:g} s, {left} left" if left else "given up"
            _log.warning("Loading %s failed (%s): %s", version.name, then, _shown(error))
            if not left or version.unwanted.wait(retries.seconds):
                break
        return None, error

    def _unload(self, version: Version) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not version.in_flight and not version.finishing)
        self._end(version)

    def _end(self, version: Version) -> None:
        """Close a version. A failed one that is still wanted stays, so that it is not retried."""
        self._close(version)
        with self._changed:
            if version.unwanted.is_set():
                self._active[version.model].pop(version.number, None)
            self._move(version, State.END)
            self._settle(version.model)

    def _close(self, version: Version) -> None:
        """Close and free the servable: freed later, when the process ends, it would abort that."""
        servable, version.servable = version.servable, None
        try:
            if servable is not None:
                servable.close()
        except Exception:  # the version ends all the same
            _log.exception("Unloading %s failed in an unexpected way", loggable(version.path))

    @contextmanager
    def use(self, model: str, number: int | None = None) -> Iterator[Version]:
        """The version to run a request on; without a number the highest that is AVAILABLE.

        Raises:
            StatusError: NOT_FOUND.
        """
        with self._changed:
            available = self._available(model)
            number_used = max(available, default=None) if number is None else number
            if number_used not in available:
                asked = f"Latest({model})" if number is None else f"Specific({model}, {number})"
                raise StatusError("NOT_FOUND", f"Servable not found for request: {asked}")
            version = available[number_used]
            version.in_flight += 1
        try:
            yield version
        finally:
            with self._changed:
                version.in_flight -= 1
                if not version.in_flight and version.state is State.UNLOADING:
                    self._changed.notify_all()

    def _available(self, model: str) -> dict[int, Version]:
        active = self._active.get(model, {})
        return {n: version for n, version in active.items() if version.state is State.AVAILABLE}

    def states(self, model: str) -> dict[int, Version]:
        """Every version ever seen of a model, newest first: copies, which no longer change."""
        with self._changed:
            seen = sorted(self._seen.get(model, {}).items(), reverse=True)
            return {number: replace(version, servable=None) for number, version in seen}

    def await_settled(self, models: list[str], timeout: float | None = None) -> list[Version]:
        """Wait until each model has an AVAILABLE version or has failed; the failed versions."""
        settled = (State.AVAILABLE, State.END)

        def ready(model: str) -> bool:
            active = self._active.get(model, {}).values()
            return bool(self._available(model)) or all(v.state in settled for v in active)

        with self._changed:
            self._changed.wait_for(lambda: all(map(ready, models)), timeout)
            failed = [model for model in models if not self._available(model)]
            return [version for model in failed for version in self._active.get(model, {}).values()]

    def close(self) -> bool:
        """Unload everything and wait for it: whether all has ended.

        Loads under way are given up, and so is what is left to do for a version that serves.
        """

        def managed() -> list[Version]:
            return [version for of_model in self._active.values() for version in of_model.values()]

        def only_finish() -> bool:
            return all(version.finishing and not version.in_flight for version in managed())

        with self._changed:
            for model in list(self._active):
                self._wanted[model] = {}
                self._settle(model)
            self._changed.wait_for(only_finish, timeout=5.0)
            return not managed()


def _shown(error: StatusError) -> str:
    return f"{error.code}: {loggable(error.text, _LONGEST_ERROR)}"
