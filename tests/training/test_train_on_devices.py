"""The command on one device, on two, and as two processes that may die: the same losses each time.

Processes are few, and run several commands each: most of their time is the import of TensorFlow
and the tracing of steps.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from test_replicas import free_ports
from tiny_recipe import JOINT, TEXT, VISION
from train_program import FIRST, keeping_first

from tf_groupvit.cli import main
from tf_groupvit.training import callbacks
from tf_groupvit.training.run_folder import HISTORY, STATE

PROGRAM = Path(__file__).parent / "train_program.py"
STEPS, KILLED_IN = 20, 9
RECIPE = {
    "steps": STEPS,
    "batch_size": 8,
    "save_every": 1,
    "validate_every": STEPS,
}
TABLES = {
    "losses": {"caption": 0.3, "vocabulary": 1.0, "group_word": 1.0},
    "model.vision": {**VISION, "depths": [2, 0]},
    "model.text": TEXT,
    "model.joint": JOINT,
    "optimizer": {"rate": 1e-3, "warm_up": 5},
    "vocabulary": {"merges": 100, "text_length": 24, "words": ["apple", "star", "grass", "sky"]},
}


def write_recipe(path):
    """The demo's losses and groups, on 26 drawn pictures, four of them held out: the others do not
    fill a round of batches.
    """
    pairs = path.parent / "pairs"
    given = ["scenes", "--output", str(pairs), "--count", "26", "--size", "32"]
    assert CliRunner().invoke(main, given).exit_code == 0
    data = {"source": str(pairs), "augmentation": "none", "validation_share": 0.16}
    lines = [f"{key} = {json.dumps(value)}" for key, value in RECIPE.items()]
    for name, table in {**TABLES, "data": data}.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines))
    return path


def start(commands, devices=1, kill=None, **environment):
    asked = {"devices": devices, "commands": commands, "kill": kill}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(PROGRAM), json.dumps(asked)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(*commands, kill=None):
    hosts = [f"localhost:{port}" for port in free_ports(2)]
    tasks = [{"cluster": {"worker": hosts}, "task": {"type": "worker", "index": i}} for i in (0, 1)]
    return [start(commands, kill=kill, TF_CONFIG=json.dumps(task)) for task in tasks]


def end(processes):
    """How each ended, and what it said."""
    try:
        said = [process.communicate(timeout=900)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [(process.returncode, words) for process, words in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders by name, and how processes ended.

    ``one`` is trained in this process, ``two`` on two devices, ``workers`` in two processes that
    are left alone. In ``killed``, worker 1 dies in the middle, and worker 0 in the last step of
    the second try.
    """
    folder = tmp_path_factory.mktemp("runs")
    recipe = write_recipe(folder / "recipe.toml")

    def into(name, *more):
        patience = ("--worker-timeout", "3000")  # on a machine that is busy with other things
        return [
            "--recipe",
            str(recipe),
            "--seed",
            "3",
            "--output",
            str(folder / name),
            *patience,
            *more,
        ]

    def dies(command, worker, step):
        return {"command": command, "worker": worker, "step": step}

    ended = {}
    two = start([into("two", "--devices", "all")], devices=2)
    workers = start_workers(into("workers"), into("killed"), kill=dies(1, 1, KILLED_IN))
    try:
        with pytest.MonkeyPatch.context() as patch:
            save = keeping_first(callbacks.SaveState.on_epoch_end)
            patch.setattr(callbacks.SaveState, "on_epoch_end", save)
            one = CliRunner().invoke(main, ["train", *into("one")])
        assert one.exit_code == 0, one.output
    finally:
        ended["two"], *ended["killed"] = end([two, *workers])
    ended["again"] = end(start_workers(into("killed"), kill=dies(0, 0, STEPS)))
    return folder, ended


def history(folder):
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


def losses(folder):
    names = ("loss", "caption_loss", "vocabulary_loss", "group_word_loss")
    return np.array([[line[name] for name in names] for line in history(folder)])


def first_gradients(folder):
    """The optimizer after one step: Adam's first means are then the gradients, times a constant."""
    state = load_file(folder / FIRST)
    return {name: value for name, value in state.items() if name.startswith("optimizer.")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two", "workers"])
def test_gradients_of_the_first_step_are_those_of_one_device(runs, name):
    one, other = (first_gradients(runs[0] / each) for each in ("one", name))
    largest = max(abs(value).max() for value in one.values() if value.dtype == np.float32)
    assert largest > 1e-3
    for path, value in one.items():
        np.testing.assert_allclose(other[path], value, rtol=0, atol=1e-5 * largest, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two", "workers"])
def test_losses_and_weights_of_twenty_steps_are_those_of_one_device(runs, name):
    folder, _ = runs
    one = losses(folder / "one")
    assert len(one) == STEPS and len(np.unique(one[:, 0])) == STEPS
    np.testing.assert_allclose(losses(folder / name), one, rtol=2e-4)
    held_out, theirs = (history(folder / each)[-1]["val_loss"] for each in (name, "one"))
    np.testing.assert_allclose(held_out, theirs, rtol=2e-4)
    ours, theirs = (load_file(folder / each / STATE) for each in (name, "one"))
    for path, value in theirs.items():
        # Biases before a normalization, and of keys, have no true gradient.
        if path.startswith("model.") and value.ndim > 1:
            size = np.square(value).sum()
            np.testing.assert_allclose(np.square(ours[path]).sum(), size, rtol=2e-3, err_msg=path)


@pytest.mark.slow
def test_the_first_line_says_what_a_run_is_on(runs):
    _, ended = runs
    for process, words in (
        (ended["two"], "on all devices"),
        (ended["killed"][0], "as worker 0 of 2"),
    ):
        assert f"{words}: TensorFlow is being loaded" in said(process).splitlines()[0]
    assert "20 steps of 8 pictures on 2 devices, into" in said(ended["two"])


def said(process):
    """What a process wrote, without TensorFlow's remarks."""
    return "\n".join(
        line for line in process[1].splitlines() if " 00:00:" not in line and "absl::" not in line
    )


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_others_with_the_last_good_state(runs):
    folder, ended = runs
    (code, words), (killed, _) = ended["killed"]
    assert killed == -signal.SIGKILL and code == 2
    last = said((code, words)).splitlines()[-1]
    assert last.startswith(f"Error: Step {KILLED_IN} did not end: another worker is lost"), last
    good = f"the last good state is of step {KILLED_IN - 1}, {folder / 'killed' / STATE}"
    assert good in last and last.endswith("start all workers again with the same command.")


@pytest.mark.slow
def test_the_same_command_goes_on_with_the_losses_of_an_undisturbed_run(runs):
    folder, ended = runs
    assert f"Resuming at step {KILLED_IN - 1} of {STEPS}" in ended["again"][0][1]
    again = losses(folder / "killed")
    assert len(again) == STEPS - 1  # the last step had another death in it
    np.testing.assert_allclose(again, losses(folder / "workers")[:-1], rtol=1e-5)


@pytest.mark.slow
def test_a_worker_says_who_knows_the_last_state_where_the_first_one_is_killed(runs):
    folder, ended = runs
    (killed, _), other = ended["again"]
    assert killed == -signal.SIGKILL and other[0] == 2
    last = said(other).splitlines()[-1]
    assert last.startswith(f"Error: Step {STEPS} did not end: another worker is lost"), last
    assert f"worker 0 names the last good state in {folder / 'killed'}: start all" in last
