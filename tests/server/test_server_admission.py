"""Admission: how many may run, how many may wait, and who is next."""

import threading
import time
from types import SimpleNamespace

import pytest
from test_server_versions import Loader

from tf_groupvit.server import running
from tf_groupvit.server.admission import ConcurrencyLimit, Deadline, open_files
from tf_groupvit.server.options import Options
from tf_groupvit.server.status import StatusError


def test_the_first_too_many_is_refused_and_a_place_left_is_a_place_free():
    limit = ConcurrencyLimit(running=1, waiting=1)
    first, second = limit.admit(), limit.admit()
    with pytest.raises(StatusError) as raised:
        limit.admit()
    assert raised.value.code == "RESOURCE_EXHAUSTED" and raised.value.http_status == 429
    with first:
        pass
    with limit.admit(), second:
        pass
    assert limit.admitted == 0


def test_waiting_requests_run_first_come_first_served_and_never_too_many():
    limit, order, running, most = ConcurrencyLimit(running=2, waiting=20), [], [0], [0]

    def work(index: int, ticket):
        with ticket:
            ticket.start(Deadline(10))
            running[0] += 1
            most[0] = max(most[0], running[0])
            order.append(index)
            time.sleep(0.005)
            running[0] -= 1

    threads = []
    for index in range(12):
        threads.append(threading.Thread(target=work, args=[index, limit.admit()]))
        threads[-1].start()
        time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert most[0] <= 2 and limit.admitted == 0
    assert all(abs(place - index) <= 1 for place, index in enumerate(order))


def test_a_deadline_that_passes_in_the_queue_gives_the_place_back():
    limit = ConcurrencyLimit(running=1, waiting=1)
    with limit.admit() as holder:
        holder.start(Deadline(None))
        with (
            pytest.raises(StatusError, match="Timed out waiting for notification"),
            limit.admit() as ticket,
        ):
            ticket.start(Deadline(0.02))
    assert limit.admitted == 0
    with limit.admit() as ticket:
        ticket.start(Deadline(0.5))


def test_a_request_that_is_paused_leaves_its_slot_to_others():
    limit = ConcurrencyLimit(running=1, waiting=1)
    with limit.admit() as ticket:
        ticket.start(Deadline(None))
        with ticket.paused(Deadline(0.02)), pytest.raises(StatusError), limit.admit() as other:
            other.start(Deadline(0.02))
            raise StatusError("ABORTED", "the other one ends")
        assert limit.admitted == 1
        other = limit.admit()
        with pytest.raises(StatusError, match="Timed out"), other:  # the slot is taken again
            other.start(Deadline(0.02))
        with pytest.raises(StatusError, match="Timed out"), ticket.paused(Deadline(-1)):
            pass
    assert limit.admitted == 0
    with limit.admit() as ticket:
        ticket.start(Deadline(0.5))


def test_a_deadline_in_the_past_is_exceeded():
    with pytest.raises(StatusError) as raised:
        Deadline(-1).remaining()
    assert raised.value.code == "DEADLINE_EXCEEDED" and raised.value.http_status == 504
    assert Deadline(None).remaining() is None


def test_a_server_looks_at_its_memory_while_nothing_is_at_work(tmp_path, monkeypatch):
    looked = threading.Event()
    monkeypatch.setattr(running, "_MEMORY_SECONDS", 0.001)
    monkeypatch.setattr(running, "Growth", lambda: SimpleNamespace(look=looked.set))
    monkeypatch.setattr(running, "load", lambda path, *_: Loader()(path))
    (tmp_path / "1").mkdir()
    options = Options(enable_model_warmup=False)
    server = running.Server({"m": tmp_path}, port=None, rest_api_port=None, options=options)
    with server:
        with server.limit.admit():
            looked.clear()
            assert not looked.wait(0.05)
        assert looked.wait(10)


def test_the_process_may_open_as_many_files_as_the_system_lets_it(monkeypatch):
    resource = pytest.importorskip("resource")
    limits = [256, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
    assert open_files() == 256 and open_files(most=True) == 4096 and limits == [4096, 4096]
    limits[:] = [256, resource.RLIM_INFINITY]
    assert open_files(most=True) == 2**16 and limits[0] == 2**16
