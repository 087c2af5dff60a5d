"""Large JSON bodies: bytes and a deadline in; what `json_reading` makes of them out, read where
they stop nobody.

Python's parsers, in C and in Python, hold the interpreter for as long as they run, and both front
ends with it. So a body of many tokens, or one that needs the slow scanner, is read by a process of
its own, which is ended when the time of its request is over. Small bodies, nearly all of them, are
read at once.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from tf_groupvit.server.admission import Deadline
from tf_groupvit.server.json_filling import Arrays, Types
from tf_groupvit.server.json_reading import Slow, read_examples, read_predict
from tf_groupvit.server.status import StatusError, invalid

# Read at once, in some 20 ms at most: so many tokens by the parser in C, by the scanner in Python;
# so many bytes.
FEW, FEW_SCANNED, SMALL = 50_000, 2_000, 2**25
_MANY = 1_000_000  # tokens after which a process is ended, so that its memory is free again
_MARKS = (b",", b":", b"[", b"{", b"\\")
_CHUNK = 2**20
Paused = Callable[[Deadline], AbstractContextManager[Any]]


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


class Reader:
    """Reads bodies, those that take long in at most ``processes`` processes."""

    def __init__(self, most_tokens: int = 2**24, processes: int | None = None) -> None:
        self._most_tokens = most_tokens
        self._free = threading.BoundedSemaphore(processes or min(4, os.cpu_count() or 1))
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._all: set[subprocess.Popen[bytes]] = set()

    def predict(
        self,
        body: bytes,
        types_of: Callable[[str], Types],
        deadline: Deadline,
        paused: Paused = nullcontext,
    ) -> tuple[str, str, Arrays]:
        """As `read_predict`; ``types_of`` can be pickled. Raises StatusError.

        Within ``paused`` the body waits for another process, and needs no time of this one.
        """
        return self._read(partial(read_predict, types_of=types_of), body, deadline, paused)

    def examples(
        self, body: bytes, deadline: Deadline, paused: Paused = nullcontext
    ) -> tuple[str, int]:
        """As `read_examples`. Raises StatusError."""
        return self._read(read_examples, body, deadline, paused)

    def _read(
        self, job: Callable[..., Any], body: bytes, deadline: Deadline, paused: Paused
    ) -> Any:
        tokens = count_tokens(body, self._most_tokens)
        if tokens <= FEW and len(body) <= SMALL:
            with contextlib.suppress(Slow):
                return job(body, scans=tokens <= FEW_SCANNED)
        with paused(deadline):
            if not self._free.acquire(timeout=deadline.remaining()):
                deadline.remaining()
            try:
                return self._apart(job, body, deadline, tokens)
            finally:
                self._free.release()

    def _apart(self, job: Callable[..., Any], body: bytes, deadline: Deadline, tokens: int) -> Any:
        process = self._process()
        left = deadline.remaining()
        end = None if left is None else threading.Timer(left, process.kill)
        if end is not None:
            end.start()
        try:
            kind, result = _ask(process, (job, body))
        except (EOFError, OSError, pickle.UnpicklingError):
            self._end(process)
            deadline.remaining()
            raise StatusError(
                "RESOURCE_EXHAUSTED",
                "The process that read the request body ended: is memory short?",
            ) from None
        finally:
            if end is not None:
                end.cancel()
        self._give_back(process, tokens)
        if kind == "refused":
            raise StatusError(*result)
        if kind == "failed":
            raise RuntimeError(f"Reading a request body failed:\n{result}")
        return result

    def _process(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._idle:
                return self._idle.pop()
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            # Ctrl-C is for the server
            env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        with self._lock:
            self._all.add(process)
        return process

    def _give_back(self, process: "subprocess.Popen[bytes]", tokens: int) -> None:
        if tokens > _MANY:
            self._end(process)
            return
        with self._lock:
            if process in self._all:
                self._idle.append(process)

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        process.kill()
        with self._lock:
            self._all.discard(process)
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        process.wait()

    def close(self) -> None:
        """End every process, whatever it reads."""
        with self._lock:
            idle, self._idle = self._idle, []
            busy = self._all - set(idle)
        for process in busy:
            process.kill()  # whoever waits for it ends it
        for process in idle:
            self._end(process)


def _ask(process: "subprocess.Popen[bytes]", question: Any) -> Any:
    assert process.stdin is not None and process.stdout is not None
    pickle.dump(question, process.stdin, protocol=5)
    process.stdin.flush()
    return pickle.load(process.stdout)


def outcome(job: Callable[[bytes], Any], body: bytes) -> tuple[str, Any]:
    """What a job gives, in words that a pipe can carry."""
    try:
        return "read", job(body)
    except StatusError as refusal:
        return "refused", (refusal.code, refusal.text)
    except MemoryError:
        return "refused", (
            "RESOURCE_EXHAUSTED",
            "There is too little memory to read the request body",
        )
    except Exception:
        return "failed", traceback.format_exc()


def _end_with_parent() -> None:
    """End this process when the server has gone without ending it."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Read questions from standard input and write their outcomes to standard output, until there
    are no more.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # A question that is cut off: the server has ended.
    with contextlib.suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):
        while True:
            pickle.dump(outcome(*pickle.load(sys.stdin.buffer)), sys.stdout.buffer, protocol=5)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
