"""The models being served: a list of model configs in; requests resolved to versions, reloads and
labels out.

Polls the base paths, keeps the labels, and answers reloads as `HandleReloadConfigRequest` does
(contract, sections 7 and 8). A child of a base path whose whole name is a 64-bit integer is a
version, also "00000123"; others are ignored.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tf_groupvit.errors import ServerError
from tf_groupvit.server.config_files import ServedModel, models_of
from tf_groupvit.server.status import TIMED_OUT, StatusError, invalid, loggable
from tf_groupvit.server.threads import lasting
from tf_groupvit.server.versions import State, Version, Versions

_log = logging.getLogger("tf_groupvit.server")
Say = Callable[[str], None]
_NUMBER = re.compile(r"-?[0-9]{1,400}", re.ASCII)
_LONGEST_COMPLAINT = 1024  # characters in the log
_MOST_WARNINGS = 1000  # that are remembered, so that each is said once


class MissingBasePath(Exception):  # noqa: N818 - the poller logs it and keeps what it has
    """The folder is not there, or cannot be listed."""


def list_versions(base_path: str, warn: Say = _log.warning) -> dict[int, str]:
    """Number -> folder for every version below a base path. Raises MissingBasePath."""
    versions: dict[int, str] = {}
    for child in _children(base_path):
        number = version_number(child)
        if number is None and not _is_utf8(child):
            warn(
                f"Ignored {loggable(child)} below {loggable(base_path)}: its name is neither a number nor"
                " UTF-8."
            )
        if number is None:
            continue
        if number in versions:
            warn(
                f"Versions {loggable(versions[number])} and {child} are one number: {child} is served."
            )
        versions[number] = f"{base_path.rstrip('/')}/{child}"
    return versions


def _children(base_path: str) -> list[str]:
    """The names below a base path, in order; bytes that are not UTF-8 are surrogate escapes."""
    if "://" not in base_path:
        try:
            return sorted(os.listdir(base_path))
        except FileNotFoundError as error:
            raise MissingBasePath(f"NOT_FOUND: {base_path} not found") from error
        except OSError as error:
            raise MissingBasePath(str(error)) from error
    import tensorflow as tf

    try:
        if not tf.io.gfile.exists(base_path):
            raise MissingBasePath(f"NOT_FOUND: {base_path} not found")
        return sorted({child.split("/")[0] for child in tf.io.gfile.listdir(base_path)})
    except (tf.errors.OpError, OSError, UnicodeError) as error:
        raise MissingBasePath(str(error)) from error


def _is_utf8(name: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in name)


def version_number(name: str) -> int | None:
    """The number that a whole folder name spells, if it fits 64 bits."""
    if not _NUMBER.fullmatch(name):
        return None
    number = int(name)
    return number if -(2**63) <= number < 2**63 else None


def aspired(model: ServedModel, warn: Say = _log.warning) -> dict[int, str]:
    """The versions of a model that should be served now. Raises MissingBasePath."""
    return model.policy.chosen(list_versions(model.base_path, warn))


class Models:
    """What is served, by name."""

    def __init__(
        self, versions: Versions, poll_seconds: float, labels_before_loading: bool = False
    ) -> None:
        self.versions = versions
        self._poll_seconds = poll_seconds
        self._labels_before_loading = labels_before_loading
        self._models: dict[str, ServedModel] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._config_lock = threading.RLock()  # one poll or reload at a time
        self._complaints: dict[str, str] = {}
        self._stopped = threading.Event()
        self._warned: set[str] = set()
        self._poller = lasting("poll-models", self._poll_for_ever)

    @property
    def names(self) -> list[str]:
        return list(self._models)

    def start(self, models: Iterable[ServedModel], wait: bool = False) -> None:
        """Load what is there and begin to poll; returns when every model is available. Raises
        ServerError.

        A base path without versions is an error, unless ``wait`` says to wait for them as the real
        server does.
        """
        with self._config_lock:
            self._models = {model.name: model for model in models}
            self._poll()
        if not wait:
            self._refuse_empty()
        if self._poll_seconds > 0:
            self._poller.start()
        while wait and self._complaints and not self._stopped.wait(0.1):
            pass
        failed = self.versions.await_settled(self.names)
        if failed:
            raise ServerError(
                "Failed to start server. Error: UNKNOWN:"
                f" {one_line(_unavailable('servable', failed))}"
            )
        try:
            self._label(self._models.values(), checked=not self._labels_before_loading)
        except StatusError as refusal:
            raise ServerError(
                f"Failed to start server. Error: {refusal.code}: {refusal.text}"
            ) from None

    def _refuse_empty(self) -> None:
        if self._complaints:
            raise ServerError(one_line(" ".join(self._complaints.values())))

    def _poll_for_ever(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            with self._config_lock:
                self._poll()

    def _poll(self) -> None:
        for model in self._models.values():
            complaint = fault = None
            try:
                versions = aspired(model, self._warn)
                self.versions.want(model.name, versions)
                if not versions:
                    complaint = _no_versions(model)
            except MissingBasePath as error:  # what is loaded stays
                complaint = (
                    f"Could not find base path {model.base_path} for servable {model.name} with"
                    f" error {error}."
                )
            except Exception as bug:  # one model's fault is not another's
                complaint = (
                    f"Looking for versions of servable {model.name} failed: {type(bug).__name__}:"
                    f" {bug}."
                )
                fault = bug
            self._complain(model.name, complaint, fault)

    def _warn(self, text: str) -> None:
        """Say what is odd about a base path, once and not at every look."""
        if text not in self._warned:
            if len(self._warned) >= _MOST_WARNINGS:
                self._warned.clear()
            self._warned.add(text)
            _log.warning("%s", text)

    def _complain(self, name: str, complaint: str | None, bug: Exception | None = None) -> None:
        """Say what keeps a model from being served, once each time it changes."""
        if complaint is None:
            self._complaints.pop(name, None)
        elif self._complaints.get(name) != complaint:
            self._complaints[name] = complaint
            _log.warning("%s", loggable(complaint, _LONGEST_COMPLAINT), exc_info=bug)

    def use(self, spec: Any) -> AbstractContextManager[Version]:
        """The version that a ModelSpec asks for, held until the block ends. Raises StatusError."""
        choice = spec.WhichOneof("version_choice")
        return self.use_named(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )

    def use_named(
        self, name: str, number: int | None, label: str | None
    ) -> AbstractContextManager[Version]:
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label is not None:
            number = self._labels.get(name, {}).get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        return self.versions.use(name, number)

    def states(self, name: str, number: int | None) -> list[Version]:
        """The versions of a model, newest first, or the one asked for. Raises StatusError."""
        states = self.versions.states(name)
        if number is not None:
            if number not in states:
                raise StatusError("NOT_FOUND", f"Could not find version {number} of model {name}")
            return [states[number]]
        if not states:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {name}")
        return list(states.values())

    def reload(self, config: Any, timeout: float | None = None) -> None:
        """Take a ModelServerConfig's place; returns when new models are available. Raises StatusError."""
        if config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
                " ModelConfigList is currently supported"
            )
        end = None if timeout is None else time.monotonic() + timeout
        with self._turn(timeout):
            models = {
                model.name: model
                for model in models_of(config.model_config_list, self._models.values())
            }
            self._label(models.values(), checked=True)
            new = [name for name in models if name not in self._models]
            for name in self._models.keys() - models.keys():
                self.versions.want(name, {})
                self._complaints.pop(name, None)
            self._models = models
            self._poll()
            missing = [self._complaints[name] for name in new if name in self._complaints]
        if missing:
            raise invalid(" ".join(missing))
        failed = self.versions.await_settled(
            new, None if end is None else max(end - time.monotonic(), 0.0)
        )
        if failed:
            raise StatusError("UNKNOWN", _unavailable("model", failed))

    @contextmanager
    def _turn(self, timeout: float | None) -> Iterator[None]:
        """One poll or reload at a time. Raises StatusError where the turn does not come in time."""
        if not self._config_lock.acquire(
            timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        ):
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)
        try:
            yield
        finally:
            self._config_lock.release()

    def _label(self, models: Iterable[ServedModel], checked: bool) -> None:
        """Take over the labels, each of which must point at an AVAILABLE version. Raises StatusError."""
        labels = {model.name: dict(model.labels) for model in models}
        for name, of_model in labels.items():
            states = self.versions.states(name)
            for label, number in of_model.items():
                available = number in states and states[number].state is State.AVAILABLE
                if not available and (checked and not self._may_be_early(name, label, number)):
                    raise StatusError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {number} of model {name}, which is not"
                        " currently available for inference",
                    )
        self._labels = labels

    def _may_be_early(self, name: str, label: str, number: int) -> bool:
        """With the flag, a label that is new, or stays where it is, may point at a version still to
        come.
        """
        return (
            self._labels_before_loading and self._labels.get(name, {}).get(label, number) == number
        )

    def stop(self) -> bool:
        """End polling and unload everything: whether all has ended."""
        self._stopped.set()
        if self._poller.is_alive():
            self._poller.join(timeout=5.0)
        return self.versions.close()


def _no_versions(model: ServedModel) -> str:
    return (
        f"No versions of servable {model.name} found under base path {model.base_path}. Did you"
        " forget to name your leaf directory as a number (eg. '/1/')?"
    )


def _unavailable(noun: str, failed: list[Version]) -> str:
    each = "".join(
        f"{{{{name: {version.model} version: {version.number}}} due to error:"
        f" {_reason(version)}}}, "
        for version in failed
    )
    return f"{len(failed)} {noun}(s) did not become available: {{{each}}}"


def _reason(version: Version) -> str:
    return f"{version.error.code}: {version.error.text}" if version.error else "it is still loading"


def one_line(text: str) -> str:
    return " ".join(text.split())
