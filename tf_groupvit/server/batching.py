"""Batching (`--enable_batching`): merge runs of many threads, and give each its own rows.

Every signature of every model has a queue of batches, and so has any other combination of inputs
and outputs. A batch is run when it is full or has waited long enough, by one of a few threads that
all queues share. An error of a batch goes to every request in it. The rules and their texts are
those of the contract, section 10.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from tensorflow.python.lib.io import file_io

from tf_groupvit.errors import ConfigError
from tf_groupvit.server.config_files import PER_MODEL, Parameters, read_parameters
from tf_groupvit.server.servable import Endpoint, Servable
from tf_groupvit.server.status import TIMED_OUT, StatusError, draining, invalid
from tf_groupvit.server.tensor_protos import MOST_FILLED, filling_cost
from tf_groupvit.server.threads import lasting

LATE = "Run() timeout exceeded while waiting in batching queue"
Arrays = dict[str, np.ndarray]  # tensor name -> values
# Arrays by tensor name, names of the outputs, seconds -> the outputs. Raises StatusError.
Run = Callable[[Arrays, list[str], float | None], list[np.ndarray]]
_MOST_PADDED = 6  # dimensions that the real server pads


@dataclass(eq=False)
class Task:
    """One request's rows, or a part of them; times are on the monotonic clock."""

    inputs: Arrays
    size: int
    ends: float | None
    arrived: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    outputs: list[np.ndarray] = field(default_factory=list)
    error: Exception | None = None


class Queue:
    """The batches of one combination of inputs and outputs, of which the last is open.

    Used under the scheduler's lock, but for ``run``.
    """

    def __init__(self, run: Run, fetches: list[str], parameters: Parameters) -> None:
        self.parameters = parameters
        self._run, self._fetches = run, fetches
        self._batches: deque[list[Task]] = deque([[]])

    def admit(self, task: Task) -> list[Task]:
        """Put a request into batches; its parts, of which there is one unless it is split.

        Raises StatusError where the request is too large, or there are too many batches.
        """
        parameters, limit = self.parameters, self.parameters.batch_rows
        if task.size > parameters.max_batch_size:
            raise invalid(
                f"Task size {task.size} is larger than maximum input batch size"
                f" {parameters.max_batch_size}"
            )
        room = limit - _size(self._batches[-1])
        sizes = _parts(task.size, room, limit) if parameters.splits else [task.size]
        new = len(sizes) - (sizes[0] <= room)
        if new and len(self._batches) + new > max(parameters.max_enqueued_batches, 1):
            raise StatusError(
                "UNAVAILABLE",
                "The batch scheduling queue to which this task was submitted is full; currently"
                f" {len(self._batches)} batches enqueued and max_enqueued_batches is"
                f" {parameters.max_enqueued_batches}",
            )
        parts = [task]
        if len(sizes) > 1:
            cut = zip(_cut_rows(task.inputs, sizes), sizes, strict=True)
            parts = [Task(inputs, size, task.ends) for inputs, size in cut]
        for part in parts:
            if _size(self._batches[-1]) + part.size > limit:
                self._batches.append([])
            self._batches[-1].append(part)
        return parts

    def due(self) -> float | None:
        """When the first batch may run; None where there is nothing to run."""
        first = self._batches[0]
        if not first:
            return None
        full = len(self._batches) > 1 or _size(first) >= self.parameters.batch_rows
        return first[0].arrived + (0.0 if full else self.parameters.batch_timeout_micros / 1e6)

    def withdraw(self, parts: list[Task]) -> bool:
        """Take out the parts that have not begun to run; whether there were any."""
        kept = [[task for task in batch if task not in parts] for batch in self._batches]
        found = sum(map(len, kept)) < sum(map(len, self._batches))
        self._batches = deque([*filter(None, kept[:-1]), kept[-1]])
        return found

    def take(self) -> list[Task]:
        """The first batch, removed from the queue."""
        batch = self._batches.popleft()
        if not self._batches:
            self._batches.append([])
        return batch

    def run(self, batch: list[Task]) -> None:
        """Run a batch that was taken, without the lock; all its tasks are done afterwards."""
        try:
            for task, outputs in zip(batch, self._outputs(batch), strict=True):
                task.outputs = outputs
        except Exception as error:  # raised again where the request waits
            for task in batch:
                task.error = error
        for task in batch:
            task.done.set()

    def _outputs(self, batch: list[Task]) -> list[list[np.ndarray]]:
        ends = [math.inf if task.ends is None else task.ends for task in batch]
        left = max(ends) - time.monotonic()
        if left <= 0:
            raise StatusError("RESOURCE_EXHAUSTED", LATE)
        rows = _size(batch)
        padding = self.parameters.padded(rows) - rows
        pad_lengths = self.parameters.pad_variable_length_inputs
        inputs = merged([task.inputs for task in batch], padding, pad_lengths)
        added = len(next(iter(inputs.values()))) - rows
        outputs = self._run(inputs, self._fetches, None if left == math.inf else left)
        return _split(list(map(np.asarray, outputs)), [task.size for task in batch], added)


