"""tf-groupvit convert: any format to one folder that loads, whole or not at all."""

import json
import shutil

import numpy as np
import pytest
from checkpoint_folders import CHECKPOINTS, CONFIG, EVERYTHING, FORMATS, TOKENIZER, checkpoint
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from tf_groupvit.cli import main


def convert(*arguments):
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def refused(done, told):
    assert done.exit_code == 2 and "Traceback" not in done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1 and told in errors[0]


def reference() -> dict[str, np.ndarray]:
    return load_file(CHECKPOINTS / "transformers" / "model.safetensors")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_file_that_transformers_writes(kind, tmp_path):
    done = convert(checkpoint(tmp_path / "source", kind), tmp_path / "new" / "folder")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    found, expected = load_file(tmp_path / "new" / "folder" / "model.safetensors"), reference()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if not name.endswith("num_batches_tracked"):
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    config = json.loads(CONFIG.read_text())
    written = json.loads((tmp_path / "new" / "folder" / "config.json").read_text())
    assert {key: written[key] for key in config if "config" not in key} == {
        key: value for key, value in config.items() if "config" not in key
    }


def test_a_checkpoint_of_a_training_tool_is_converted_and_what_was_removed_is_said(tmp_path):
    source = checkpoint(tmp_path / "source")
    save_file(
        {f"module._orig_mod.{name}": array for name, array in reference().items()},
        source / "model.safetensors",
    )
    done = convert(source, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (
        "Note: The prefix 'module._orig_mod.' was removed from the names of 214 tensors."
        in done.stdout
    )
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == reference().keys()


def test_a_file_of_weights_without_its_config_says_where_it_belongs(tmp_path):
    source = checkpoint(tmp_path / "source", "pickle")
    (source / "config.json").unlink()
    weights = (source / "pytorch_model.bin").rename(source / "last.ckpt")
    refused(
        convert(weights, tmp_path / "out"), "put the model's config.json in the folder of last.ckpt"
    )


def test_what_was_read_is_said(tmp_path):
    done = convert(checkpoint(tmp_path / "source", "original"), tmp_path / "out")
    read, note, wrote = done.stdout.splitlines()
    assert (
        read
        == f"Read {tmp_path}/source/groupvit.pth (pickle, original): 214 tensors, 7,910 parameters"
    )
    assert note.startswith("Note: multi_label_logit_scale was dropped")
    assert wrote == f"Wrote {tmp_path}/out: model.safetensors, config.json"
    assert "Reading" in done.stderr and "give --tokenizer" in done.stderr


def test_tokenizer_and_preprocessor_go_along(tmp_path):
    done = convert(checkpoint(tmp_path / "source", beside=EVERYTHING), tmp_path / "out")
    assert done.exit_code == 0 and "--tokenizer" not in done.stderr
    for name in EVERYTHING:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "source" / name).read_bytes()


def test_the_tokenizer_may_come_from_elsewhere(tmp_path):
    source = checkpoint(tmp_path / "source", beside=("preprocessor_config.json",))
    other = checkpoint(tmp_path / "other", beside=TOKENIZER)
    assert convert(source, tmp_path / "out", "--tokenizer", other).exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *EVERYTHING,
        "config.json",
        "model.safetensors",
    }


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_keep_their_precision(dtype, tmp_path):
    source = checkpoint(tmp_path / "source")
    arrays = {
        name: array.astype(dtype)
        for name, array in reference().items()
        if array.dtype == np.float32
    }
    save_file(arrays, source / "model.safetensors")
    assert convert(source, tmp_path / "out").exit_code == 0
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert {found[name].dtype.name for name in arrays} == {dtype}
    np.testing.assert_array_equal(found["logit_scale"], arrays["logit_scale"])


