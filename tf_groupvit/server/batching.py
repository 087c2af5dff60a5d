"""Batching: runs that many threads ask for in; fewer and larger runs, and each asker's rows of the
outputs, out.

What `--enable_batching` does (contract, section 10): every signature of every model has a queue of
batches, and so has any other combination of inputs and outputs. A batch is run when it is full or
has waited long enough, by one of a few threads that all queues share. What goes wrong with a batch
goes wrong for every request in it.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import ConfigError
from tf_groupvit.server.batch_arrays import Arrays, cut, merged, rows_of, split
from tf_groupvit.server.config_files import PER_MODEL, Parameters, read_parameters
from tf_groupvit.server.servable import Endpoint, Servable
from tf_groupvit.server.status import TIMED_OUT, StatusError, draining, invalid
from tf_groupvit.server.threads import lasting

LATE = "Run() timeout exceeded while waiting in batching queue"
# Arrays by tensor name, names of the outputs, seconds -> the outputs. Raises StatusError.
Run = Callable[[Arrays, list[str], float | None], list[np.ndarray]]


@dataclass(eq=False)
class Task:
    """One request's rows, or a part of them."""

    inputs: Arrays
    size: int
    ends: float | None  # on the monotonic clock
    done: threading.Event = field(default_factory=threading.Event)
    outputs: list[np.ndarray] = field(default_factory=list)
    error: Exception | None = None


@dataclass(eq=False)
class Batch:
    tasks: list[Task] = field(default_factory=list)
    size: int = 0
    opened: float = 0.0

    def add(self, task: Task) -> None:
        if not self.tasks:
            self.opened = time.monotonic()
        self.tasks.append(task)
        self.size += task.size


class Queue:
    """The batches of one combination of inputs and outputs; the last is open. Under the scheduler's
    lock.
    """

    def __init__(self, run: Run, fetches: list[str], parameters: Parameters) -> None:
        self.parameters = parameters
        self._run, self._fetches = run, fetches
        self._batches = deque([Batch()])

    def admit(self, task: Task) -> list[Task]:
        """Put a request into batches; its parts, of which there is one unless large requests are
        split.
        """
        most, limit = self.parameters.max_batch_size, self.parameters.batch_rows
        if task.size > most:
            raise invalid(f"Task size {task.size} is larger than maximum input batch size {most}")
        room = limit - self._batches[-1].size
        sizes = [task.size] if not self.parameters.splits else _parts(task.size, room, limit)
        if sizes[0] > room or len(sizes) > 1:
            new = len(sizes) - (sizes[0] <= room)
            if len(self._batches) + new > max(self.parameters.max_enqueued_batches, 1):
                raise StatusError(
                    "UNAVAILABLE",
                    "The batch scheduling queue to which this task was submitted is full;"
                    f" currently {len(self._batches)} batches enqueued and max_enqueued_batches is"
                    f" {self.parameters.max_enqueued_batches}",
                )
        parts = [task] if len(sizes) == 1 else [
            Task(inputs, size, task.ends) for inputs, size in zip(cut(task.inputs, sizes), sizes, strict=True)
        ]  # fmt: skip
        for part in parts:
            if self._batches[-1].size + part.size > limit:
                self._batches.append(Batch())
            self._batches[-1].add(part)
        return parts

    def due(self) -> float | None:
        """When the first batch may run; None where there is nothing to run."""
        first = self._batches[0]
        if len(self._batches) > 1 or first.size >= self.parameters.batch_rows:
            return first.opened
        return first.opened + self.parameters.batch_timeout_micros / 1e6 if first.tasks else None

    def withdraw(self, parts: list[Task]) -> bool:
        """Take out what has not begun to run; whether there was any."""
        found = False
        for batch in self._batches:
            kept = [task for task in batch.tasks if task not in parts]
            found = found or len(kept) < len(batch.tasks)
            batch.tasks, batch.size = kept, sum(task.size for task in kept)
        last = self._batches.pop()
        self._batches = deque([*(batch for batch in self._batches if batch.tasks), last])
        return found

    def take(self) -> Batch:
        batch = self._batches.popleft()
        if not self._batches:
            self._batches.append(Batch())
        return batch

    def run(self, batch: Batch) -> None:
        """Run a batch that was taken, without the lock; every task of it is done afterwards."""
        try:
            for task, outputs in zip(batch.tasks, self._outputs(batch), strict=True):
                task.outputs = outputs
        except Exception as error:  # raised again where the request waits
            for task in batch.tasks:
                task.error = error
        for task in batch.tasks:
            task.done.set()

    def _outputs(self, batch: Batch) -> list[list[np.ndarray]]:
        timeout = _longest(batch.tasks)
        padding = self.parameters.padded(batch.size) - batch.size
        inputs = merged(
            [task.inputs for task in batch.tasks], padding, self.parameters.pad_variable_length_inputs
        )  # fmt: skip
        added = len(next(iter(inputs.values()))) - batch.size
        outputs = [np.asarray(output) for output in self._run(inputs, self._fetches, timeout)]
        return split(outputs, [task.size for task in batch.tasks], added)


def _parts(size: int, room: int, limit: int) -> list[int]:
    """Sizes of the parts of a large request: the first fills the open batch, the others are batches
    of their own.
    """
    first = min(size, room) if room > 0 else min(size, limit)
    sizes = [first]
    while sum(sizes) < size:
        sizes.append(min(limit, size - sum(sizes)))
    return sizes


