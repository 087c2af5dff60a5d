"""Where runs are kept: on a disk, and on storage where nothing is renamed and a marker comes last."""

import json

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tf_groupvit.checkpoints.safetensors_file import write_safetensors
from tf_groupvit.errors import CheckpointError, InputError
from tf_groupvit.training.run_folder import HISTORY, MARKER, STATE, open_folder

NOTHING = "no state was saved before it"


@pytest.fixture
def memory():
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return "memory://bucket/mine/"


def train_to(folder, step):
    """What a round leaves in the folder of this disk."""
    (folder.local / STATE).parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder.local / STATE, {"a": np.full(3, step)}, {"step": str(step)})
    (folder.local / HISTORY).write_text(json.dumps({"step": step}) + "\n")
    (folder.local / "vocab.json").write_text("{}")


def files(location):
    folder = open_folder(location)
    names = folder.output.names("training")
    return [name for name in names if name != "last.json"]


def test_a_folder_of_this_disk_is_used_as_it_is(tmp_path):
    folder = open_folder(tmp_path)
    assert folder.local == tmp_path and folder.last() is None and folder.kept() == NOTHING
    train_to(folder, 20)
    folder.keep(20), folder.fetch(), folder.finish()
    assert folder.last() == (20, str(tmp_path / STATE))
    assert folder.kept() == f"the last good state is of step 20, {tmp_path / STATE}"


def check_a_run_goes_on(location):
    first = open_folder(location)
    first.fetch()
    assert first.last() is None and not list(first.local.iterdir())
    for step in (20, 40):
        train_to(first, step)
        first.keep(step)
    place = f"{location.rstrip('/')}/training/state-00000040.safetensors"
    assert first.kept() == f"the last good state is of step 40, {place}"
    assert files(location) == ["state-00000040.safetensors"]
    second = open_folder(location)
    second.fetch()
    assert second.last() == (40, place) and second.local != first.local
    for name in (STATE, HISTORY, "vocab.json"):
        assert (second.local / name).read_bytes() == (first.local / name).read_bytes()
    (second.local / "config.json").write_text("{}")
    second.finish()
    assert second.output.exists("config.json") and second.output.exists(HISTORY)
    assert not second.output.exists(STATE)


def test_a_run_on_other_storage_goes_on_in_another_process(memory):
    check_a_run_goes_on(memory)


def test_a_run_in_a_bucket_goes_on_in_another_process(s3):
    check_a_run_goes_on("s3://photos/mine")


def test_a_state_without_a_marker_does_not_count(memory, monkeypatch):
    folder = open_folder(memory)
    train_to(folder, 20)
    folder.keep(20)
    train_to(folder, 40)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", killed)  # that writes the marker
        with pytest.raises(KeyboardInterrupt):
            folder.keep(40)
    assert files(memory) == ["state-00000020.safetensors", "state-00000040.safetensors"]
    again = open_folder(memory)
    again.fetch()
    assert again.last()[0] == 20 and '"step": 20' in (again.local / HISTORY).read_text()
    train_to(again, 40)
    again.keep(40)
    assert files(memory) == ["state-00000040.safetensors"]


def killed(*_, **__):
    raise KeyboardInterrupt


def test_a_state_that_is_not_whole_is_named(memory):
    folder = open_folder(memory)
    train_to(folder, 20)
    folder.keep(20)
    folder.output.write("training/state-00000020.safetensors", b"half")
    with pytest.raises(CheckpointError, match=r"state-00000020.safetensors has 4 bytes, and train"):
        open_folder(memory).fetch()


def test_storage_that_cannot_be_reached_is_one_line(memory, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Could not connect to the endpoint URL")

    folder = open_folder(memory)
    monkeypatch.setattr(MemoryFileSystem, "isfile", unreachable)
    with pytest.raises(InputError, match=f"{MARKER}' cannot be read: Could not connect") as caught:
        folder.fetch()
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="'ftpz://x' cannot be opened"):
        open_folder("ftpz://x")
