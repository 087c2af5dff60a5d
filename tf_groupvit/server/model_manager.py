"""The models that are served: found below base paths, polled, labeled, reloaded.

Reloads are answered as the real server answers `HandleReloadConfigRequest` (contract, sections 7
and 8).
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from tf_groupvit.errors import ServerError
from tf_groupvit.server.config_files import ServedModel, models_of
from tf_groupvit.server.status import TIMED_OUT, StatusError, invalid, loggable
from tf_groupvit.server.threads import lasting
from tf_groupvit.server.versions import State, Version, Versions

if TYPE_CHECKING:
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

_log = logging.getLogger("tf_groupvit.server")
_NUMBER = re.compile(r"-?[0-9]{1,400}", re.ASCII)
_LONGEST_COMPLAINT = 1024  # characters in the log
_MOST_WARNINGS = 1000  # that are remembered, so that each is logged once


class MissingBasePath(Exception):  # noqa: N818 - the poller logs it and keeps what it has
    """The folder is not there, or cannot be listed."""


def versions_to_serve(
    model: ServedModel, warn: Callable[[str], None] = _log.warning
) -> dict[int, str]:
    """Number -> folder of the versions that should be served now.

    A child of the base path whose whole name is a 64-bit integer is a version, also "00000123".
    Raises MissingBasePath.
    """
    base_path, versions = model.base_path, dict[int, str]()
    for child in _children(base_path):
        number = int(child) if _NUMBER.fullmatch(child) else None
        if number is None or not -(2**63) <= number < 2**63:
            if any("\udc80" <= character <= "\udcff" for character in child):
                warn(
                    f"Ignored {loggable(child)} below {loggable(base_path)}: its name is neither a"
                    " number nor UTF-8."
                )
            continue
        if number in versions:
            warn(
                f"Versions {loggable(versions[number])} and {child} are one number: {child} is"
                " served."
            )
        versions[number] = f"{base_path.rstrip('/')}/{child}"
    return model.policy.chosen(versions)


def _children(base_path: str) -> list[str]:
    """The names below a base path, in order; bytes that are not UTF-8 are surrogate escapes."""
    if "://" not in base_path:
        try:
            return sorted(os.listdir(base_path))
        except FileNotFoundError as error:
            raise MissingBasePath(f"NOT_FOUND: {base_path} not found") from error
        except OSError as error:
            raise MissingBasePath(str(error)) from error
    from tensorflow.python.framework.errors import OpError
    from tensorflow.python.lib.io import file_io

    try:
        if not file_io.file_exists_v2(base_path):
            raise MissingBasePath(f"NOT_FOUND: {base_path} not found")
        return sorted({child.split("/")[0] for child in file_io.list_directory_v2(base_path)})
    except (OpError, OSError, UnicodeError) as error:
        raise MissingBasePath(str(error)) from error


class ModelManager:
    """The models that are served: their configuration, labels and base paths, which it polls."""

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
        self._poller = lasting("poll-models", self._poll_until_stopped)

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._models)

    def start(self, models: Iterable[ServedModel], wait: bool = False) -> None:
        """Load what is there and begin to poll; returns when every model is available.

        A base path without versions is an error, unless ``wait`` says to wait for them as the real
        server does. Raises ServerError.
        """
        with self._config_lock:
            self._models = {model.name: model for model in models}
            self.poll()
        if self._complaints and not wait:
            raise ServerError(" ".join(" ".join(self._complaints.values()).split()))
        if self._poll_seconds > 0:
            self._poller.start()
        while wait and self._complaints and not self._stopped.wait(0.1):
            pass
        try:
            self._refuse_failed("servable", self.versions.await_settled(self.names))
            self._set_labels(self._models.values(), checked=not self._labels_before_loading)
        except StatusError as error:
            reason = " ".join(f"{error.code}: {error.text}".split())
            raise ServerError(f"Failed to start server. Error: {reason}") from None

    def _poll_until_stopped(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            with self._config_lock:
                self.poll()

    def poll(self) -> None:
        """Look for versions of every model."""
        for model in self._models.values():
            complaint = fault = None
            try:
                versions = versions_to_serve(model, self._warn)
                self.versions.want(model.name, versions)
                if not versions:
                    complaint = (
                        f"No versions of servable {model.name} found under base path"
                        f" {model.base_path}. Did you forget to name your leaf directory as a"
                        " number (eg. '/1/')?"
                    )
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
        """Log what is odd about a base path, once and not at every poll."""
        if text not in self._warned:
            if len(self._warned) >= _MOST_WARNINGS:
                self._warned.clear()
            self._warned.add(text)
            _log.warning("%s", text)

    def _complain(self, name: str, complaint: str | None, bug: Exception | None) -> None:
        """Log what keeps a model from being served, each time that it changes."""
        if complaint is None:
            self._complaints.pop(name, None)
        elif self._complaints.get(name) != complaint:
            self._complaints[name] = complaint
            _log.warning("%s", loggable(complaint, _LONGEST_COMPLAINT), exc_info=bug)

    def use(self, spec: "ModelSpec") -> AbstractContextManager[Version]:
        """The version that a ModelSpec asks for, held until the block ends. Raises StatusError."""
        choice = spec.WhichOneof("version_choice")
        number = spec.version.value if choice == "version" else None
        label = spec.version_label if choice == "version_label" else None
        return self.use_named(spec.name, number, label)

    def use_named(
        self, name: str, number: int | None, label: str | None
    ) -> AbstractContextManager[Version]:
        """The version of a model by number, by label, or the newest. Raises StatusError."""
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label is not None:
            number = self._labels.get(name, {}).get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        return self.versions.use(name, number)

    def states(self, name: str, number: int | None) -> list[Version]:
        """The versions of a model, newest first, or one of them. Raises StatusError."""
        states = self.versions.states(name)
        if number is not None:
            if number not in states:
                raise StatusError("NOT_FOUND", f"Could not find version {number} of model {name}")
            return [states[number]]
        if not states:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {name}")
        return list(states.values())

    def reload(self, config: "ModelServerConfig", timeout: float | None = None) -> None:
        """Serve the models of this config instead; returns when new models are available.

        ``timeout`` is in seconds. Raises StatusError.
        """
        if config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
                " ModelConfigList is currently supported"
            )
        end = None if timeout is None else time.monotonic() + timeout
        if not self._config_lock.acquire(
            timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        ):
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)
        try:
            listed = models_of(config.model_config_list, self._models.values())
            models = {model.name: model for model in listed}
            self._set_labels(listed, checked=True)
            new = [name for name in models if name not in self._models]
            for name in self._models.keys() - models.keys():
                self.versions.want(name, {})
                self._complaints.pop(name, None)
            self._models = models
            self.poll()
            missing = [self._complaints[name] for name in new if name in self._complaints]
        finally:
            self._config_lock.release()
        if missing:
            raise invalid(" ".join(missing))
        left = None if end is None else max(end - time.monotonic(), 0.0)
        self._refuse_failed("model", self.versions.await_settled(new, left))

    def _set_labels(self, models: Iterable[ServedModel], checked: bool) -> None:
        """Take over the labels, each of which must point at an AVAILABLE version.

        With the flag, a label that is new, or stays where it is, may point at a version that is not
        there yet. Raises StatusError.
        """
        labels = {model.name: dict(model.labels) for model in models}
        for name, of_model in labels.items():
            states, before = self.versions.states(name), self._labels.get(name, {})
            for label, number in of_model.items():
                available = number in states and states[number].state is State.AVAILABLE
                early = self._labels_before_loading and before.get(label, number) == number
                if checked and not available and not early:
                    raise StatusError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {number} of model {name}, which is not"
                        " currently available for inference",
                    )
        self._labels = labels

    def _refuse_failed(self, noun: str, failed: list[Version]) -> None:
        if failed:
            each = "".join(
                f"{{{{name: {version.model} version: {version.number}}} due to error:"
                f" {_reason(version)}}}, "
                for version in failed
            )
            raise StatusError(
                "UNKNOWN", f"{len(failed)} {noun}(s) did not become available: {{{each}}}"
            )

    def stop(self) -> bool:
        """End polling and unload everything: whether all has ended."""
        self._stopped.set()
        if self._poller.is_alive():
            self._poller.join(timeout=5.0)
        return self.versions.close()


def _reason(version: Version) -> str:
    return f"{version.error.code}: {version.error.text}" if version.error else "it is still loading"
