"""Annotate on a Ray cluster: the steps of one machine, where workers segment and write.

    items in chunks -> ray.data -> workers, each with a segmenter -> a part for each chunk

Scheduling, and doing again what a worker was at when it died, is Ray's. A chunk that is done again
writes a part of the same name, so that no picture gets two records.
"""

import logging
import os
import pickle
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from tf_groupvit.annotation.parts import Parts
from tf_groupvit.annotation.run import Clock, Recorder, Run
from tf_groupvit.annotation.sources import COLUMNS, ID_COLUMN, Item, picture_id
from tf_groupvit.errors import GroupViTError, InputError, one_line
from tf_groupvit.storage import Output, picture_of, place_of

CHUNK = 256  # pictures, about, that a worker does at a time at most, and that make a part
SHARES = 4  # chunks for each worker at least, where there are few pictures
ROWS = 64  # of a dataset that a worker does at a time, and that make a part: they are in memory
ID_COLUMNS = ID_COLUMN, "path"  # the first that a dataset has
CONNECT_SECONDS = 10.0
LOCAL_ONLY = "memory"  # a storage within one process

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class OnRay:
    """Annotates on a cluster.

    Attributes:
        recorder: makes a recorder with a clock; it travels to the workers once.
        step: is called for each picture.
        batch_size: parts are of whole batches: scores depend, by rounding, on how many pictures a
            batch has.
        workers, address: see ``run.annotate``.

    Raises:
        InputError: the output is in the memory of this process; or, when it works, Ray is not
            reached, or there are fewer processors than workers.
    """

    recorder: Callable[[Clock], Recorder]
    run: Run
    step: Callable[[], None]
    batch_size: int
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        output = self.run.parts.output
        if LOCAL_ONLY in output.system.protocol:
            raise InputError(f"'{output.location}' is in this process, where no worker can write.")

    def work_on_items(self, items: Iterable[Item]) -> None:
        """Annotate the items.

        The list of them is held in the memory of this process, some hundred bytes a picture.
        """
        waiting = list(items)
        if not waiting:
            return
        import ray

        with joined(self.address):
            count, cores = _shares(self.workers)
            size = _size(len(waiting), SHARES * count, self.batch_size)
            chunks = list(_chunks(waiting, size, self.run.parts.next_number()))
            del waiting
            dataset = ray.data.from_items(chunks, override_num_blocks=len(chunks))
            self._work(dataset, 1, count, cores, cores, _Worker)

    def work_on_dataset(self, dataset: Any, column: str | None) -> None:
        """Annotate a ``ray.data.Dataset``, whose pictures are in ``column``; it is read once.

        Workers ask Ray for half of their processors, so that the steps of the dataset have the
        rest.
        """
        with joined(self.address):
            count, cores = _shares(self.workers)
            arguments = *_columns(dataset.schema(), column), self.run.parts.next_number()
            rows = max(1, ROWS // self.batch_size) * self.batch_size
            self._work(dataset, rows, count, cores, cores / 2, _DatasetWorker, *arguments)

    def _work(
        self,
        dataset: Any,
        rows: int,
        count: int,
        cores: int,
        asked: float,
        worker: type["_Worker"],
        *arguments: Any,
    ) -> None:
        """Give ``rows`` of a dataset at a time to ``count`` workers; count what they have done.

        A worker uses ``cores`` processors, and has Ray asked for ``asked``. Raises what kept one of
        them from its work.
        """
        import ray

        answers = dataset.map_batches(
            worker,
            batch_size=rows,
            fn_constructor_args=(
                [ray.put(self.recorder)],
                self.run.parts.output,
                cores,
                *arguments,
            ),
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=asked,
        )
        for row in answers.iter_rows():
            answer = pickle.loads(row["answer"])
            if isinstance(answer, Exception):
                raise answer
            ids, pictures, seconds = answer
            for item_id in ids:
                self.run.is_second(item_id)
            self.run.pictures += pictures
            for part, value in seconds.items():
                self.run.clock.add(part, value / count)
            for _ in range(pictures):
                self.step()
        self.run.parts.forget_repeated()  # of workers of a run before that outlived it


def check_address(address: str | None) -> None:
    """Raise ``InputError`` where nothing answers at the host and port of a cluster, or not as Ray.

    Ray itself takes 40 seconds for that. What it answers with TLS is left to it.
    """
    import grpc

    place = _place(address)
    found = re.fullmatch(r"(?:ray://)?\[?([^/\]]+?)\]?:(\d{1,5})", place)
    if not found:
        return
    try:
        socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
            options = [("grpc.enable_http_proxy", 0)]  # as Ray's own
            with grpc.insecure_channel(place.removeprefix("ray://"), options) as channel:
                grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
    except (OSError, OverflowError, grpc.FutureTimeoutError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        if isinstance(error, grpc.FutureTimeoutError):
            reason = "what answers there is not Ray"
        raise InputError(
            f"Ray at '{place}' is not reached: {reason}. Check the address and its port."
        ) from error


def _place(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _columns(schema: Any, wanted: str | None) -> tuple[str, str]:
    """The columns of pictures and of ids."""
    names = [] if schema is None else list(schema.names)
    if not names:
        raise InputError("There is no picture to annotate: the dataset is empty.")
    column = wanted or next((name for name in COLUMNS if name in names), None)
    name = next((name for name in ID_COLUMNS if name in names), None)
    if column is None or column not in names or name is None:
        missing = " or ".join(ID_COLUMNS) if column in names else f"'{column or COLUMNS[0]}'"
        raise InputError(
            f"The dataset has no column {missing}, but {', '.join(names)}: expected pictures (the"
            " argument column names them), and an id or a path for each."
        )
    return column, name


@contextmanager
def joined(address: str | None = None) -> Iterator[None]:
    """A cluster that runs, or one of this machine for the length of the block.

    A process that is in a cluster stays there. Ray reports how it is used to those who make it
    unless ``RAY_USAGE_STATS_ENABLED`` is 0, which it is here unless the user has set it.

    Raises:
        InputError: there is no Ray, or this process is in another cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    place = _place(address)
    if place != "local":  # one try takes 40 seconds where something else answers; Ray has twenty
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    import ray
    import ray.data

    if ray.is_initialized():
        if address not in (None, "auto", "local", ray.get_runtime_context().gcs_address):
            raise InputError(
                f"Ray at '{address}' cannot be used: this process is in another cluster: leave the"
                " address out, or call ray.shutdown() first."
            )
        yield
        return
    dashboard = False if place == "local" else None
    try:
        ray.init(
            place, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"Ray at '{place}' cannot be used: {reason}.") from error
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield
    finally:
        ray.shutdown()


def _shares(workers: int | None) -> tuple[int, int]:
    """How many workers there are, and how many processors each has to itself."""
    import ray

    machines = [
        int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node.get("Alive", True)
    ]
    machines = [cores for cores in machines if cores]
    count = workers or max(1, len(machines))
    fitting = [
        cores
        for cores in range(1, max(machines, default=0) + 1)
        if sum(machine // cores for machine in machines) >= count
    ]
    if not fitting:
        raise InputError(
            f"There are {count} workers and {sum(machines)} processors: name fewer workers."
        )
    return count, fitting[-1]


def _size(pictures: int, chunks: int, batch_size: int) -> int:
    """Of how many pictures a chunk is: of whole batches, and so that there are about as many."""
    wanted = min(CHUNK, -(-pictures // chunks))
    return max(1, round(wanted / batch_size)) * batch_size


def _chunks(items: list[Item], size: int, first: int) -> Iterator[dict[str, Any]]:
    waiting = iter(items)
    number = first
    while chunk := list(islice(waiting, size)):
        yield {"number": number, "items": pickle.dumps(chunk)}
        number += 1


def _with_cores(recorder: Any, cores: int) -> Recorder:
    """The recorder, taken from Ray's store, in a process that uses so many processors."""
    import ray
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    made: Recorder = ray.get(recorder)(Clock())
    return made


class _Worker:
    """Makes the records of chunks, and writes each of them as a part."""

    def __init__(self, recorder: list[Any], output: Output, cores: int) -> None:
        self.recorder = _with_cores(recorder[0], cores)
        self.parts, self.cluster = Parts(output), os.getppid()

    def __call__(self, chunks: Batch) -> Batch:
        answers = [
            pickle.dumps(self._answer(int(number), pickle.loads(items), []))
            for number, items in zip(chunks["number"], chunks["items"], strict=True)
        ]
        return {"answer": np.array(answers, object)}

    def _answer(
        self, number: int, items: list[Item], ids: list[str]
    ) -> tuple[list[str], int, dict[str, float]] | GroupViTError:
        """The ids, how many records were written, and the seconds by part; or what prevented it."""
        clock = self.recorder.clock = Clock()
        try:
            records = list(self.recorder.records(items))
            if os.getppid() != self.cluster:  # it has gone: another run may be at these pictures
                os._exit(1)
            if records:
                with clock("writing"):
                    self.parts.write(records, number)
        except GroupViTError as error:
            return error
        return ids, len(records), clock.seconds


class _DatasetWorker(_Worker):
    """Makes the records of rows that have none, and writes each batch of rows as a part."""

    def __init__(
        self, recorder: list[Any], output: Output, cores: int, column: str, name: str, number: int
    ) -> None:
        super().__init__(recorder, output, cores)
        self.column, self.name, self.number = column, name, number
        self.known = {hash(item_id) for item_id, _ in self.parts.ids()}

    def __call__(self, rows: Batch) -> Batch:
        ids = [picture_id(str(one)) for one in rows[self.name]]
        new: dict[str, Any] = {}
        for item_id, value in zip(ids, rows[self.column], strict=True):
            if hash(item_id) not in self.known:
                new.setdefault(item_id, value)
        items = [
            Item(item_id, partial(picture_of, value, *place_of("/")))
            for item_id, value in new.items()
        ]
        answer = self._answer(self.number, items, ids)
        return {"answer": np.array([pickle.dumps(answer)], object)}
