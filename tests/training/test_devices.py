"""Which devices and processes train, what they are told, and how long they wait for each other."""

import json
import subprocess
import sys
import time

import pytest

from tf_groupvit.errors import InputError, TrainingError
from tf_groupvit.training.devices import (
    Cluster,
    Team,
    Watch,
    check_devices,
    describe,
    difference,
    lost,
    make_team,
    read_cluster,
    shortened,
)


def config(kind, index, **cluster):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def test_tf_config_says_how_many_processes_there_are_and_which_this_is():
    assert read_cluster(None) == read_cluster("") == read_cluster("{}") == Cluster(0, 1)
    assert read_cluster(config("worker", 0, worker=["a:1"])) == Cluster(0, 1)
    assert read_cluster(config("worker", 1, worker=["a:1", "b:1"])) == Cluster(1, 2)
    hosts = dict(chief=["a:1"], worker=["b:1", "c:1"])
    assert read_cluster(config("chief", 0, **hosts)) == Cluster(0, 3)
    assert read_cluster(config("worker", 1, **hosts)) == Cluster(2, 3)
    assert read_cluster(config("worker", 1, ps=[], worker=["a:1", "b:1"])) == Cluster(1, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "expected JSON such as"),
        ("[]", "expected JSON such as"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "expected JSON such as"),
        (config("worker", 2, worker=["a:1", "b:1"]), "this is worker 2, of 2: count from 0"),
        (config("worker", 0, worker=["a:1"], ps=["b:1"]), "a task 'ps': training takes chief"),
        (config("evaluator", 0, worker=["a:1", "b:1"]), "a task 'evaluator'"),
    ],
)
def test_a_tf_config_that_cannot_be_is_refused_in_one_line(text, words):
    with pytest.raises(InputError, match=words) as caught:
        read_cluster(text)
    assert "\n" not in str(caught.value) and "TF_CONFIG" in str(caught.value)


def test_the_first_line_says_what_a_run_is_on():
    assert describe("1", Cluster()) == ""
    assert describe("all", Cluster()) == " on all devices"
    assert describe("4", Cluster()) == " on 4 devices"
    assert describe("all", Cluster(1, 3)) == " as worker 1 of 3"


