"""A whole run on scenes, small: what it leaves behind, resumes from, and shows in TensorBoard."""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_recipe import tiny_recipe

from tf_groupvit.errors import CheckpointError, InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.scenes.scene import CLASSES, scene
from tf_groupvit.segmentation.palette import group_colors
from tf_groupvit.storage import Output
from tf_groupvit.training import trainer
from tf_groupvit.training.caption_batches import Position
from tf_groupvit.training.devices import Team
from tf_groupvit.training.state import position_of, restore_state, save_state, step_of
from tf_groupvit.training.together import Together
from tf_groupvit.training.trainer import HISTORY, PICTURES, STATE, build, train
from tf_groupvit.training.validation import SHOWN_AT


def events(folder: Path) -> dict[str, dict[int, list[bytes] | float]]:
    """Name -> step -> number, or the fields of an image summary."""
    found: dict[str, dict[int, list[bytes] | float]] = {}
    for file in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                number = value.metadata.plugin_data.plugin_name == "scalars"
                found.setdefault(value.tag, {})[event.step] = (
                    float(array) if number else array.tolist()
                )
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """60 steps on scenes: the folder, with what TensorBoard shows in a folder beside it, and the
    history; and the folder as a kill before the second state was saved had left it.
    """
    folder, killed = (tmp_path_factory.mktemp("run") / name for name in ("made", "killed"))
    save = trainer.SaveState.on_epoch_end

    def copy(self, epoch, logs=None):
        if self.step == 40:
            shutil.copytree(folder, killed)
        save(self, epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.SaveState, "on_epoch_end", copy)
        lines = train(tiny_recipe(), folder, seed=3, tensorboard=folder.parent / "shown")
    return folder, lines, killed


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


def test_a_state_brings_back_weights_optimizer_and_noise(tmp_path):
    built = build(tiny_recipe(), tmp_path, seed=3)
    one = np.ones
    for variable in [*built.training.variables, *built.training.optimizer.variables]:
        variable.assign(one(variable.shape, variable.dtype))
    of_0_1 = {"initialization": "initialisation", "rematerialize": "rematerialise"}
    about = {of_0_1.get(name, name): value for name, value in built.about.items()}
    del about["pairs"]  # 0.1 did not note them
    save_state(tmp_path / STATE, built.training, 7, about)
    assert step_of(tmp_path / STATE) == 7
    other = build(tiny_recipe(), tmp_path, seed=3)
    assert restore_state(tmp_path / STATE, other.training, other.about) == 7
    for variable in [*other.training.variables, *other.training.optimizer.variables]:
        assert np.array_equal(
            keras.ops.convert_to_numpy(variable), one(variable.shape, variable.dtype)
        ), variable.path
    elsewhere = tmp_path / "of_pairs.safetensors"
    save_state(elsewhere, built.training, 7, {**about, "pairs": "0a1b"})
    assert restore_state(elsewhere, other.training, {**other.about, "pairs": "0a1b"}) == 7
    with pytest.raises(CheckpointError, match="other pairs than are there now: put those back"):
        restore_state(elsewhere, other.training, {**other.about, "pairs": "c2d3"})


@pytest.mark.slow
def test_a_killed_run_started_again_gives_the_same_losses(run):
    _, expected, killed = run
    written = (killed / HISTORY).read_text().splitlines()
    assert step_of(killed / STATE) == 20 and len(written) == 2  # a line that no state goes with
    lines = train(tiny_recipe(), killed, seed=3)
    assert [line["step"] for line in lines] == [20, 40, 60]
    for ours, theirs in zip(lines, expected, strict=True):
        # the same sums on the same machine; another number of threads may order some of them
        # otherwise
        assert np.isclose(ours["loss"], theirs["loss"], rtol=1e-3), (ours, theirs)


