"""The command train: what it asks for, says, and refuses."""

import json
import signal
import sys
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
from pairs import folder, shard
from tiny_recipe import JOINT, TEXT, VISION

from tf_groupvit.checkpoints.safetensors_file import write_safetensors
from tf_groupvit.cli import main
from tf_groupvit.training import trainer
from tf_groupvit.training.caption_sources import count_records, open_pairs
from tf_groupvit.training.devices import Cluster, Team
from tf_groupvit.training.recipe import read_recipe
from tf_groupvit.training.together import Together
from tf_groupvit.training.trainer import STATE


def test_the_command_trains_and_says_what_came_of_it(tmp_path, monkeypatch):
    asked = {}

    def pretend(recipe, folder, seed, bar, tensorboard, team):
        asked.update(recipe=recipe, folder=folder, seed=seed, tensorboard=tensorboard)
        return [{"step": 5, "loss": 1.5, "val_miou": 0.25}]

    monkeypatch.setattr(trainer, "train", pretend)
    given = ("--output", str(tmp_path), "--steps", "5", "--seed", "9", "--tensorboard", "shown")
    done = CliRunner().invoke(main, ["train", *given])
    assert done.exit_code == 0, done.output
    assert asked["recipe"].steps == 5 and asked["seed"] == 9 and asked["folder"] == tmp_path
    assert asked["tensorboard"] == Path("shown")
    assert "step 5, loss 1.500, mIoU 25.0" in done.stderr
    done = CliRunner().invoke(
        main, ["train", "--output", str(tmp_path), "--recipe", "nowhere.toml"]
    )
    assert done.exit_code == 2 and "no recipe" in done.stderr


@pytest.mark.parametrize("output", ["file", "file/out", "n" * 300, "/dev/full"])
@pytest.mark.parametrize("option", ["--output", "--tensorboard"])
def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path, option, output):
    (tmp_path / "file").write_text("kept")
    given = {"--output": tmp_path / "out", option: tmp_path / output}
    done = CliRunner().invoke(
        main, ["train", *(str(word) for pair in given.items() for word in pair)]
    )
    assert done.exit_code == 2 and "cannot be made" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (
        tmp_path / "file"
    ).read_text() == "kept"


def test_a_url_is_no_folder_of_this_disk(tmp_path, monkeypatch):
    (tmp_path / "memory:").write_text("no folder")
    monkeypatch.chdir(tmp_path)
    given = ["train", "--output", "memory://bucket/mine"]
    done = CliRunner().invoke(main, [*given, "--check"])
    assert "Drawn scenes need no check" in done.stderr  # and no word of a folder "memory:"
    done = CliRunner().invoke(main, [*given, "--tensorboard", "s3://bucket/logs"])
    assert done.exit_code == 2
    assert done.stderr == (
        "Error: --tensorboard is s3://bucket/logs: give a folder of this disk.\n"
    )


def test_a_folder_that_is_called_as_drawn_scenes_are_is_told(tmp_path, monkeypatch):
    folder(tmp_path / "scenes", 2)
    monkeypatch.chdir(tmp_path)
    sources = []
    monkeypatch.setattr(
        trainer, "train", lambda recipe, *_, **__: sources.append(recipe.data.source)
    )
    said = "Scenes are drawn; the folder scenes is ./scenes."
    done = command("--output", "out", "--data", "scenes")
    assert done.exit_code == 0 and done.stderr.startswith(f"{said}\nTraining on scenes, ")
    done = command("--output", "out", "--data", "scenes", "--check")
    assert done.exit_code == 2 and done.stderr.startswith(f"{said}\nLooking through scenes ...\n")
    done = command("--output", "out", "--data", "./scenes")
    assert done.exit_code == 0 and said not in done.stderr and sources == ["scenes", "./scenes"]
    assert count_records(open_pairs("./scenes")) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_what_replicas_cannot_do_is_refused_before_tensorflow_is_loaded(
    workers, tmp_path, monkeypatch
):
    cluster = {"worker": ["localhost:1", "localhost:2"][:workers]}
    task = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    recipe = tmp_path / "mine.toml"
    recipe.write_text('precision = "mixed_float16"\n[optimizer]\naccumulation = 2\n')
    done = command("--recipe", recipe, "--output", tmp_path, "--devices", 3 - workers)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert "Several replicas cannot accumulate gradients in mixed_float16" in done.stderr


RECIPE = """
steps = 4
batch_size = 2
save_every = 2
[data]
source = "memory://pairs/0.tar"
augmentation = "none"
[vocabulary]
merges = 20
"""


