"""The engine ray: the records of one machine, by workers that may be killed, each record once."""

import json
import os
import signal
import socket
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from many_pictures import COUNT, PATIENCE, QUIET, records_of, started, wait_for_parts

from tf_groupvit.annotation import run
from tf_groupvit.annotation.run import annotate
from tf_groupvit.errors import InputError

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray brings it")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"engine": "spark"}, "engine is 'spark': expected one of local, ray"),
        ({"engine": "ray", "workers": 0}, "workers is 0: expected at least 1"),
        ({"workers": 2}, "are for the engine ray, not 'local'"),
        ({"ray_address": "auto"}, "are for the engine ray, not 'local'"),
    ],
)
def test_choices_that_cannot_be_are_refused(
    segmenter, photos, tmp_path, choices, words, monkeypatch
):
    monkeypatch.setattr(run, "find_spec", lambda name: name)
    with pytest.raises(InputError, match=words):
        annotate(photos, segmenter, tmp_path / "labels", **choices)
    assert not (tmp_path / "labels").exists()


def test_without_ray_the_extra_is_named(segmenter, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs ray: pip install 'tf-groupvit\[ray\]'"):
        annotate(photos, segmenter, tmp_path / "labels", engine="ray")


def test_an_output_in_memory_is_refused(segmenter, photos, memory, monkeypatch):
    monkeypatch.setattr(run, "find_spec", lambda name: name)
    with pytest.raises(InputError, match="where no worker can write"):
        annotate(photos, segmenter, f"{memory}/labels", engine="ray")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_one_line_before_anything_is_written(
    segmenter, photos, tmp_path, scheme, monkeypatch
):
    monkeypatch.setattr(run, "find_spec", lambda name: name)
    with socket.socket() as bound:  # it does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^Ray at '{address}' is not reached: Conn[^\n]*$"):
            annotate(photos, segmenter, tmp_path / "labels", engine="ray", ray_address=address)
    assert not (tmp_path / "labels").exists()


@needs_ray
@pytest.mark.parametrize("address", ["nowhere", "http://127.0.0.1:1"])
def test_an_address_of_another_kind_is_one_line(address):
    from tf_groupvit.annotation.cluster import check_address, joined

    check_address(address)
    words = f"^Ray at '{address}' cannot be used: [^\n]*$"
    with pytest.raises(InputError, match=words), joined(address):
        pass


@needs_ray
@pytest.mark.parametrize(
    ("machines", "workers", "count", "cores"),
    [
        ([2], None, 1, 2),
        ([2], 2, 2, 1),
        ([4, 4], None, 2, 4),
        ([4, 4], 3, 3, 2),
        ([3, 3], 3, 3, 1),
        ([0, 8], None, 1, 8),  # a head that runs nothing
    ],
)
def test_workers_share_the_processors_of_each_machine(machines, workers, count, cores, monkeypatch):
    from tf_groupvit.annotation.cluster import _shares

    nodes = [{"Alive": True, "Resources": {"CPU": one} if one else {}} for one in machines]
    gone = {"Alive": False, "Resources": {"CPU": 64}}
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, gone])
    assert _shares(workers) == (count, cores)


@needs_ray
def test_more_workers_than_processors_are_refused(monkeypatch):
    from tf_groupvit.annotation.cluster import _shares

    monkeypatch.setattr("ray.nodes", lambda: [{"Resources": {"CPU": 2}}])
    with pytest.raises(InputError, match="There are 3 workers and 2 processors"):
        _shares(3)


@pytest.mark.parametrize(
    ("pictures", "batch_size", "size"),
    [(2000, 8, 248), (100_000, 8, 256), (100_000, 24, 264), (5, 8, 8), (1, 1, 1), (2000, 400, 400)],
)
def test_chunks_are_of_whole_batches(pictures, batch_size, size):
    from tf_groupvit.annotation.cluster import _size

    assert _size(pictures, 8, batch_size) == size


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two processors, which this process has joined."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        import ray

        context = ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield context.address_info["address"]
        ray.shutdown()


def processes_below(root):
    """The names of the processes that one has started, and those that these have, by number."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            names[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, IndexError):
            continue
    found, new = {}, {root}
    while new:
        new = {one for one, parent in parents.items() if parent in new}
        found |= {one: names.get(one, "") for one in new}
    return found


def all_end(numbers):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if not any(Path(f"/proc/{number}").exists() for number in numbers):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@needs_ray
@needs_proc
def test_two_workers_that_are_killed_give_the_records_of_one_machine(
    collection, killed_twice, cluster, tmp_path
):
    here, there, choices = killed_twice[0], tmp_path / "there", ("--engine", "ray", "--workers", 2)
    with started(collection, there, *choices) as process:
        wait_for_parts(process, there, 1)
        killed = processes_below(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (there / "summary.json").exists()

    before = processes_below(os.getpid())
    with started(collection, there, *choices, "--ray-address", cluster) as process:
        wait_for_parts(process, there, 1)
        new = processes_below(os.getpid()).items() - before.items()
        workers = [number for number, name in new if name.startswith("ray::MapWorker")]
        os.kill(workers[0], signal.SIGKILL)
        out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, said
    found, expected = json.loads(out), killed_twice[-1]
    assert 0 < found["run"]["pictures"] < COUNT
    among = {"mean_confidence": pytest.approx(expected["mean_confidence"]), "first_errors": []}
    assert {**found, "run": None, "first_errors": []} == {**expected, "run": None, **among}
    assert records_of(there) == records_of(here)
    errors = [sorted((one / "errors.jsonl").read_text().splitlines()) for one in (there, here)]
    assert errors[0] == errors[1] and len(errors[0]) == 20
    assert all_end(killed)
