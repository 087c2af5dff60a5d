"""Which devices and machines train together, and what their processes tell each other.

``TF_CONFIG`` names the processes, as TensorFlow has it. TensorFlow is not loaded before a ``Team``
is made: its workers must be set up before anything else of TensorFlow runs.
"""

import faulthandler
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tf_groupvit.errors import InputError, TrainingError, one_line
from tf_groupvit.types import Tensor

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tf_groupvit.training.recipe import Recipe

ALL = "all"
TIMEOUT = 600.0  # seconds that a worker waits for the others, unless another time is given
SAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
LONGEST_FACTS = 8192  # bytes that a worker says of itself
SHOWN = 40  # letters of a setting that a message shows


@dataclass(frozen=True)
class Cluster:
    """How many processes train together, and which of them this is; number 0 writes."""

    worker: int = 0
    workers: int = 1


def read_cluster(text: str | None) -> Cluster:
    """What ``TF_CONFIG`` says; without it, or with one process alone, there are no others.

    Raises:
        InputError: it is not JSON of TensorFlow's form, or names other tasks than those that train.
    """
    if not text or not text.strip():
        return Cluster()
    try:
        config = json.loads(text)
        tasks = {kind: list(hosts) for kind, hosts in config.get("cluster", {}).items() if hosts}
        kind, index = config["task"]["type"], int(config["task"]["index"]) if tasks else 0
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, KeyError) and not config.get("cluster"):
            return Cluster()
        raise InputError(
            f"TF_CONFIG is {one_line(text, 60)!r}: expected JSON such as {SAMPLE}."
        ) from error
    if not tasks:
        return Cluster()
    if strangers := (tasks.keys() | {kind}) - {"chief", "worker"}:
        raise InputError(
            f"TF_CONFIG has a task {min(strangers)!r}: training takes chief and worker alone."
        )
    if not 0 <= index < len(tasks.get(kind, ())):
        raise InputError(
            f"TF_CONFIG says that this is {kind} {index}, of {len(tasks.get(kind, ()))}: count"
            " from 0."
        )
    chiefs = len(tasks.get("chief", ()))
    number = index if kind == "chief" else chiefs + index
    return Cluster(number, sum(map(len, tasks.values())))


def check_devices(devices: str) -> None:
    """Raise InputError unless ``devices`` is a number from 1, or ``all``."""
    if devices != ALL and not (devices.isdecimal() and int(devices) > 0):
        raise InputError(f"--devices is {devices!r}: expected a number from 1, or all.")


def least_replicas(devices: str, cluster: Cluster) -> int:
    """How many replicas a run has at least, as far as is known without TensorFlow."""
    return cluster.workers * (1 if devices == ALL else int(devices))


def check_precision(recipe: "Recipe", replicas: int) -> None:
    """Raise InputError for a recipe whose gradients several replicas cannot accumulate."""
    if replicas > 1 < recipe.optimizer.accumulation and recipe.precision == "mixed_float16":
        raise InputError(
            "Several replicas cannot accumulate gradients in mixed_float16: take mixed_bfloat16,"
            " or no accumulation."
        )


def describe(devices: str, cluster: Cluster) -> str:
    """What a run is on, in words that follow what it trains on; nothing for one device."""
    if cluster.workers > 1:
        return f" as worker {cluster.worker} of {cluster.workers}"
    if devices == ALL:
        return " on all devices"
    return f" on {int(devices)} devices" if int(devices) > 1 else ""


