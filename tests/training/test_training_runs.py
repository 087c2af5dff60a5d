"""A whole run, small: what it leaves behind, what it goes on from, and what stops it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from tiny_recipe import tiny_recipe

from tf_groupvit.checkpoints.safetensors_file import write_safetensors
from tf_groupvit.cli import main
from tf_groupvit.errors import CheckpointError, ConfigError, TrainingError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.scenes.scene import CLASSES, scene
from tf_groupvit.training import callbacks, trainer
from tf_groupvit.training.callbacks import StopOnNaN
from tf_groupvit.training.recipe import read_recipe
from tf_groupvit.training.scene_batches import SceneBatches
from tf_groupvit.training.state import restore_state, save_state, step_of
from tf_groupvit.training.texts import train_vocabulary
from tf_groupvit.training.trainer import HISTORY, STATE, build, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """60 steps from captions: the folder, and the history."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train(tiny_recipe(), folder, seed=3)


@pytest.mark.slow
def test_the_loss_of_sixty_steps_falls(run):
    losses = [line["loss"] for line in run[1]]
    assert len(losses) == 3 and losses[2] < losses[1] < losses[0]


@pytest.mark.slow
def test_the_history_says_how_fast_and_how_good(run):
    last = run[1][-1]
    assert last["step"] == 60 and last["images_per_second"] > 0
    assert 0 <= last["val_miou"] <= 1 and 1 <= last["groups_used"] <= 4
    assert [json.loads(line) for line in (run[0] / HISTORY).read_text().splitlines()] == run[1]


@pytest.mark.slow
def test_the_folder_is_a_checkpoint_with_its_vocabulary_and_card(run):
    model = TFGroupViTModel.from_pretrained(run[0])
    tokenizer, processor = Tokenizer.from_pretrained(run[0]), ImageProcessor.from_pretrained(run[0])
    assert tokenizer.vocab_size == model.config.text_config.vocab_size
    assert tokenizer.eos_token_id == model.config.text_config.eos_token_id
    assert processor.size == {"height": 32, "width": 32}
    assert (run[0] / "classes.txt").read_text().split() == list(CLASSES)
    card = (run[0] / "README.md").read_text()
    assert "| 60 |" in card and "seed 3" in card


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(run, capsys):
    assert train(tiny_recipe(), run[0], seed=3) == run[1]
    assert f"{run[0]} is at step 60 of 60: nothing is left to train." in capsys.readouterr().err


@pytest.mark.slow
def test_a_state_of_another_recipe_is_refused(run):
    with pytest.raises(CheckpointError, match="another recipe"):
        train(tiny_recipe(), run[0], seed=4)


@pytest.mark.slow
def test_a_full_disk_leaves_the_older_state_whole(run, tmp_path, monkeypatch):
    built = build(tiny_recipe(), tmp_path, seed=3)
    save_state(tmp_path / STATE, built.training, 20, built.about)
    whole = (tmp_path / STATE).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"No space left.*state of step 20 is kept"):
            save_state(tmp_path / STATE, built.training, 40, built.about)
    assert (tmp_path / STATE).read_bytes() == whole and os.listdir(tmp_path / "training") == [
        "state.safetensors"
    ]


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_with_the_step_and_the_last_good_state(tmp_path):
    built = build(tiny_recipe(), tmp_path, seed=3)
    save_state(tmp_path / STATE, built.training, 20, built.about)
    built.training.model.logit_scale.assign(np.nan)
    watcher = StopOnNaN(tmp_path / STATE, start=20)
    with pytest.raises(
        TrainingError,
        match=r"nan at step 21; the last good state is of step 20, .*state.safetensors",
    ):
        built.training.fit(
            built.data.batches(20), steps_per_epoch=5, shuffle=False, verbose=0, callbacks=[watcher]
        )


def test_a_state_brings_back_weights_optimizer_and_noise(tmp_path):
    built = build(tiny_recipe(), tmp_path, seed=3)
    one = np.ones
    for variable in [*built.training.variables, *built.training.optimizer.variables]:
        variable.assign(one(variable.shape, variable.dtype))
    save_state(tmp_path / STATE, built.training, 7, built.about)
    assert step_of(tmp_path / STATE) == 7
    other = build(tiny_recipe(), tmp_path, seed=3)
    assert restore_state(tmp_path / STATE, other.training, other.about) == 7
    for variable in [*other.training.variables, *other.training.optimizer.variables]:
        assert np.array_equal(
            keras.ops.convert_to_numpy(variable), one(variable.shape, variable.dtype)
        ), variable.path


SLOW_RUN = """
import sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from tiny_recipe import tiny_recipe
from tf_groupvit.training.trainer import train
train(tiny_recipe(), Path(sys.argv[1]), seed=3)
"""