@pytest.mark.parametrize("devices", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_devices_that_cannot_be_is_refused(devices):
    with pytest.raises(InputError, match="expected a number from 1, or all"):
        check_devices(devices)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(InputError, match="--devices is 99, and there is 1 of kind CPU"):
        make_team("99")
    assert make_team("1").strategy is None and make_team("all").strategy is None


def test_a_process_alone_hears_itself():
    team = Team()
    assert (
        team.exchange("The start", [3, 4]) == [[3, 4]] and team.replicas == team.own_replicas == 1
    )
    team.agree({"seed": 1})
    with team.waiting("Step 1"), team.scope():
        pass


def test_an_error_of_another_process_names_the_last_good_state():
    import tensorflow as tf

    pair = Team(cluster=Cluster(0, 2))
    pair.watch.kept = lambda: "the last good state is of step 8, mine"
    good = r"is lost \(gone\); the last good state is of step 8, mine: start all workers again"
    with pytest.raises(TrainingError, match=good), pair.waiting("Step 9"):
        raise tf.errors.UnavailableError(None, None, "gone")
    with pytest.raises(tf.errors.ResourceExhaustedError), pair.waiting("Step 9"):
        raise tf.errors.ResourceExhaustedError(None, None, "our own fault")


def test_a_worker_that_differs_is_named_with_what_and_how():
    recipe = {"steps": 20, "words": ["apple"] * 20}
    mine = {name: shortened(value) for name, value in recipe.items()}
    other = {name: shortened(value) for name, value in {**recipe, "steps": 30}.items()}
    assert difference(2, mine, other).startswith(
        "Worker 2 has steps 30, worker 0 has 20: start all"
    )
    assert shortened(["apple"] * 20) != shortened(["apple"] * 21) and len(mine["words"]) == 12


def test_workers_of_other_versions_or_settings_are_refused_in_one_line(monkeypatch):
    rows = []
    monkeypatch.setattr(Team, "exchange", lambda self, what, row: [*rows, row])
    pair = Team(cluster=Cluster(1, 2))
    facts = {"TensorFlow": "2.21.0", "seed": 3, "captions": ["a dog"] * 100}
    pair.agree(facts)
    monkeypatch.setattr(Team, "exchange", lambda self, what, row: rows.append(row) or [row])
    pair.agree(facts)
    monkeypatch.setattr(Team, "exchange", lambda self, what, row: [*rows, row])
    pair.agree(facts)
    start = "all with the same versions, recipe, options and data"
    with pytest.raises(
        TrainingError, match=f'has TensorFlow "2.19.0", worker 0 has "2.21.0".*{start}'
    ):
        pair.agree({**facts, "TensorFlow": "2.19.0"})
    with pytest.raises(TrainingError, match=r"Worker 1 has captions \w{12}, worker 0 has \w{12}"):
        pair.agree({**facts, "captions": ["a cat"] * 100})
    monkeypatch.setattr(Team, "exchange", lambda self, what, row: rows.append(row) or [row])
    pair.agree({**facts, "optimizer": {"rate": 0.1, "decay": [1] * 50}})
    monkeypatch.setattr(Team, "exchange", lambda self, what, row: [rows[-1], row])
    with pytest.raises(TrainingError, match=r"has optimizer\.rate 0\.2, worker 0 has 0\.1: start"):
        pair.agree({**facts, "optimizer": {"rate": 0.2, "decay": [1] * 50}})


def test_other_backends_than_tensorflow_train_on_one_device(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(InputError, match="TensorFlow backend, not with 'jax': unset KERAS_BACKEND"):
        make_team("2")


def test_a_worker_that_is_lost_is_one_line_with_the_reason_and_the_last_good_state():
    error = RuntimeError(
        "{{function_node f}} Collective ops is aborted by: Connection reset by peer\nAdditional ..."
    )
    assert lost("Step 9", error, "the last good state is of step 8, mine") == (
        "Step 9 did not end: another worker is lost (Connection reset by peer); the last good state"
        " is of step 8, mine: start all workers again with the same command."
    )


def test_waits_within_each_other_each_have_their_time():
    said = []
    watch = Watch(0.3, said.append)
    with watch.over("The start"):
        with watch.over("Step 1"):
            pass
        until = time.monotonic() + 60
        while not said and time.monotonic() < until:
            time.sleep(0.01)
    assert said[0].startswith("The start did not end")


def test_a_wait_that_is_too_long_ends_the_process_with_the_last_good_state():
    said = []
    watch = Watch(0.05, said.append)
    watch.kept = lambda: "the last good state is of step 8, mine"
    with watch.over("Step 9"):
        until = time.monotonic() + 60
        while not said and time.monotonic() < until:
            time.sleep(0.01)
    assert said[0].startswith("Step 9 did not end within 0.05 seconds: another worker hangs")
    assert "; the last good state is of step 8, mine: start all workers again" in said[0]


HELD = """
import ctypes, sys
from tf_groupvit.training.devices import ended_after
with ended_after(float(sys.argv[1]), "nobody came"):
    ctypes.PyDLL(None).sleep(int(sys.argv[2]))  # holds up all threads of Python
print("went on")
"""


@pytest.mark.parametrize(
    ("words", "code", "out", "said"),
    [(("0.3", "600"), 1, "", "Error: nobody came\n"), (("600", "0"), 0, "went on\n", "")],
)
def test_a_start_that_holds_up_all_threads_ends_in_time_with_one_line(words, code, out, said):
    done = subprocess.run([sys.executable, "-c", HELD, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, said)


def test_a_wait_that_ends_is_not_counted():
    said = []
    watch = Watch(0.2, said.append)
    with watch.over("Step 1"):
        pass
    time.sleep(0.5)
    assert said == []