def _longest(tasks: list[Task]) -> float | None:
    """Seconds until the last task's deadline. Raises StatusError when all have passed."""
    if any(task.ends is None for task in tasks):
        return None
    left = max(task.ends for task in tasks if task.ends is not None) - time.monotonic()
    if left <= 0:
        raise StatusError("RESOURCE_EXHAUSTED", LATE)
    return left


class Scheduler:
    """The queues of a server and the threads that run their batches."""

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()
        self._queues: dict[Any, Queue] = {}
        self._closed = False
        self._threads = [lasting(f"batch-{n}", self._work) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        key: Any,
        run: Run,
        parameters: Parameters,
        inputs: Arrays,
        fetches: list[str],
        timeout: float | None,
    ) -> list[np.ndarray]:
        """Run with others of the same key; the outputs for these inputs. Raises StatusError."""
        ends = None if timeout is None else time.monotonic() + timeout
        task = Task(inputs, rows_of(inputs), ends)
        with self._changed:
            if self._closed:
                raise draining()
            queue = self._queues.setdefault(key, Queue(run, fetches, parameters))
            parts = queue.admit(task)
            self._changed.notify()
        for part in parts:
            if not part.done.wait(None if ends is None else max(ends - time.monotonic(), 0.0)):
                self._give_up(queue, parts)
        for part in parts:
            if isinstance(part.error, StatusError):
                raise StatusError(part.error.code, part.error.text)
            if part.error is not None:
                raise part.error
        return parts[0].outputs if len(parts) == 1 else [
            np.concatenate(outputs) for outputs in zip(*(part.outputs for part in parts), strict=True)
        ]  # fmt: skip

    def _give_up(self, queue: Queue, parts: list[Task]) -> None:
        """Raises StatusError for a request that is late, unless it is done after all. A batch that runs
        goes on.
        """
        with self._changed:
            waited = queue.withdraw(parts)
        if waited:
            raise StatusError("RESOURCE_EXHAUSTED", LATE)
        if not all(part.done.is_set() for part in parts):
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)

    def forget(self, owner: Any) -> None:
        """Drop the queues whose key begins with ``owner``, which nobody uses any more."""
        with self._changed:
            for key in [key for key in self._queues if key[0] is owner]:
                del self._queues[key]

    def _work(self) -> None:
        while True:
            with self._changed:
                found = self._next()
                while found is None:
                    if self._closed:
                        return
                    self._changed.wait(self._seconds_to_next())
                    found = self._next()
            queue, batch = found
            queue.run(batch)

    def _next(self) -> tuple[Queue, Batch] | None:
        """The batch that has been due for longest; once closed, every batch is due."""
        now = math.inf if self._closed else time.monotonic()
        dues = [
            (due, queue)
            for queue in self._queues.values()
            if (due := queue.due()) is not None and due <= now
        ]
        if not dues:
            return None
        queue = min(dues, key=lambda entry: entry[0])[1]
        return queue, queue.take()

    def _seconds_to_next(self) -> float | None:
        dues = [due for queue in self._queues.values() if (due := queue.due()) is not None]
        return max(min(dues) - time.monotonic(), 0.0) if dues else None

    def close(self) -> None:
        """Run what is there, at once, and end the threads; what comes later is refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(5.0)


class BatchedServable(Servable):
    """Runs of the same inputs and outputs are merged, whatever signature they come from."""

    def __init__(self, plain: Servable, scheduler: Scheduler, parameters: Parameters) -> None:
        super().__init__(plain.path, plain.session, plain.signatures)
        self._scheduler, self._parameters = scheduler, parameters

    def run(
        self, feeds: dict[Endpoint, np.ndarray], fetches: list[Endpoint], timeout: float | None
    ) -> list[np.ndarray]:
        endpoints = {endpoint.tensor_name: endpoint for endpoint in [*feeds, *fetches]}
        inputs = {endpoint.tensor_name: array for endpoint, array in feeds.items()}
        names = sorted({endpoint.tensor_name for endpoint in fetches})

        def run(arrays: Arrays, outputs: list[str], seconds: float | None) -> list[np.ndarray]:
            feeds = {endpoints[name]: array for name, array in arrays.items()}
            return Servable.run(self, feeds, [endpoints[name] for name in outputs], seconds)

        key = (self, frozenset(inputs), frozenset(names))
        results = self._scheduler.submit(key, run, self._parameters, inputs, names, timeout)
        found = dict(zip(names, results, strict=True))
        return [found[endpoint.tensor_name] for endpoint in fetches]

    def close(self) -> None:
        self._scheduler.forget(self)
        super().close()


def batched(
    servable: Servable, scheduler: Scheduler, parameters: Parameters, per_model: bool
) -> Servable:
    """The servable under batching; as it is where each model has parameters of its own and this one
    has none.

    Raises StatusError where the parameters are wrong, which fails the load.
    """
    if per_model:
        file = os.path.join(servable.path, PER_MODEL)
        if not tf.io.gfile.exists(file):
            return servable
        try:
            parameters = read_parameters(file)
        except ConfigError as error:
            raise invalid(str(error)) from None
    parameters.check()
    return BatchedServable(servable, scheduler, parameters)