@pytest.mark.slow
def test_a_killed_run_started_again_gives_the_same_losses(run, tmp_path):
    code = SLOW_RUN.format(here=str(Path(__file__).parent))
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        while not (tmp_path / STATE).exists():
            assert child.poll() is None, "the run ended before it saved a state"
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert step_of(tmp_path / STATE) < 60
    lines = train(tiny_recipe(), tmp_path, seed=3)
    assert [line["step"] for line in lines] == [20, 40, 60]
    for ours, theirs in zip(lines, run[1], strict=True):
        # the same sums on the same machine; another number of threads may order some of them
        # otherwise
        assert np.isclose(ours["loss"], theirs["loss"], rtol=1e-3), (ours, theirs)


def test_batches_are_the_same_wherever_one_begins(tmp_path):
    tokenizer = train_vocabulary(tmp_path, ["an apple on the grass."] * 2, merges=10, max_length=96)
    data = SceneBatches(
        tokenizer, ["apple", "grass"], 32, 4, ((0, 0, 0), (1, 1, 1)), seed=5, text_length=96
    )
    third = next(iter(data.batches(2)))
    again = list(data.batches().take(3))[2]
    assert all(np.array_equal(third[name], again[name]) for name in third)
    assert set(third) == {
        "pixel_values",
        "input_ids",
        "attention_mask",
        "word_ids",
        "word_mask",
        "present",
    }
    assert third["pixel_values"].shape == (4, 3, 32, 32)


def test_words_come_from_captions_and_not_from_masks(tmp_path):
    tokenizer = train_vocabulary(tmp_path, ["a"], merges=0, max_length=96)
    data = SceneBatches(tokenizer, CLASSES, 64, 8, ((0, 0, 0), (1, 1, 1)), seed=5, text_length=96)
    batch = data.batch(1)
    captions = [scene(5, 8 + i, 64, "training").caption for i in range(8)]
    assert batch["present"].tolist() == [
        [word in re.findall(r"\w+", text) for word in CLASSES] for text in captions
    ]


def test_a_trained_vocabulary_writes_any_text_in_python_and_in_graphs(tmp_path):
    texts = ["a photo of an apple on the grass.", "naïve 雪 e-mail 42"]
    tokenizer = train_vocabulary(tmp_path, texts[:1] * 3, merges=30, max_length=48)
    tokens = tokenizer(texts, padding="max_length")
    graph = tokenizer.graph()(texts)
    assert np.array_equal(tokens["input_ids"], graph["input_ids"])
    assert (
        tokenizer.decode(tokens["input_ids"][0], skip_special_tokens=True)
        == "a photo of an apple on the grass ."
    )
    assert tokens["attention_mask"][0].sum() < 15  # whole words became tokens


def test_the_same_texts_give_the_same_vocabulary_however_often_pairs_are_alike(tmp_path):
    texts = [
        f"{a}{b} {b}{a} {a}{a}" for a in "abcdefgh" for b in "abcdefgh"
    ] * 2  # hundreds of pairs as frequent
    for k in range(5):
        train_vocabulary(tmp_path / str(k), texts, merges=40, max_length=48)
    assert len({(tmp_path / str(k) / "merges.txt").read_bytes() for k in range(5)}) == 1


def test_the_demo_recipe_can_be_read_and_others_name_what_is_wrong(tmp_path):
    assert read_recipe("demo").name == "demo" and "multi_label" not in read_recipe("demo").losses
    (tmp_path / "mine.toml").write_text("step = 5\n")
    with pytest.raises(ConfigError, match="no key 'step': did you mean 'steps'"):
        read_recipe(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text("steps = 5\n[optimizer]\nrate = 0.5\n")
    assert read_recipe(tmp_path / "mine.toml", steps=7).steps == 7
    with pytest.raises(ConfigError, match="expected one of demo"):
        read_recipe("demos")
    with pytest.raises(ConfigError, match="whole number"):
        read_recipe("demo", steps=0)


def test_the_command_trains_and_says_what_came_of_it(tmp_path, monkeypatch):
    asked = {}

    def pretend(recipe, folder, seed, bar, tensorboard):
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


def test_progress_tells_the_time_that_is_left_without_the_first_step(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    watcher = callbacks.Progress(steps=1000, batch_size=8, start=100, bar=False)
    watcher.on_train_begin()
    for seconds in (500, 2, 2, 2, 60):
        now[0] += seconds
        watcher.on_train_batch_end(0, {"loss": 1.5})
    watcher.on_epoch_end(0, {"loss": 1.25})
    watcher.step = 1000
    watcher.on_epoch_end(1, {"loss": 1.0})
    assert capsys.readouterr().err.splitlines() == [
        "step 102 of 1000: loss 1.500, about 30 min left",  # 898 steps of 2 s
        "step 105 of 1000: loss 1.500, about 4 h 6 min left",  # 895 of 66 s / 4
        "step 105 of 1000: loss 1.250, about 4 h 6 min left",
        "step 1000 of 1000: loss 1.000",
    ]