def _size(batch: list[Task]) -> int:
    return sum(task.size for task in batch)


def _parts(size: int, room: int, limit: int) -> list[int]:
    """Sizes of the parts of a large request: the first fills the open batch, the others are batches
    of their own.
    """
    sizes = [min(size, room if room > 0 else limit)]
    while sum(sizes) < size:
        sizes.append(min(limit, size - sum(sizes)))
    return sizes


class Scheduler:
    """The queues of a server and the threads that run their batches."""

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()
        self._queues: dict[tuple[Hashable, ...], Queue] = {}
        self._closed = False
        self._threads = [lasting(f"batch-{n}", self._work) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        key: tuple[Hashable, ...],
        run: Run,
        parameters: Parameters,
        inputs: Arrays,
        fetches: list[str],
        timeout: float | None,
    ) -> list[np.ndarray]:
        """Run (N, ...) inputs with others of the same key; the (N, ...) outputs for their rows.

        ``timeout`` is in seconds. Raises StatusError, and what the run raises.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        task = Task(inputs, _count_rows(inputs), ends)
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
            if isinstance(part.error, StatusError):  # several threads may raise it
                raise StatusError(part.error.code, part.error.text)
            if part.error is not None:
                raise part.error
        if len(parts) == 1:
            return parts[0].outputs
        return list(map(np.concatenate, zip(*(part.outputs for part in parts), strict=True)))

    def _give_up(self, queue: Queue, parts: list[Task]) -> None:
        """Raises StatusError for a request that is late, unless it is done after all. A batch that
        runs goes on.
        """
        with self._changed:
            waited = queue.withdraw(parts)
        if waited:
            raise StatusError("RESOURCE_EXHAUSTED", LATE)
        if not all(part.done.is_set() for part in parts):
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)

    def forget(self, owner: Hashable) -> None:
        """Drop the queues of an owner, with which keys begin, when nobody uses it any more."""
        with self._changed:
            for key in [key for key in self._queues if key[0] is owner]:
                del self._queues[key]

    def _work(self) -> None:
        """Run the batch that has been due for longest, until closed; then every batch is due."""
        while True:
            with self._changed:
                dues = [(queue.due(), queue) for queue in self._queues.values()]
                waiting = [(due, queue) for due, queue in dues if due is not None]
                due, queue = min(waiting, key=lambda entry: entry[0], default=(math.inf, None))
                seconds = due - time.monotonic()
                if self._closed and queue is None:
                    return
                if queue is None or (seconds > 0 and not self._closed):
                    self._changed.wait(None if queue is None else seconds)
                    continue
                batch = queue.take()
            queue.run(batch)

    def close(self) -> None:
        """Run what is there, at once, and end the threads; later requests are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(5.0)


class BatchedServable(Servable):
    """Runs of the same inputs and outputs are merged, whatever signature they are of."""

    def __init__(self, plain: Servable, scheduler: Scheduler, parameters: Parameters) -> None:
        super().__init__(plain.path, plain.session, plain.signatures)
        self._scheduler, self._parameters = scheduler, parameters

    def run(
        self, feeds: dict[Endpoint, np.ndarray], fetches: list[Endpoint], timeout: float | None
    ) -> list[np.ndarray]:
        """As `Servable.run`, for (N, ...) arrays whose first dimension is the same."""
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
        """Drop the queues and the session."""
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
        if not file_io.file_exists_v2(file):
            return servable
        try:
            parameters = read_parameters(file)
        except ConfigError as error:
            raise invalid(str(error)) from None
    parameters.check()
    return BatchedServable(servable, scheduler, parameters)


