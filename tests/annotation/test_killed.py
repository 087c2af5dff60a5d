"""A thousand pictures, twenty of them broken, in runs that are killed: on one machine, on Ray."""

import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from many_pictures import COUNT, PATIENCE, broken, records_of, started, wait_for_parts

from tf_groupvit.annotation.records import labels_of

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray brings it")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.mark.slow
def test_runs_that_are_killed_twice_give_what_one_run_gives(collection, killed_twice, segmenter):
    output, first, second, summary = killed_twice
    assert 100 <= len(first) < len(second) < COUNT and first < second
    assert (summary["done"], summary["failed"]) == (COUNT - 20, 20)
    assert summary["run"]["pictures"] == COUNT - len(second)

    records = records_of(output)
    assert len(records) == len({record.id for record in records}) == COUNT
    ids = {str(path.relative_to(collection)) for path in collection.rglob("*.*")}
    assert {record.id for record in records} == ids
    failed = {os.path.basename(record.id) for record in records if record.error is not None}
    assert failed == broken().keys()
    errors = [json.loads(line) for line in (output / "errors.jsonl").read_text().splitlines()]
    assert {os.path.basename(error["id"]) for error in errors} == failed and len(errors) == 20
    assert all(error["error"] and "\n" not in error["error"] for error in errors)
    assert [path.name for path in output.rglob(".*")] == [".lock"]

    for record in records[:: COUNT // 20]:
        if record.error is None:
            assert (labels_of(record, 4) == segmenter(collection / record.id).labels).all()


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
