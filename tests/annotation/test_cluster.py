"""The engine ray: the records of one machine, by workers that may be killed, each record once."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_pictures import picture

from tf_groupvit.annotation import run
from tf_groupvit.annotation.parts import Parts
from tf_groupvit.annotation.run import annotate
from tf_groupvit.errors import InputError
from tf_groupvit.storage import Output

CLASSES, PATIENCE = "apple,star,grass,sky", 300  # seconds: machines that test are busy
COMMAND = "from tf_groupvit.cli import main; main()"
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


@pytest.fixture
def collection(tmp_path):
    """Sixty pictures, four of them broken."""
    folder = tmp_path / "collection"
    folder.mkdir()
    for number in range(56):
        (folder / f"{number:02}.png").write_bytes(picture(number, (32 + number % 5, 32)))
    whole = picture(1)
    for number, content in enumerate((b"", b"no picture", whole[: len(whole) // 2], whole[:20])):
        (folder / f"broken{number}.png").write_bytes(content)
    return folder


def started(program, *arguments):
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | quiet,
    )


def on_ray(photos, output, workers=2):
    line = (photos, "--classes", CLASSES, "--output", output, "--engine", "ray", "--json")
    return started(COMMAND, "annotate", *line, "--workers", workers)


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


def once_there_is_a_part(process, output):
    """The processes below a run, at the time when its first new part is written."""
    before = set((output / "records").glob("part-*"))
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        if set((output / "records").glob("part-*")) - before:
            return processes_below(process.pid)
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


def all_end(numbers):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if not any(Path(f"/proc/{number}").exists() for number in numbers):
            return True
        time.sleep(0.1)
    return False


def records_of(output):
    return sorted(Parts(Output(output)).records(), key=lambda record: record.id)


@pytest.mark.slow
@needs_ray
@needs_proc
def test_runs_that_are_killed_give_what_one_machine_gives(segmenter, collection, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    expected = annotate(collection, segmenter, here)

    with on_ray(collection, there) as process:
        killed = once_there_is_a_part(process, there)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (there / "summary.json").exists()

    with on_ray(collection, there) as process:
        below = once_there_is_a_part(process, there)
        workers = [one for one, name in below.items() if name.startswith("ray::MapWorker")]
        os.kill(workers[0], signal.SIGKILL)
        out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, said
    found = json.loads(out)
    assert 0 < found["run"]["pictures"] < 60
    rounded = {"mean_confidence": pytest.approx(expected["mean_confidence"], abs=1e-5)}
    assert {**found, "run": None} == {**expected, "run": None, **rounded}
    for one, other in zip(records_of(there), records_of(here), strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)  # batches are others
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert replace(one, scores=[], confidence=0) == replace(other, scores=[], confidence=0)
    again = annotate(collection, segmenter, there)  # here, where the cluster has been
    assert again["run"]["pictures"] == 0
    assert all_end(below | killed)