def _count_rows(arrays: Arrays) -> int:
    """The first dimension that all inputs of a request share. Raises StatusError."""
    if not arrays:
        raise invalid("Batching Run() must have at least one input tensor")
    if not all(array.ndim for array in arrays.values()):
        raise invalid("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) > 1:
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def _cut_rows(arrays: Arrays, sizes: Sequence[int]) -> list[Arrays]:
    """The inputs cut into parts of these numbers of rows."""
    return [
        {name: array[end - size : end] for name, array in arrays.items()}
        for end, size in zip(np.cumsum(sizes), sizes, strict=True)
    ]


def merged(requests: Sequence[Arrays], padding: int, pad_lengths: bool) -> Arrays:
    """One array (rows of all requests + padding, ...) for each input.

    The padding repeats the last request's first row. With ``pad_lengths`` other dimensions are made
    equal. Raises StatusError where types or dimensions do not fit together.
    """
    return {
        name: _joined(name, [arrays[name] for arrays in requests], padding, pad_lengths)
        for name in sorted(requests[0])
    }


def _joined(name: str, parts: list[np.ndarray], padding: int, pad_lengths: bool) -> np.ndarray:
    if len({part.dtype for part in parts}) > 1:
        raise StatusError(
            "INTERNAL",
            f"Tensor concat operation failed: the tensors of '{name}' have different types",
        )
    if pad_lengths:
        parts = _lengthened(parts)
    elif any(part.shape[1:] != parts[0].shape[1:] for part in parts):
        raise StatusError(
            "FAILED_PRECONDITION",
            f"Tensors with name '{name}' from different tasks have different shapes and padding is"
            " turned off. Set pad_variable_length_inputs to true, or ensure that all tensors with"
            " the same name have equal dimensions starting with the first dim.",
        )
    rows = [parts[-1][:1]] * padding if len(parts[-1]) else []
    return np.concatenate([*parts, *rows]) if len(parts) + len(rows) > 1 else parts[0]


def _lengthened(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Every dimension but the first as long as the longest, filled up with each array's own first
    value.
    """
    ranks = {part.ndim for part in parts}
    if max(ranks) > _MOST_PADDED:
        raise invalid("Only tensors with rank from 1 to 6 can be padded.")
    if len(ranks) > 1:
        raise invalid("Only tensors of one rank can be padded.")
    longest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    row = math.prod(longest)
    added = sum(
        (len(part) * row - part.size) * filling_cost(part.flat[0]) for part in parts if part.size
    )
    if added > MOST_FILLED:
        raise invalid(
            f"Padding would add {added:,} elements to the batch; at most {MOST_FILLED:,} are added."
        )
    if any(not part.size and len(part) * row for part in parts):
        raise invalid("Got empty tensor in batch of non-empty tensors.")
    return [_filled(part, (len(part), *longest)) for part in parts]


def _filled(part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if not part.size or part.shape == shape:
        return part.reshape(shape)
    full = np.full(shape, part.flat[0], part.dtype)
    full[tuple(map(slice, part.shape))] = part
    return full


def _split(outputs: list[np.ndarray], sizes: Sequence[int], padding: int) -> list[list[np.ndarray]]:
    """Each request's rows of the outputs. Raises StatusError for an output that has no row for each
    input row.
    """
    for output in outputs:
        if not output.ndim:
            raise StatusError("FAILED_PRECONDITION", "Batched output tensor has 0 dimensions")
        if len(output) != sum(sizes) + padding:
            raise StatusError(
                "FAILED_PRECONDITION",
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension"
                " sizes of the input tensors",
            )
    return [
        [output[end - size : end] for output in outputs]
        for end, size in zip(np.cumsum(sizes), sizes, strict=True)
    ]