def test_a_tower_is_converted_as_what_it_is(tmp_path):
    joint = json.loads(CONFIG.read_text())
    source = checkpoint(tmp_path / "source")
    (source / "config.json").write_text(json.dumps(joint["text_config"]))
    assert convert(source, tmp_path / "out").exit_code == 0
    assert {name.split(".")[0] for name in load_file(tmp_path / "out" / "model.safetensors")} == {
        "text_model"
    }
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["model_type"]
        == "groupvit_text_model"
    )


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(tmp_path):
    target = checkpoint(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    refused(
        convert(checkpoint(tmp_path / "source", "pickle"), target),
        "not empty: name another folder, or give --over",
    )
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert convert(tmp_path / "source", tmp_path / "empty").exit_code == 0


def test_a_folder_in_use_is_refused_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tf_groupvit.models.conversion.resolve", lambda *_, **__: pytest.fail("fetched")
    )
    refused(convert("nvidia/groupvit-gcc-yfcc", checkpoint(tmp_path / "out")), "not empty")


def test_on_request_an_older_checkpoint_in_the_folder_is_replaced_and_the_rest_stays(tmp_path):
    target = checkpoint(tmp_path / "out")
    (target / "model.safetensors").write_bytes(b"old")
    (target / "notes.txt").write_text("mine")
    assert convert(checkpoint(tmp_path / "source", "pickle"), target, "--overwrite").exit_code == 0
    assert load_file(target / "model.safetensors").keys() == reference().keys()
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_the_source_is_never_written_into(tmp_path):
    source = checkpoint(tmp_path / "source", "pickle")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    (tmp_path / "link").symlink_to(source)
    for target in (source, f"{source}/", source / ".." / "source", tmp_path / "link"):
        refused(convert(source, target), "holds the source itself")
    refused(convert(source / "pytorch_model.bin", source), "holds the source itself")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def nan_weights(folder):
    arrays = reference()
    arrays["vision_model.layernorm.weight"][1] = np.nan
    save_file(arrays, folder / "model.safetensors")


def lose(folder):
    arrays = reference()
    del arrays["logit_scale"], arrays["text_projection.0.bias"]
    arrays["extra"] = np.zeros(1)
    arrays["visual_projection.3.bias"] = np.zeros(4)
    save_file(arrays, folder / "model.safetensors")


SPOILS = {
    "NaN": (nan_weights, "Weight 'vision_model.layernorm.weight' holds 1 NaN"),
    "missing, unexpected and misshapen": (
        lose,
        "2 missing: logit_scale, text_projection.0.bias; 1 unexpected: extra;",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
    "another model": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "clip"}'),
        "'groupvit'",
    ),
    "an impossible config": (
        lambda f: (f / "config.json").write_text('{"projection_dim": 0}'),
        "projection_dim is 0",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x08" + bytes(9)),
        "not a sound safetensors",
    ),
    "a broken tokenizer": (lambda folder: (folder / "vocab.json").write_text("{"), "vocab.json"),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_nothing_is_written_of_a_broken_checkpoint(spoil, tmp_path):
    source = checkpoint(tmp_path / "source", beside=EVERYTHING)
    spoiler, told = SPOILS[spoil]
    spoiler(source)
    refused(convert(source, tmp_path / "out"), told)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_target_that_is_no_folder_is_refused(tmp_path):
    source = checkpoint(tmp_path / "source")
    (tmp_path / "file").write_text("mine")
    refused(convert(source, tmp_path / "file"), "is no folder")
    refused(convert(source, tmp_path / "file" / "below"), "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_a_tokenizer_is_refused_as_one(tmp_path):
    source = checkpoint(tmp_path / "source")
    (tmp_path / "empty").mkdir()
    refused(
        convert(source, tmp_path / "out", "--tokenizer", tmp_path / "empty"), "holds no tokenizer"
    )
    refused(convert(source, tmp_path / "out", "--tokenizer", tmp_path / "gone"), "gone")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["gone", "./gone", "", "some/model", "http://x/y"])
def test_a_source_that_is_not_there_is_told(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = convert(source, tmp_path / "out")
    assert done.exit_code == 2 and done.stderr.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "out").exists()


def test_what_was_converted_loads(tmp_path):
    from tf_groupvit.models.groupvit import TFGroupViTModel

    shutil.copytree(CHECKPOINTS / "shards", tmp_path / "source")
    assert convert(tmp_path / "source", tmp_path / "out").exit_code == 0
    ids = np.array([[21, 3, 22]])
    expected = TFGroupViTModel.from_pretrained(tmp_path / "source").get_text_features(ids)
    found = TFGroupViTModel.from_pretrained(tmp_path / "out").get_text_features(ids)
    np.testing.assert_array_equal(found, expected)
