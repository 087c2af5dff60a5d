"""Versions of a model: what the disk holds in; loaded versions to run requests on, and their
states, out.

One state machine under one lock (contract, sections 7 and 8). A new version is loaded, warmed and
AVAILABLE before the old one is unloaded; a version that fails leaves the old one serving; a request
keeps the version it began on, and a version is closed only when its last request has left.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum

from tf_groupvit.server.servable import Servable
from tf_groupvit.server.status import StatusError, loggable

_log = logging.getLogger("tf_groupvit.server")

Loader = Callable[[str], Servable]  # folder -> loaded and warmed servable; raises StatusError


class State(IntEnum):
    """As in get_model_status.proto."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


_LONGEST_ERROR = 1024  # characters in the log


@dataclass(frozen=True)
class Retries:
    """How often a failed load is tried again, and how long apart in seconds."""

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
    finishing: bool = False  # what is left to do when it serves
    unwanted: threading.Event = field(default_factory=threading.Event)

    @property
    def loaded(self) -> Servable:
        """The servable of a version in use."""
        assert self.servable is not None, "a version in use is loaded"
        return self.servable

    @property
    def settled(self) -> bool:
        return self.state in (State.AVAILABLE, State.END)


class Versions:
    """All versions of all models."""

    def __init__(self, loader: Loader, retries: Retries = Retries()) -> None:
        self._loader = loader
        self._retries = retries
        self._changed = threading.Condition()
        self._active: dict[str, dict[int, Version]] = {}  # what is managed now
        self._seen: dict[
            str, dict[int, Version]
        ] = {}  # the last life of every version there ever was
        self._wanted: dict[str, dict[int, str]] = {}

    def want(self, model: str, wanted: dict[int, str]) -> None:
        """Serve these versions (number -> folder) of a model from now on, and no others."""
        with self._changed:
            self._wanted[model] = wanted
            self._settle(model)

    def _settle(self, model: str) -> None:
        """Start what is wanted and not there, drop what is there and not wanted. Under the lock."""
        active, wanted = self._active.setdefault(model, {}), self._wanted.get(model, {})
        for number, path in wanted.items():
            if number not in active:
                self._start(Version(model, number, path))
        one_serves = any(active[number].state is State.AVAILABLE for number in wanted)
        for version in [version for number, version in active.items() if number not in wanted]:
            version.unwanted.set()
            if version.state is State.END:
                del active[version.number]
            elif version.state is State.AVAILABLE and (one_serves or not wanted):
                threading.Thread(
                    target=self._unload, args=[version], daemon=True, name="unload"
                ).start()
                self._move(version, State.UNLOADING)

    def _start(self, version: Version) -> None:
        # First the thread, which waits for the lock: where none can be had, the version is tried
        # again.
        threading.Thread(target=self._load, args=[version], daemon=True, name="load").start()
        self._active[version.model][version.number] = version
        self._seen.setdefault(version.model, {})[version.number] = version

    def _move(self, version: Version, state: State) -> None:
        version.state = state
        level = logging.WARNING if version.error else logging.INFO
        why = f": {_shown(version.error)}" if version.error else ""
        _log.log(
            level,
            "Model %s version %d is %s%s",
            loggable(version.model),
            version.number,
            state.name,
            why,
        )
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
        if serves:
            self._afterwards(version)
        else:
            self._close(version)
            with self._changed:
                self._end(version)
                self._settle(version.model)

    def _afterwards(self, version: Version) -> None:
        """Do what is left to do when a version serves, which is not closed before that is done."""
        try:
            afterwards = getattr(version.servable, "afterwards", None)
            if afterwards is not None:
                afterwards(version.unwanted.is_set)
        except Exception:
            _log.exception("What was left to do for %s failed", loggable(version.path))
        finally:
            with self._changed:
                version.finishing = False
                self._changed.notify_all()

    def _leave(self, version: Version) -> None:
        with self._changed:
            version.in_flight -= 1
            if not version.in_flight and version.state is State.UNLOADING:
                self._changed.notify_all()

    def _attempts(self, version: Version) -> tuple[Servable | None, StatusError | None]:
        """Load, again and again while it fails and is still wanted."""
        error = None
        for attempt in range(1, self._retries.count + 2):
            started = time.perf_counter()
            try:
                servable = self._loader(version.path)
            except StatusError as refusal:
                error = refusal
            except Exception as bug:
                _log.exception("Loading %s failed in an unexpected way", loggable(version.path))
                error = StatusError("INTERNAL", f"{type(bug).__name__}: {bug}")
            else:
                seconds = time.perf_counter() - started
                _log.info(
                    "Loaded %s version %d from %s in %.1f s",
                    loggable(version.model), version.number, loggable(version.path), seconds,
                )  # fmt: skip
                return servable, None
            self._report(version, error, attempt)
            if attempt > self._retries.count or version.unwanted.wait(self._retries.seconds):
                break
        return None, error

    def _report(self, version: Version, error: StatusError, attempt: int) -> None:
        left = self._retries.count + 1 - attempt
        then = f"next attempt in {self._retries.seconds:g} s, {left} left" if left else "given up"
        _log.warning(
            "Loading %s version %d failed (%s): %s",
            loggable(version.model),
            version.number,
            then,
            _shown(error),
        )

    def _unload(self, version: Version) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not version.in_flight and not version.finishing)
        self._close(version)
        with self._changed:
            self._end(version)
            self._settle(version.model)

    def _close(self, version: Version) -> None:
        servable, version.servable = version.servable, None
        try:
            if servable is not None:
                servable.close()
        except Exception:  # the version ends all the same
            _log.exception("Unloading %s failed in an unexpected way", loggable(version.path))

    def _end(self, version: Version) -> None:
        """A failed version that is still wanted stays managed, so that it is not tried again."""
        if version.unwanted.is_set():
            self._active[version.model].pop(version.number, None)
        self._move(version, State.END)

    @contextmanager
    def use(self, model: str, number: int | None = None) -> Iterator[Version]:
        """The version to run a request on, the highest AVAILABLE one without a number. Raises
        StatusError.
        """
        with self._changed:
            version = self._find(model, number)
            version.in_flight += 1
        try:
            yield version
        finally:
            self._leave(version)

    def _find(self, model: str, number: int | None) -> Version:
        active = self._active.get(model, {})
        numbers = [
            candidate for candidate, version in active.items() if version.state is State.AVAILABLE
        ]
        if number is None and numbers:
            return active[max(numbers)]
        if number is not None and number in numbers:
            return active[number]
        asked = f"Latest({model})" if number is None else f"Specific({model}, {number})"
        raise StatusError("NOT_FOUND", f"Servable not found for request: {asked}")

    def states(self, model: str) -> dict[int, Version]:
        """Every version ever seen of a model, newest first; copies, which do not change any more."""
        with self._changed:
            seen = self._seen.get(model, {})
            return {
                number: Version(
                    model, number, seen[number].path, seen[number].state, seen[number].error
                )
                for number in sorted(seen, reverse=True)
            }

    def await_settled(self, models: list[str], timeout: float | None = None) -> list[Version]:
        """Wait until every model has an AVAILABLE version or has failed; the failed versions of
        those that have.
        """
        with self._changed:
            self._changed.wait_for(lambda: all(self._ready(model) for model in models), timeout)
            return [version for model in models for version in self._failed(model)]

    def _ready(self, model: str) -> bool:
        active = self._active.get(model, {}).values()
        return any(version.state is State.AVAILABLE for version in active) or all(
            version.settled for version in active
        )

    def _failed(self, model: str) -> list[Version]:
        active = list(self._active.get(model, {}).values())
        return [] if any(version.state is State.AVAILABLE for version in active) else active

    def close(self) -> bool:
        """Unload everything and wait for it: whether all has ended.

        Loads under way are given up, and so is what is left to do for a version that serves.
        """
        with self._changed:
            for model in list(self._active):
                self._wanted[model] = {}
                self._settle(model)
            self._changed.wait_for(lambda: all(map(_only_finishes, self._managed())), timeout=5.0)
            return not self._managed()

    def _managed(self) -> list[Version]:
        return [version for of_model in self._active.values() for version in of_model.values()]


def _shown(error: StatusError) -> str:
    return f"{error.code}: {loggable(error.text, _LONGEST_ERROR)}"


def _only_finishes(version: Version) -> bool:
    return version.finishing and not version.in_flight
