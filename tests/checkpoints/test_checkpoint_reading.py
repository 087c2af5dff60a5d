"""A folder or a file: the right one is read, and what cannot be read is told in one line."""

import json
import os
import shutil

import numpy as np
import pytest
from checkpoint_files import GOLDEN, pickled, reference, row, safetensors, tensor, torch_zip
from safetensors.numpy import save_file

from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.checkpoints.tensors import Entry, Tensors
from tf_groupvit.errors import CheckpointError
from tf_groupvit.hub import WEIGHTS


def refused(path, match=None):
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


# ---- Shards ----

ONE = "model-00001-of-00002.safetensors"
TWO = "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path):
    """``tmp_path/model`` with tensor a in shard one, b in shard two; ``tmp_path`` holds a good
    shard as well.
    """
    inside = tmp_path / "model"
    inside.mkdir()
    for name, place in {
        "a": inside / ONE,
        "b": inside / TWO,
        "c": tmp_path / "outside.safetensors",
    }.items():
        save_file({name: np.ones(2, np.float32)}, place)
    index(inside, {"a": ONE, "b": TWO})
    return inside


def index(folder, weight_map):
    text = (
        weight_map
        if isinstance(weight_map, str)
        else json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    (folder / "model.safetensors.index.json").write_text(text)


def test_the_shards_of_transformers_are_one_checkpoint():
    found, expected = read_checkpoint(GOLDEN / "shards"), reference()
    assert found.format == "safetensors shards"
    assert set(found.tensors) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.tensors[name], array)


def test_the_index_itself_can_be_named():
    assert len(read_checkpoint(GOLDEN / "shards" / "model.safetensors.index.json").tensors) == len(
        reference()
    )


def test_shards_of_pickles_are_read(tmp_path):
    shards = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    for name, shard in shards.items():
        (tmp_path / shard).write_bytes(torch_zip(pickled({name: tensor()}), {"0": bytes(16)}))
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    assert set(read_checkpoint(tmp_path).tensors) == {"a", "b"}


NOT_BARE = [
    "../outside.safetensors", "./../outside.safetensors", "sub/../../outside.safetensors", "..\\outside.safetensors",
    "{parent}/outside.safetensors", "{inside}/model-00002-of-00002.safetensors", "./model-00002-of-00002.safetensors",
    "sub/x.safetensors", "..", ".", "", ".safetensors", "C:x.safetensors", "x\0.safetensors", "x\n.safetensors",
    "config.json", "/etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("shard", NOT_BARE)
def test_a_shard_that_is_no_bare_file_name_is_refused_even_where_it_leads_to_a_real_file(
    folder, shard
):
    (folder / "sub").mkdir()
    shutil.copy(folder / TWO, folder / "sub" / "x.safetensors")
    index(
        folder,
        {
            "a": ONE,
            "c": shard.replace("{parent}", str(folder.parent)).replace("{inside}", str(folder)),
        },
    )
    refused(folder, "bare file name")


def test_a_shard_that_links_out_of_the_folder_is_refused(folder):
    (folder / TWO).unlink()
    (folder / TWO).symlink_to(folder.parent / "outside.safetensors")
    index(folder, {"a": ONE, "c": TWO})
    refused(folder, "link to a file outside")


def test_a_link_within_the_folder_is_followed(folder):
    os.rename(folder / TWO, folder / "real.safetensors")
    (folder / TWO).symlink_to("real.safetensors")
    assert set(read_checkpoint(folder).tensors) == {"a", "b"}


def test_the_links_of_the_hub_cache_are_followed(folder, tmp_path):
    """models--org--name/snapshots/<revision>/shard -> ../../blobs/<hash>, the index as well."""
    snapshot, blobs = (tmp_path / "models--org--name" / part for part in ("snapshots/abc", "blobs"))
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        os.rename(file, blobs / f"hash{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash{number}")
    assert set(read_checkpoint(snapshot).tensors) == {"a", "b"}
    (snapshot / TWO).unlink()
    (snapshot / TWO).symlink_to(tmp_path / "outside.safetensors")
    index_text = json.dumps({"weight_map": {"a": ONE, "c": TWO}})
    (snapshot / "model.safetensors.index.json").resolve().write_text(index_text)
    refused(snapshot, "link to a file outside")


def test_a_folder_that_is_itself_a_link_is_read(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert set(read_checkpoint(tmp_path / "link").tensors) == {"a", "b"}


def test_a_missing_shard_is_named(folder):
    (folder / TWO).unlink()
    refused(folder, TWO)
    (folder / TWO).mkdir()
    refused(folder, TWO)


def test_a_tensor_that_is_not_in_its_shard_is_named(folder):
    index(folder, {"a": ONE, "b": ONE, "x": TWO})
    refused(folder, "'b' is not in its shard")


def test_a_tensor_in_two_shards_is_refused(folder):
    save_file({"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}, folder / TWO)
    refused(folder, "'a' stands in two shards")


def test_a_damaged_shard_is_refused(folder):
    (folder / TWO).write_bytes((folder / TWO).read_bytes()[:-1])
    refused(folder, TWO)


BROKEN = {
    "empty": "", "not JSON": "{", "a list": "[]", "no map": "{}", "an empty map": '{"weight_map": {}}',
    "a map that is a list": '{"weight_map": ["a"]}', "numbers for files": '{"weight_map": {"a": 1}}',
    "nothing for a file": '{"weight_map": {"a": null}}', "a list of files": '{"weight_map": {"a": ["x.safetensors"]}}',
    "deep": '{"weight_map": ' + "[" * 100_000, "a number": "12",
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_index_is_refused(folder, text):
    index(folder, text)
    refused(folder, "index")


def test_an_index_that_is_no_text_is_refused(folder):
    (folder / "model.safetensors.index.json").write_bytes(b"\xff\xfe\x00")
    refused(folder, "not valid JSON")