class Watch:
    """Ends this process when the others have kept it waiting for too long.

    TensorFlow tells of a worker that was killed; one that hangs, or a network that is gone, it does
    not tell of in any bounded time, and what waits for it cannot be interrupted.
    """

    def __init__(self, seconds: float = TIMEOUT, end: Callable[[str], object] | None = None):
        self.seconds, self.end = seconds, end or end_process
        self.kept: Callable[[], str] = str  # the last good state, in words
        self._until: float | None = None
        self._what = ""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """A block that waits for others, called ``what`` in a message."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, daemon=True, name="watch")
            self._thread.start()
        with self._changed:
            before = self._what, self._until
            self._what, self._until = what, time.monotonic() + self.seconds
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._what, self._until = before
                self._changed.notify()

    def _look(self) -> None:
        with self._changed:
            while True:
                left = None if self._until is None else self._until - time.monotonic()
                if left is not None and left <= 0:
                    self.end(too_long(self._what, self.seconds, self.kept()))
                    self._until = None
                    continue
                self._changed.wait(left)


@contextmanager
def ended_after(seconds: float, message: str) -> Iterator[None]:
    """A block in which no thread of Python may run: TensorFlow lets none while workers meet.

    After so many seconds this process ends with code 1, which a thread of C sees to, and another
    process, which that thread writes to, has the message.
    """
    program = "import sys; sys.stdin.buffer.read(1) and print(sys.argv[1], file=sys.stderr)"
    words = [sys.executable, "-c", program, f"Error: {message}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as speaker:
        assert speaker.stdin is not None
        faulthandler.dump_traceback_later(seconds, exit=True, file=speaker.stdin)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def end_process(message: str) -> None:
    """Write an error and end with code 2, at once: TensorFlow would wait for lost workers."""
    print(f"Error: {message}", file=sys.stderr, flush=True)
    os._exit(2)


@dataclass(frozen=True)
class Team:
    """The replicas of a run, which together train as one process; one alone unless told otherwise.

    Attributes:
        strategy: ``tf.distribute``'s, where there are several replicas.
        cluster: the processes, each with as many replicas.
        watch: over each wait for other processes.
    """

    strategy: "tf.distribute.Strategy | None" = None
    cluster: Cluster = Cluster()
    watch: Watch = field(default_factory=Watch)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, measures and reports."""
        return self.cluster.worker == 0

    @property
    def replicas(self) -> int:
        """Of all processes."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def own_replicas(self) -> int:
        """Of this process."""
        return self.replicas // self.cluster.workers

    def scope(self) -> AbstractContextManager[object]:
        """Where variables are made."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def split(self, batch: Mapping[str, Tensor], of_all: Sequence[str]) -> Any:
        """Rows (B, ...) that lie one own replica's after the other, as ``strategy.run`` takes them.

        What ``of_all`` names has no row for each picture: each replica is given all of it.
        """
        strategy: Any = self.strategy

        def part(context: "tf.distribute.experimental.ValueContext") -> dict[str, Tensor]:
            number = context.replica_id_in_sync_group % self.own_replicas
            found = {}
            for name, values in batch.items():
                n = values.shape[0] // self.own_replicas
                whole = name in of_all
                found[name] = values if whole else values[number * n : (number + 1) * n]
            return found

        return strategy.experimental_distribute_values_from_function(part)

    def exchange(self, what: str, row: Sequence[int]) -> list[list[int]]:
        """What each process says, in their order; all say as many numbers at the same time."""
        if self.cluster.workers == 1:
            return [list(row)]
        import tensorflow as tf

        # Few lengths, for each of which TensorFlow traces once.
        filling = [0] * (max(16, 1 << (len(row) - 1).bit_length()) - len(row))
        with self.waiting(what):
            rows = self._gather(tf.constant([*row, *filling], tf.int64)).numpy()
        found: list[list[int]] = rows[:: self.own_replicas, : len(row)].tolist()
        return found

    @cached_property
    def _gather(self) -> Callable[[Tensor], Tensor]:
        """A row of each replica -> all of them."""
        import tensorflow as tf

        def gather(values: Tensor) -> Tensor:
            rows = tf.identity(values)[None]
            return tf.distribute.get_replica_context().all_gather(rows, axis=0)

        return self._on_replicas(gather)

    def share_values(self, variables: "Sequence[keras.Variable]") -> None:
        """Give the first process's values to all."""
        if self.cluster.workers == 1:
            return
        import keras
        import numpy as np
        import tensorflow as tf

        def give(values: Tensor) -> Tensor:
            context = tf.distribute.get_replica_context()
            mine = context.replica_id_in_sync_group == 0
            own = tf.where(mine, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        # One sum of whole numbers with zeros gives the bits of values of every kind.
        arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
        said = b"".join(array.tobytes() for array in arrays)
        row = np.frombuffer(said.ljust(-(-len(said) // 4) * 4), np.int32)
        with self.waiting("The start"):
            found = self._on_replicas(give)(tf.constant(row)).numpy().tobytes()
        at = 0
        for variable, array in zip(variables, arrays, strict=True):
            values = np.frombuffer(found, array.dtype, array.size, at)
            variable.assign(values.reshape(array.shape))
            at += array.nbytes

    def _on_replicas(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A function that all replicas run -> one that gives the first own replica's result."""
        import tensorflow as tf

        strategy: Any = self.strategy
        run = tf.function(lambda values: strategy.run(function, args=(values,)), autograph=False)

        def first(value: Any) -> Tensor:
            return strategy.experimental_local_results(value)[0]

        return lambda values: tf.nest.map_structure(first, run(values))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A block that waits for the other processes, called ``what`` in a message.

        Raises:
            TrainingError: one of them is lost.
        """
        if self.cluster.workers == 1:
            yield
            return
        import tensorflow as tf

        try:
            with self.watch.over(what):
                yield
        except (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.InternalError,
            tf.errors.DeadlineExceededError,
        ) as error:
            raise TrainingError(lost(what, error, self.watch.kept())) from error

    def agree(self, facts: Mapping[str, object]) -> None:
        """Compare what each process was started with.

        Raises:
            TrainingError: a process differs from the first one; with what and how.
        """
        if self.cluster.workers == 1:
            return
        said = json.dumps({name: shortened(value) for name, value in _single(facts)}).encode()
        number = int.from_bytes(hashlib.sha256(said).digest()[:4], "big")
        row = [number, *said[:LONGEST_FACTS].ljust(LONGEST_FACTS)]
        rows = self.exchange("The start", row)
        for worker, other in enumerate(rows):
            if other[0] != rows[0][0]:
                raise TrainingError(difference(worker, *map(_facts_of, (rows[0], other))))


ALONE = Team()


def _facts_of(row: Sequence[int]) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(bytes(row[1:]))
    except ValueError:
        return {}
    return found


def _single(facts: Mapping[str, object], within: str = "") -> Iterator[tuple[str, object]]:
    """Each setting by its name; one in a table as ``table.setting``."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _single(value, f"{within}{name}.")
        else:
            yield within + name, value


def shortened(value: object) -> str:
    """A value that two processes compare: itself, or what stands for it where it is long."""
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= SHOWN else hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(worker: int, first: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The message for a worker that was started otherwise than the first one."""
    names = [name for name in first if first[name] != other.get(name)] or [*other] or ["settings"]
    name = names[0]
    return (
        f"Worker {worker} has {name} {other.get(name)}, worker 0 has {first.get(name)}: start all"
        " with the same versions, recipe, options and data."
    )


def lost(what: str, error: BaseException, kept: str = "") -> str:
    """The message for an error of TensorFlow while other workers are waited for."""
    reason = str(error).partition("\n")[0].rpartition("aborted by: ")[2]
    return f"{what} did not end: another worker is lost ({one_line(reason, 120)}){to_do(kept)}"


def too_long(what: str, seconds: float, kept: str = "") -> str:
    """The message for a wait that other workers do not end."""
    return (
        f"{what} did not end within {seconds:g} seconds: another worker hangs or cannot be"
        f" reached{to_do(kept)}"
    )


def to_do(kept: str) -> str:
    """The end of a message: the last good state, in words, and what to do."""
    good = f"; {kept}" if kept else ""
    return f"{good}: start all workers again with the same command."


def make_team(devices: str, cluster: Cluster = Cluster(), timeout: float = TIMEOUT) -> Team:
    """The devices of this machine that train, or of all processes of ``TF_CONFIG``.

    Args:
        devices: how many of each machine's GPUs, or of its CPU devices where it has none; ``all``
            of them. With one device and one process nothing is distributed.

    Raises:
        InputError: there are fewer devices, or Keras has another backend than TensorFlow.
        TrainingError: another process cannot be reached.
    """
    check_devices(devices)
    if devices == "1" and cluster.workers == 1:
        return Team()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "Several devices or machines train with Keras' TensorFlow backend, not with"
            f" {keras.backend.backend()!r}: unset KERAS_BACKEND, or train on one device."
        )
    import tensorflow as tf

    if cluster.workers > 1:
        return _make_workers(devices, cluster, timeout)
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    found = [device.name for device in tf.config.list_logical_devices(kind)]
    count = len(found) if devices == ALL else int(devices)
    _check_count(count, len(found), kind)
    if count == 1:
        return Team()
    return Team(tf.distribute.MirroredStrategy(found[:count]))


def _check_count(wanted: int, found: int, kind: str) -> None:
    if wanted > found:
        raise InputError(
            f"--devices is {wanted}, and there {'is' if found == 1 else 'are'} {found} of kind"
            f" {kind}: take fewer, or all."
        )


def _make_workers(devices: str, cluster: Cluster, timeout: float) -> Team:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if devices != ALL:
        kind = "GPU" if gpus else "CPU"
        _check_count(int(devices), len(gpus) or 1, kind)
        if gpus:
            tf.config.set_visible_devices(gpus[: int(devices)], "GPU")
    # TensorFlow's rewriting of functions would place a part of how pictures are decoded and cut on
    # worker 0, which no other worker's data can reach.
    tf.config.optimizer.set_experimental_options({"function_optimization": False})
    try:
        with ended_after(timeout, too_long("The start", timeout)):
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise TrainingError(lost("The start", error)) from error
    team = Team(strategy, cluster, Watch(timeout))
    if team.replicas % cluster.workers:
        raise InputError(
            f"{cluster.workers} workers have {team.replicas} devices: give each as many."
        )
    return team


def versions() -> dict[str, str]:
    """What workers must have in common besides their recipe."""
    from importlib.metadata import version

    import keras
    import tensorflow as tf

    return {
        "tf-groupvit": version("tf-groupvit"),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
    }
