"""Runs on captions of one's own: what they learn, leave out, resume from, begin at, and refuse."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from pairs import png, shard, write_tar
from tiny_recipe import JOINT, TEXT, VISION, tiny_recipe

from tf_groupvit.cli import main
from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.hub import demo_checkpoint
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.scenes.scene import scenes
from tf_groupvit.training import trainer
from tf_groupvit.training.devices import Team
from tf_groupvit.training.recipe import read_recipe
from tf_groupvit.training.state import position_of, step_of
from tf_groupvit.training.trainer import BEST, HISTORY, STATE, build, open_sources

VOCABULARY = Path(__file__).parents[1] / "golden" / "tokenizer" / "vocabularies" / "trained"
SHALLOW = {**VISION, "num_hidden_layers": 1, "depths": [1, 0]}  # tracing takes most of the time


SMALL = """
steps = 30
batch_size = 8
save_every = 8
[data]
source = "{source}"
augmentation = "none"
shuffle = 50
[optimizer]
rate = 1e-2
start = 1e-3
warm_up = 4
[vocabulary]
captions = 10
text_length = 30
"""


FINE = """
epochs = 1
batch_size = 8
trains = "lora"
lora_rank = 2
drop_path = 0.1
precision = "mixed_bfloat16"
keep = "best"
[data]
validation = "{validation}"
words = "{words}"
[losses]
caption = 1.0
multi_label = 1.0
vocabulary = 1.0
group_word = 1.0
[vocabulary]
words = ["apple", "box", "sky"]
"""


def command(*words):
    return CliRunner().invoke(main, ["train", *map(str, words)])


def table(name, values):
    return "\n".join(
        [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    )


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """A folder that ``tf-groupvit scenes`` wrote, with one picture broken and one caption empty."""
    folder = tmp_path_factory.mktemp("captions")
    CliRunner().invoke(main, ["scenes", "--output", str(folder), "--count", "26", "--size", "32"])
    (folder / "images" / "00003.png").write_bytes(b"no picture")
    lines = (folder / "captions.txt").read_text().splitlines()
    lines[5] = " "
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, captions):
    file = tmp_path_factory.mktemp("recipe") / "small.toml"
    sizes = [
        table(f"model.{name}", part)
        for name, part in (("vision", SHALLOW), ("text", TEXT), ("joint", JOINT))
    ]
    file.write_text(SMALL.format(source=captions) + "".join(sizes))
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory, recipe):
    """A folder that was trained into, what the command said, and the folder as a kill after 8 steps
    had left it.
    """
    folder, killed = (tmp_path_factory.mktemp("run") / name for name in ("made", "killed"))
    save = trainer.SaveState.on_epoch_end

    def copy(self, epoch, logs=None):
        save(self, epoch, logs)
        if self.step == 8:
            shutil.copytree(folder, killed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.SaveState, "on_epoch_end", copy)
        done = command("--recipe", recipe, "--output", folder, "--seed", 3)
    return folder, done, killed


def history(folder):
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


@pytest.mark.slow
def test_the_command_learns_from_a_folder_and_names_what_it_left_out(run):
    folder, done, _ = run
    assert done.exit_code == 0, done.output
    lines = history(folder)
    assert [line["step"] for line in lines] == [8, 16, 24, 30]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.2
    said = done.stderr.splitlines()
    assert said[0].startswith("Training on ") and "30 steps" in said[0] and str(folder) in said[0]
    assert said[1].endswith(f"(26 pairs): 30 steps of 8 pictures, into {folder}.")
    assert said[2].startswith("step 2 of 30: ") and said[2].endswith(" left")
    assert "2 records were skipped" in done.stderr
    assert "00003.png: " in done.stderr and "00005.png: its caption is empty" in done.stderr
    assert TFGroupViTModel.from_pretrained(folder).config.vision_config.image_size == 32
    assert "| 30 |" in (folder / "README.md").read_text() and not (folder / "classes.txt").exists()


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_same_pairs(run, recipe):
    folder, _, killed = run
    assert step_of(killed / STATE) == 8
    place = position_of(killed / STATE)
    assert place.batches == 8 and place.round == 2  # 24 whole pairs a round
    done = command("--recipe", recipe, "--output", killed, "--seed", 3)
    assert (
        done.exit_code == 0
        and f"Resuming at step 8 of 30 from {killed}." in done.stderr.splitlines()
    )
    for ours, theirs in zip(history(killed), history(folder), strict=True):
        # the same sums on the same machine; another number of threads may order some of them
        # otherwise
        assert np.isclose(ours["loss"], theirs["loss"], rtol=1e-3), (ours, theirs)


@pytest.mark.slow
def test_a_checkpoint_is_tuned_by_epochs_with_lora_words_and_half_precision(
    run, captions, tmp_path
):
    words = tmp_path / "words.txt"
    words.write_text("apple\nstar\ngrass\nsky\n")
    (tmp_path / "fine.toml").write_text(FINE.format(words=words, validation=captions))
    given = (
        "--recipe",
        tmp_path / "fine.toml",
        "--data",
        captions,
        "--model",
        run[0],
        "--output",
        tmp_path / "tuned",
    )
    done = command(*given)
    assert done.exit_code == 0, done.output
    (line,) = history(tmp_path / "tuned")
    parts = ("multi_label_loss", "vocabulary_loss", "group_word_loss", "val_loss")
    assert line["step"] == 26 // 8 and np.isfinite([line[name] for name in parts]).all()
    assert (tmp_path / "tuned" / "classes.txt").read_text().split() == ["apple", "box", "sky"]
    assert (
        "on held-out captions" in done.stderr
        and (tmp_path / "tuned" / BEST / "model.safetensors").exists()
    )
    before, after = (
        TFGroupViTModel.from_pretrained(folder) for folder in (run[0], tmp_path / "tuned")
    )
    moved = [
        a.path
        for a, b in zip(after.weights, before.weights, strict=True)
        if not np.array_equal(a, b)
    ]
    assert moved and all("q_proj" in path or "v_proj" in path or "seed" in path for path in moved)
    ids = [
        Tokenizer.from_pretrained(folder)(["an apple"])["input_ids"]
        for folder in (run[0], tmp_path / "tuned")
    ]
    assert np.array_equal(*ids)


@pytest.mark.slow
def test_a_share_is_held_out_and_a_vocabularys_words_are_looked_for_in_captions(captions, tmp_path):
    recipe = tiny_recipe(
        data={
            "source": str(captions),
            "validation_share": 0.25,
            "shuffle": 1,
            "augmentation": "none",
        },
        vocabulary={"words": ["apple", "sky"], "captions": 10, "text_length": 40},
    )
    run = build(recipe, tmp_path)
    assert len(run.data) == 20
    assert np.isfinite(run.make_validation()()["val_loss"])
    (batch,) = run.data.batches().take(1).as_numpy_iterator()
    texts = run.tokenizer.decode(batch["input_ids"], skip_special_tokens=True)
    assert batch["present"].tolist() == [
        ["apple" in text.split(), "sky" in text.split()] for text in texts
    ]
    assert batch["word_ids"].shape == (2, 40)
    whole = (captions / "captions.txt").read_text().splitlines()
    held_out = {whole[place] for place in range(3, 26, 4)}
    assert len(held_out) == 6 and not {text.replace(" .", ".") for text in texts} & held_out


def test_a_share_too_small_to_hold_a_pair_out_is_refused(captions, tmp_path):
    recipe = tiny_recipe(
        data={"source": str(captions), "validation_share": 0.01}, losses={"caption": 1.0}
    )
    with pytest.raises(DatasetError, match=r"raise \[data\] validation_share"):
        build(recipe, tmp_path).make_validation()


def test_the_recipe_says_what_of_the_model_learns_and_how(tmp_path):
    how = {
        "trains": "group tokens",
        "drop_path": 0.3,
        "rematerialize": True,
        "start": {"checkpoint": "demo"},
    }
    training = build(tiny_recipe(model={}, **how), tmp_path).training
    stages = training.model.vision_model.stages
    assert [stage.rematerialize for stage in stages] == [True, True] and stages[0].drop_rates == (
        0.0,
        0.3,
    )
    assert [v.path.rpartition("/")[2] for v in training.model.trainable_variables] == [
        "group_token"
    ]


def test_a_tokenizer_that_is_not_the_models_is_refused(golden, tmp_path):
    start = {
        "checkpoint": "demo",
        "tokenizer": str(golden / "tokenizer" / "vocabularies" / "trained"),
    }
    model = TFGroupViTModel.from_pretrained(demo_checkpoint())
    assert (
        Tokenizer.from_pretrained(start["tokenizer"]).vocab_size
        > model.config.text_config.vocab_size
    )
    with pytest.raises(InputError, match="give the model's own tokenizer"):
        build(tiny_recipe(model={}, start=start), tmp_path)


def test_a_batch_larger_than_the_data_is_lowered_with_a_word(captions, tmp_path, capsys):
    recipe = tiny_recipe(data={"source": str(captions)}, losses={"caption": 1.0}, batch_size=40)
    run = build(recipe, tmp_path / "run")
    assert run.recipe.batch_size == run.data.batch_size == run.about["batch_size"] == 26
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{captions} holds 26 pairs to train on: the batch of 40 is lowered to 26."
    part = replace(recipe, data=replace(recipe.data, validation_share=0.5))
    assert build(part, tmp_path / "part").recipe.batch_size == 13


def test_a_single_pair_is_refused(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption\na.png,a cat\n")
    (tmp_path / "a.png").write_bytes(b"image")
    with pytest.raises(DatasetError, match="pairs to train on should be 2 or more, got 1"):
        build(tiny_recipe(data={"source": str(tmp_path)}, losses={"caption": 1.0}), tmp_path)


def test_a_lowered_batch_is_one_that_replicas_can_share(captions, monkeypatch):
    recipe = tiny_recipe(data={"source": str(captions)}, losses={"caption": 1.0}, batch_size=40)
    source = open_sources(recipe)[0]
    monkeypatch.setattr(
        "tensorflow.distribute.get_strategy", lambda: SimpleNamespace(num_replicas_in_sync=4)
    )
    assert trainer.fit_batch(recipe, source).batch_size == 24
    monkeypatch.setattr(
        "tensorflow.distribute.get_strategy", lambda: SimpleNamespace(num_replicas_in_sync=32)
    )
    with pytest.raises(DatasetError, match="should be 32 or more, got 26"):
        trainer.fit_batch(recipe, source)


@pytest.mark.slow
def test_the_published_recipe_takes_its_first_steps_on_shards(tmp_path):
    """Its losses, words, augmentation and precision; sizes, the batch and the vocabulary smaller."""
    members = {}
    for number, one in enumerate(scenes(0, 16, 64)):
        members |= {f"{number}.png": png(one.image), f"{number}.txt": one.caption.encode()}
    write_tar(tmp_path / "data" / "0.tar", members)
    (tmp_path / "words.txt").write_text("apple\nstar\nsky\n")
    recipe = read_recipe(
        "published",
        steps=20,
        batch_size=8,
        save_every=10,
        model={"vision": SHALLOW, "text": TEXT, "joint": JOINT},
        start={"tokenizer": str(VOCABULARY)},
        data={"source": str(tmp_path / "data"), "words": str(tmp_path / "words.txt")},
    )
    history = trainer.train(recipe, tmp_path / "out")
    assert history[-1]["step"] == 20
    assert all(np.isfinite(line["multi_label_loss"] + line["caption_loss"]) for line in history)
    epochs = replace(recipe, steps=300, epochs=30)
    rate = build(epochs, tmp_path / "new").training.optimizer.inner_optimizer._learning_rate
    rates = [float(rate(step)) for step in (0, 4, 60)]  # 16 pairs in 30 epochs are 60 batches
    assert rates == pytest.approx([4e-6, 1.6e-3, 4e-5], rel=1e-5)


def test_data_are_counted_before_workers_wait_for_each_other(tmp_path, monkeypatch):
    """A pass through all headers may take longer than they wait."""
    done = []

    @contextmanager
    def waiting(team, what):
        done.append("waiting")
        yield

    monkeypatch.setattr(trainer, "count_records", lambda source: done.append("counted") or 80)
    monkeypatch.setattr(Team, "waiting", waiting)
    monkeypatch.setattr(trainer, "_build", lambda recipe, *_: recipe)
    shard(tmp_path / "0.tar", 6)
    recipe = tiny_recipe(data={"source": str(tmp_path)}, batch_size=4, losses={"caption": 1.0})
    built = build(replace(recipe, epochs=2), tmp_path / "out")
    assert built.steps == 40 and done == ["counted", "waiting"]