@pytest.mark.slow
def test_a_run_writes_its_numbers_each_round_and_its_pictures_when_it_measures(run):
    folder, lines, _ = run
    found = events(folder.parent / "shown")
    for name in ("loss", "caption_loss", "group_word_loss", "images_per_second"):
        assert found[name] == pytest.approx({line["step"]: line[name] for line in lines}, rel=1e-5)
    assert found["val_miou"] == pytest.approx({60: lines[-1]["val_miou"]}, rel=1e-5)
    assert found["learning_rate"].keys() == {20, 40, 60} and found["learning_rate"][60] < 3e-3
    for name in ("images", "groups of stage 1", "masks"):
        width, height, *files = found[name][60]
        assert found[name].keys() == {60} and len(files) == PICTURES
        for file in files:
            sides = tf.io.decode_png(file).shape
            assert sides == (int(height), int(width), 3) == (SHOWN_AT, SHOWN_AT, 3)


def test_pictures_are_held_out_scenes_with_every_patch_in_its_groups_color(tmp_path):
    shown = build(tiny_recipe(), tmp_path).make_pictures()
    pictures = shown.draw()
    image, groups = (np.asarray(pictures[name][1]) for name in ("images", "groups of stage 1"))
    from tf_groupvit.training.validation import SEED

    assert np.array_equal(image[::4, ::4], scene(SEED, 1, 64).image)
    paint = np.abs(2 * groups.astype(int) - image)  # half of each, rounded
    near = np.abs(paint[:, :, None] - group_colors(4)).max(axis=-1).min(axis=-1)
    assert near.max() <= 1
    assert shown.words == list(CLASSES)
    assert len(pictures["masks"]) == PICTURES and not np.array_equal(pictures["masks"][1], image)


def test_a_state_knows_where_each_worker_is_and_others_go_on_behind_them(tmp_path):
    built = build(tiny_recipe(), tmp_path)
    places = [Position(7, 1, 4), Position(7, 0, 9)]
    save_state(tmp_path / STATE, built.training, 7, built.about, places)
    assert [position_of(tmp_path / STATE, worker, 2) for worker in range(2)] == places
    assert position_of(tmp_path / STATE) == position_of(tmp_path / STATE, 2, 3) == places[0]
    save_state(tmp_path / STATE, built.training, 7, built.about, places[1:])
    assert position_of(tmp_path / STATE) == position_of(tmp_path / STATE, 1, 2) == places[1]


def test_a_run_in_a_bucket_that_is_lost_names_the_last_good_state_and_goes_on(
    s3, monkeypatch, capsys
):
    """Without the steps, which take long and write nothing."""

    def one_round(self, batches, rounds, steps, callbacks):
        hooks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        hooks.on_train_begin()
        hooks.on_epoch_begin(0)
        for place in range(steps):
            hooks.on_train_batch_end(place, {"loss": 1.0})
        hooks.on_epoch_end(0, {"loss": 1.0})

    def lost_in_the_second(self, *arguments):
        one_round(self, *arguments)
        monkeypatch.setattr(Output, "write", unreachable)
        one_round(self, *arguments)

    def unreachable(self, name, content):
        raise InputError(f"'{self.location}/{name}' cannot be written: Could not connect.")

    write = Output.write
    monkeypatch.setattr(Together, "fit", lost_in_the_second)
    recipe, bucket = tiny_recipe(steps=60, save_every=20), "s3://photos/mine"
    good = f"The last good state is of step 20, {bucket}/training/state-00000020.safetensors"
    with pytest.raises(InputError, match=rf"last.json' cannot be written: .* {good}\.") as caught:
        train(recipe, bucket)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(Output, "write", write)
    monkeypatch.setattr(Together, "fit", one_round)
    assert [line["step"] for line in train(recipe, bucket)] == [20, 40]
    assert f"Resuming at step 20 of 60 from {bucket}." in capsys.readouterr().err
    wanted = {"config.json", "model.safetensors", "vocab.json", "README.md"}
    assert wanted <= {path.rpartition("/")[2] for path in s3.ls("photos/mine")}


def test_what_replicas_cannot_do_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Team, "replicas", 2)
    changes = {"precision": "mixed_float16", "optimizer": {"accumulation": 2}}
    with pytest.raises(InputError, match="cannot accumulate gradients in mixed_float16: take"):
        build(tiny_recipe(**changes), tmp_path)
    with pytest.raises(InputError, match="A batch of 7 cannot be shared evenly by 2 replicas"):
        build(tiny_recipe(batch_size=7), tmp_path)
