"""The scheduler of batches, with runs that can be held: full queues, deadlines, bugs, rows."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tf_groupvit.server.batching import Queue, Scheduler, merged
from tf_groupvit.server.config_files import Parameters
from tf_groupvit.server.status import StatusError


class Held:
    """Runs of a model that do not end before they are let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def __call__(self, arrays, fetches, timeout):
        self.begun.release()
        assert self.go.wait(10)
        return [arrays["x"] + 1]


@pytest.fixture
def admitted(monkeypatch):
    """Released once for each request that has come into a queue."""
    count, admit = threading.Semaphore(0), Queue.admit

    def counted(queue, task):
        parts = admit(queue, task)
        count.release()
        return parts

    monkeypatch.setattr(Queue, "admit", counted)
    return count


@pytest.fixture
def held():
    """Submits rows to a scheduler of one thread, which is held at the first batch."""
    run, scheduler, pool = Held(), Scheduler(threads=1), ThreadPoolExecutor(8)

    def submit(
        count: int, parameters: Parameters, timeout: float | None = None, value: float = 0.0
    ):
        arrays = {"x": np.full(count, value, np.float32)}
        return pool.submit(scheduler.submit, ("key",), run, parameters, arrays, ["y"], timeout)

    yield run, submit
    run.go.set()
    pool.shutdown()
    scheduler.close()


def test_a_full_queue_is_unavailable(held, admitted):
    run, submit = held
    parameters = Parameters(max_batch_size=2, max_enqueued_batches=2)
    running = submit(2, parameters)
    assert run.begun.acquire(timeout=10)
    queued = [submit(2, parameters), submit(2, parameters)]
    assert all(admitted.acquire(timeout=10) for _ in (running, *queued))
    with pytest.raises(StatusError) as refused:
        submit(1, parameters).result(10)
    assert (refused.value.code, refused.value.http_status) == ("UNAVAILABLE", 503)
    assert (
        refused.value.text
        == "The batch scheduling queue to which this task was submitted is full; currently 2"
        " batches enqueued and max_enqueued_batches is 2"
    )
    run.go.set()
    assert [len(future.result(10)[0]) for future in (running, *queued)] == [2, 2, 2]


def test_the_answer_to_a_late_request_goes_out_on_time_and_its_place_is_free(held):
    run, submit = held
    parameters = Parameters(max_batch_size=2, max_enqueued_batches=2)
    running = submit(2, parameters)
    assert run.begun.acquire(timeout=10)
    for late in (submit(2, parameters, timeout=0.01), submit(1, parameters, timeout=0.01)):
        with pytest.raises(StatusError) as refused:
            late.result(10)  # while the batch before it still runs
        assert (refused.value.code, refused.value.http_status) == ("RESOURCE_EXHAUSTED", 429)
        assert refused.value.text == "Run() timeout exceeded while waiting in batching queue"
    queued = [submit(2, parameters), submit(2, parameters)]
    run.go.set()
    assert [len(future.result(10)[0]) for future in (running, *queued)] == [2, 2, 2]


def test_a_request_whose_batch_runs_too_long_is_answered_on_time_and_the_others_later(held):
    run, submit = held
    parameters = Parameters(max_batch_size=2, batch_timeout_micros=20_000_000)
    late, patient = submit(1, parameters, timeout=0.5), submit(1, parameters, value=4.0)
    assert run.begun.acquire(timeout=10)
    with pytest.raises(StatusError) as refused:
        late.result(10)
    assert (refused.value.code, refused.value.http_status) == ("DEADLINE_EXCEEDED", 504)
    assert not patient.done()
    run.go.set()
    assert patient.result(10)[0].tolist() == [5.0]


def test_a_late_part_of_a_split_request_takes_the_others_out(held):
    run, submit = held
    parameters = Parameters(
        max_batch_size=4,
        enable_large_batch_splitting=True,
        max_execution_batch_size=2,
        max_enqueued_batches=3,
    )
    running = submit(2, parameters)
    assert run.begun.acquire(timeout=10)
    with pytest.raises(StatusError, match="waiting in batching queue"):
        submit(4, parameters, timeout=0.01).result(10)
    whole = submit(4, parameters, value=1.0)
    run.go.set()
    assert running.result(10)[0].tolist() == [1.0] * 2 and whole.result(10)[0].tolist() == [2.0] * 4


def test_a_bug_reaches_every_request_of_the_batch():
    def broken(arrays, fetches, timeout):
        raise ValueError("a bug")

    scheduler = Scheduler(threads=1)
    parameters = Parameters(max_batch_size=2, batch_timeout_micros=20_000_000)
    with ThreadPoolExecutor(2) as pool:
        arrays = {"x": np.zeros(1, np.float32)}
        both = [
            pool.submit(scheduler.submit, ("key",), broken, parameters, arrays, ["y"], None)
            for _ in range(2)
        ]
        for future in both:
            with pytest.raises(ValueError, match="a bug"):
                future.result(10)
    scheduler.close()


def test_rows_in_are_rows_out_whatever_is_merged_and_split(held):
    run, submit = held
    run.go.set()
    parameters = Parameters(
        max_batch_size=50, enable_large_batch_splitting=True, max_execution_batch_size=7, max_enqueued_batches=1000,
        allowed_batch_sizes=(3, 7),
    )  # fmt: skip
    random = np.random.default_rng(0)
    counts = random.integers(1, 51, size=60).tolist()
    futures = [submit(count, parameters, value=float(index)) for index, count in enumerate(counts)]
    for index, (count, future) in enumerate(zip(counts, futures, strict=True)):
        (output,) = future.result(30)
        assert output.tolist() == [index + 1.0] * count


def test_closing_runs_what_waits_and_refuses_later_requests(admitted):
    scheduler = Scheduler(threads=1)
    parameters = Parameters(batch_timeout_micros=60_000_000)
    arrays = {"x": np.zeros(1, np.float32)}

    def ask():
        return scheduler.submit(
            ("key",), lambda arrays, names, timeout: [arrays["x"]], parameters, arrays, ["y"], None
        )

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(ask)
        assert admitted.acquire(timeout=10)
        scheduler.close()
        assert waits.result(5)[0].tolist() == [0.0]
    with pytest.raises(StatusError) as refused:
        ask()
    assert refused.value.code == "UNAVAILABLE"


def test_padding_may_not_make_a_batch_much_larger_than_it_came():
    tall, wide = np.zeros((1, 1, 5000), np.uint8), np.zeros((1, 5000, 1), np.uint8)
    with pytest.raises(
        StatusError, match=r"Padding would add 49,990,000 elements to the batch; at most 16,777,216"
    ):
        merged([{"x": tall}, {"x": wide}], 0, True)
    long = np.full((1, 2), b"x" * 2**20, object)
    with pytest.raises(
        StatusError, match="Padding would add"
    ):  # each copy of that string is one of 1 MiB
        merged([{"x": long}, {"x": np.full((1, 20), b"", object)}], 0, True)