def test_data_that_are_gone_end_a_run_in_one_line_with_the_last_good_state(tmp_path, monkeypatch):
    """Without the steps, which take long and are not what is lost."""
    shards = shard(tmp_path / "0.tar", 6)
    MemoryFileSystem().pipe_file("/pairs/0.tar", shards.read_bytes())
    tables = {"vision": VISION, "text": TEXT, "joint": JOINT}
    lines = [RECIPE]
    for name, values in tables.items():
        lines += [f"[model.{name}]", *(f"{key} = {value}" for key, value in values.items())]
    (tmp_path / "mine.toml").write_text("\n".join(lines))

    def unreachable(*_, **__):
        raise OSError("Could not connect to the endpoint URL")

    def fit(self, batches, rounds, steps, callbacks):
        hooks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        hooks.on_train_begin()
        hooks.on_epoch_begin(0)
        for place, _ in enumerate(batches):
            if place < steps:
                hooks.on_train_batch_end(place, {"loss": 1.0})
            if place == steps:
                hooks.on_epoch_end(0, {"loss": 1.0})
                monkeypatch.setattr(MemoryFileSystem, "cat_file", unreachable)

    monkeypatch.setattr(Together, "fit", fit)
    done = command("--recipe", tmp_path / "mine.toml", "--output", tmp_path / "out")
    last = done.stderr.splitlines()[-1]
    assert done.exit_code == 2 and last.startswith("Error: Two rounds gave no batch of 2: 6 rec")
    assert "0.tar cannot be read: Could not connect to the endpoint URL" in last
    assert last.endswith(f". The last good state is of step 2, {tmp_path / 'out' / STATE}.")


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", interrupted)
    folder = tmp_path / "my run"
    given = ["train", "--output", str(folder), "--steps", "60"]
    done = CliRunner().invoke(main, given)
    command = f"tf-groupvit train --output '{folder}' --steps 60"
    assert done.exit_code == 1 and done.stderr.splitlines()[-1] == "Aborted!"
    assert f"Stopped before a first state was saved. To begin again: {command}" in done.stderr
    (folder / STATE).parent.mkdir(parents=True)
    write_safetensors(folder / STATE, {}, {"step": "20"})
    done = CliRunner().invoke(main, given)
    assert (
        f"Stopped. Step 20 is kept in {folder / STATE}. To go on from there: {command}"
        in done.stderr
    )


def command(*words):
    return CliRunner().invoke(main, ["train", *map(str, words)])


def test_options_take_the_place_of_what_the_recipe_says(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        trainer,
        "train",
        lambda recipe, *rest, **words: asked.append(recipe) or [{"step": 1, "loss": 1}],
    )
    assert command("--data", "caps", "--output", tmp_path, "--steps", 7).exit_code == 0
    assert (
        command(
            "--data", "caps", "--output", tmp_path, "--model", "org/name", "--batch-size", 4
        ).exit_code
        == 0
    )
    first, second = asked
    assert first.name == "finetune" and first.data.source == "caps" and first.steps == 7
    assert first.start.checkpoint == "demo" and first.data.augmentation == "published"
    assert second.start.checkpoint == "org/name" and second.batch_size == 4
    (tmp_path / "mine.toml").write_text('epochs = 3\n[data]\nsource = "caps"\n')
    assert read_recipe(tmp_path / "mine.toml").epochs == 3
    assert read_recipe(tmp_path / "mine.toml", steps=9).epochs == 0


def test_a_captions_file_that_names_missing_images_is_refused(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption\nnowhere.png,a cat\n")
    done = command("--data", tmp_path, "--output", tmp_path / "out")
    assert (
        done.exit_code == 2
        and "names 1 images that are missing" in done.stderr
        and "nowhere.png" in done.stderr
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_of_several_that_is_stopped_ends_with_one_line(monkeypatch, tmp_path, number):
    team = Team(cluster=Cluster(1, 2))
    team.watch.kept = lambda: "worker 0 names the last good state"
    monkeypatch.setattr("tf_groupvit.training.devices.make_team", lambda *asked: team)
    monkeypatch.setattr(
        "tf_groupvit.training.trainer.train", lambda *_, **__: signal.raise_signal(number)
    )
    monkeypatch.setattr("tf_groupvit.cli.train.end_process", sys.exit)
    hosts = {"worker": ["localhost:1", "localhost:2"]}
    config = {"cluster": hosts, "task": {"type": "worker", "index": 1}}
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    # Programs that a shell starts in the background are made to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = CliRunner().invoke(
            main,
            ["train", "--output", str(tmp_path / "mine")],
            env={"TF_CONFIG": json.dumps(config)},
        )
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert done.output.splitlines()[1:] == [
        "Worker 1 was stopped; worker 0 names the last good state: start all workers again with"
        " the same command."
    ]
