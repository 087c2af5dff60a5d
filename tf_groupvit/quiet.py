"""TensorFlow is imported without its C++ libraries' remarks on standard error, and sooner.

They print for every process which instructions they were built for and that there is no GPU, before
they read the level that TF_CPP_MIN_LOG_LEVEL sets. The level is 3 here unless it is set, and
remarks below it are left out of what is printed while TensorFlow is imported. Everything else is
shown when the import is over or has failed.
"""

import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from tf_groupvit.memory import nothing_to_collect

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
NOISY = ("tensorflow", "keras")
# "I0000 00:00:1700000000.000000 1 port.cc:1] ...", or as TensorFlow wrote it before: "2026-01-01
# 00:00:00.0: I ..."
REMARK = re.compile(
    rb"(\d{4}-\d\d-\d\d [\d:.]+: )?(?P<severity>[IWE])(\d{4} [\d:.]+ +\d+ \S+:\d+\]| tensorflow/|"
    rb" external/)"
)
BELONGING = (
    b"WARNING: All log messages before absl::InitializeLog()",
    b"To enable the following instructions:",
)
SEVERITIES = b"IWE"


class _Finder:
    """Finds TensorFlow and Keras as Python would, with a loader that holds remarks back."""

    def __init__(self) -> None:
        self.asking = threading.local()  # the other finders, in this thread

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in NOISY or getattr(self.asking, "now", False):
            return None
        self.asking.now = True
        try:
            spec = find_spec(name)
        finally:
            self.asking.now = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """A module's own loader, but for what is printed on standard error while it works."""

    def __init__(self, own: Loader) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.own
        if module.__spec__ is not None:
            module.__spec__.loader = self.own
        with importing():
            self.own.exec_module(module)


@contextmanager
def importing() -> Iterator[None]:
    """Leave out what is printed below the level while TensorFlow is imported in this block."""
    os.environ.setdefault(LEVEL, "3")
    # Of TensorFlow's own messages.
    warnings.filterwarnings("ignore", "Protobuf gencode version", UserWarning)
    # All is wanted, or descriptor 2 is something else.
    shown = not _left_out() or sys.stderr is None
    printed = nullcontext() if shown else held_back(only_remarks=True)
    with nothing_to_collect(for_good=True), printed:
        yield


def install() -> None:
    """Have every import of TensorFlow and Keras be quiet; once is enough."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def import_tensorflow() -> None:
    """Import TensorFlow for a command, and have it look for devices.

    The command then says what it is waiting for.
    """
    import keras

    keras.ops.zeros(1)


@contextmanager
def held_back(only_remarks: bool = False) -> Iterator[None]:
    """Keep what is written to file descriptor 2, by C++ too, and show it if something is raised.

    With ``only_remarks``, everything but TensorFlow's remarks below its level is shown in any case.
    All of it is shown where no file takes it, as in a container that cannot be written to.
    """
    with suppress(OSError, ValueError, AttributeError):  # a process may have no standard error
        sys.stderr.flush()
    import tempfile

    try:
        before = os.dup(2)
    except OSError:
        yield
        return
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115 - its block is below
    except OSError:
        os.close(before)
        yield
        return
    with held:
        os.dup2(held.fileno(), 2)
        shown = only_remarks
        try:
            yield
        except Exception:  # an interrupt is no reason to read what TensorFlow printed
            shown, only_remarks = True, False
            raise
        finally:
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            if shown:
                held.seek(0)
                written = held.read()
                _show(without_remarks(written) if only_remarks else written)


def _show(written: bytes) -> None:
    with suppress(OSError):
        while written:
            written = written[os.write(2, written) :]


def without_remarks(written: bytes) -> bytes:
    """What was written, without the lines of TensorFlow's libraries below the level that is set."""
    quiet, kept = _left_out(), []
    for line in written.splitlines(keepends=True):
        found = REMARK.match(line)
        if found is None and quiet and line.startswith(BELONGING):
            continue
        if found is None or found["severity"] not in quiet:
            kept.append(line)
    return b"".join(kept)


def _left_out() -> bytes:
    """The severities below the level that is set."""
    level = os.environ.get(LEVEL, "")
    return SEVERITIES[: int(level)] if level.isdecimal() else b""
