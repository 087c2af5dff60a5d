"""Read JSON bodies within bounds: a limit on their tokens, and a process of its own for large ones.

Python's parser holds the interpreter, and with it all other requests, for 30 to 300 ms for each
million tokens, and what it makes takes up to thirty times the body's memory. So large bodies are
read by a process of their own, which ends with the body or at the request's deadline.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

from tf_groupvit.server.admission import Deadline
from tf_groupvit.server.status import TIMED_OUT, StatusError, invalid

Result = TypeVar("Result")
Paused = Callable[[Deadline], contextlib.AbstractContextManager[object]]

# Tokens and bytes of what is read at once: a megabyte of numbers, some files in base64. Measured:
# 600,000 tokens take the parser 20 to 60 ms, empty lists 180, and a process takes 300 to start.
AT_ONCE = ((600_000, 2**22), (1_000, 2**25))
_TRIFLE = 10_000  # tokens of a body that waits for no other
_MARKS = (b",", b":", b"[", b"{", b"\\")
_CHUNK = 2**20
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_COMMAND = [sys.executable, "-c", f"from {__name__} import main; main()"]


def count_tokens(body: bytes, most: int) -> int:
    """How many tokens the body has at most; marks and escapes in its strings count as well.

    Raises StatusError (INVALID_ARGUMENT) when there are more than ``most``.
    """
    count = 1
    for start in range(0, len(body), _CHUNK):  # a chunk at a time, so that others run in between
        count += sum(body.count(mark, start, start + _CHUNK) for mark in _MARKS)
        if count > most:
            raise invalid(
                f"The request body has more than {most} JSON tokens: send fewer values, or use gRPC"
            )
    return count


class JsonReader:
    """Reads bodies of ``most_tokens`` at most, large ones in at most ``processes`` processes."""

    def __init__(self, most_tokens: int = 2**24, processes: int | None = None) -> None:
        self._most_tokens = most_tokens
        self._places = threading.BoundedSemaphore(processes or min(4, os.cpu_count() or 1))
        self._turn = threading.BoundedSemaphore(1)  # of several at once each would slow all others
        self._running: set[subprocess.Popen[bytes]] = set()

    def read(
        self,
        job: Callable[[bytes], Result],
        body: bytes,
        deadline: Deadline,
        paused: Paused = contextlib.nullcontext,
    ) -> Result:
        """What a job, which can be pickled, makes of a body. Raises StatusError.

        Within ``paused`` the request waits for another process, and needs no time of this one.
        """
        tokens = count_tokens(body, self._most_tokens)
        if not any(tokens <= few and len(body) <= small for few, small in AT_ONCE):
            with paused(deadline), _place(self._places, deadline):
                return self._read_apart(job, body, deadline)
        with _place(self._turn, deadline) if tokens > _TRIFLE else contextlib.nullcontext():
            return job(body)

    def _read_apart(
        self, job: Callable[[bytes], Result], body: bytes, deadline: Deadline
    ) -> Result:
        process = self._process()
        with process:
            self._running.add(process)
            try:
                written, _ = process.communicate(pickle.dumps(job) + body, deadline.remaining())
            except subprocess.TimeoutExpired:
                raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT) from None
            finally:
                process.kill()
                self._running.discard(process)
        if process.returncode or not written:
            raise StatusError(
                "RESOURCE_EXHAUSTED",
                "The process that read the request body ended: is memory short?",
            )
        kind, result = pickle.loads(written)
        if kind == "refused":
            raise StatusError(*result)
        if kind == "failed":
            raise RuntimeError(f"Reading a request body failed:\n{result}")
        return result

    def _process(self) -> "subprocess.Popen[bytes]":
        """A process that runs `main`, which Ctrl-C for the server does not reach."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": path}
        try:
            return subprocess.Popen(
                _COMMAND, stdin=pipe, stdout=pipe, env=environment, start_new_session=True
            )
        except OSError as error:
            raise StatusError(
                "RESOURCE_EXHAUSTED",
                f"No process could be started to read the request body: {error.strerror}",
            ) from error

    def close(self) -> None:
        """End every process, whatever it reads."""
        for process in list(self._running):
            process.kill()


@contextlib.contextmanager
def _place(places: threading.Semaphore, deadline: Deadline) -> Iterator[None]:
    """Wait for a place and hold it. Raises StatusError at the deadline."""
    if not places.acquire(timeout=deadline.remaining()):
        raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)
    try:
        yield
    finally:
        places.release()


def outcome(job: Callable[[bytes], object], body: bytes) -> tuple[str, object]:
    """What a job gives, in words that a pipe can carry."""
    try:
        return "read", job(body)
    except StatusError as refused:
        return "refused", (refused.code, refused.text)
    except MemoryError:
        text = "There is too little memory to read the request body"
        return "refused", ("RESOURCE_EXHAUSTED", text)
    except Exception:
        return "failed", traceback.format_exc()


def main() -> None:
    """Read a job and a body from standard input, and write its outcome to standard output.

    On Linux it ends with the server, even where that is killed.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    job = pickle.load(sys.stdin.buffer)
    written = pickle.dumps(outcome(job, sys.stdin.buffer.read()), protocol=5)
    with contextlib.suppress(BrokenPipeError):  # the server has ended
        sys.stdout.buffer.write(written)
        sys.stdout.buffer.flush()
