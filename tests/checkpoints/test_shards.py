"""Sharded checkpoints: all shards make one; an index cannot lead out of its folder."""

import json
import os
import shutil

import numpy as np
import pytest
from checkpoint_files import GOLDEN, pickled, reference, tensor, torch_zip
from safetensors.numpy import save_file

from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.errors import CheckpointError

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


def refused(folder, match=None):
    with pytest.raises(CheckpointError, match=match) as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)


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
