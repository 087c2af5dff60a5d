"""A folder or a file: the right one is read, and what cannot be read is told in one line."""

import os

import numpy as np
import pytest
from checkpoint_files import GOLDEN, row, safetensors
from safetensors.numpy import save_file

from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.checkpoints.tensors import Entry, Tensors
from tf_groupvit.errors import CheckpointError
from tf_groupvit.hub import WEIGHTS


def refused(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_folder_with_several_formats_gives_the_first_of_the_order(tmp_path):
    """safetensors, its shards, h5, bin: each is taken away in turn."""
    sources = {
        "model.safetensors": GOLDEN / "transformers" / "model.safetensors",
        "tf_model.h5": GOLDEN / "tensorflow" / "joint" / "tf_model.h5",
        "pytorch_model.bin": GOLDEN / "zip.bin",
        **{file.name: file for file in (GOLDEN / "shards").iterdir()},
    }
    for name, source in sources.items():
        (tmp_path / name).write_bytes(source.read_bytes())
    formats = []
    for name in [name for name in WEIGHTS if name in sources]:
        formats.append(read_checkpoint(tmp_path).format)
        assert read_checkpoint(tmp_path).source == tmp_path / name
        (tmp_path / name).unlink()
    assert formats == ["safetensors", "safetensors shards", "h5", "pickle"]
    refused(tmp_path, "no weights")


@pytest.mark.parametrize(
    "name", ["zip.bin", "legacy.bin", "original.pth", "transformers/model.safetensors"]
)
def test_a_single_file_is_read_and_text_paths_too(name):
    assert len(read_checkpoint(str(GOLDEN / name)).tensors) == 214


def test_what_is_no_checkpoint_is_told(tmp_path):
    refused(tmp_path, "no weights")
    refused(tmp_path / "gone", "not there")
    (tmp_path / "weights.txt").write_text("x")
    refused(tmp_path / "weights.txt", "name that ends in")
    (tmp_path / "model.safetensors").mkdir()
    refused(tmp_path, "no weights")
    refused(tmp_path / "model.safetensors", "no weights")


def test_a_folder_whose_weights_have_another_name_says_which_file_to_name(tmp_path):
    for name in ("last.ckpt", "notes.txt"):
        (tmp_path / name).write_text("x")
    refused(tmp_path, "holds no weights.*to read last.ckpt, name that file")


def test_a_pointer_of_git_lfs_is_told_apart(tmp_path):
    (tmp_path / "pytorch_model.bin").write_text(
        "version https://git-lfs.example/spec/v1\noid sha256:00\nsize 3\n"
    )
    refused(tmp_path, "git lfs pull")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors({}))
    (tmp_path / "model.safetensors").chmod(0)
    refused(tmp_path, "Cannot read")


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "a" * 501])
def test_a_name_that_would_break_a_message_is_refused(tmp_path, name):
    (tmp_path / "model.safetensors").write_bytes(safetensors({name: row()}, bytes(8)))
    refused(tmp_path, "plain words")


def test_half_precision_comes_as_it_is(tmp_path):
    save_file({"logit_scale": np.array(2.5, np.float16)}, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path).tensors["logit_scale"].dtype == np.float16


def test_tensors_are_read_only_when_asked_for():
    asked = []

    def read():
        asked.append(1)
        return np.ones((2, 3))

    tensors = Tensors({"a": Entry((2, 3), np.dtype("f8"), read)})
    assert (list(tensors), len(tensors), tensors.shapes(), "a" in tensors) == (
        ["a"],
        1,
        {"a": (2, 3)},
        True,
    )
    assert Tensors.of(tensors) is tensors
    assert not asked
    assert tensors["a"].sum() == 6
    assert asked == [1]
