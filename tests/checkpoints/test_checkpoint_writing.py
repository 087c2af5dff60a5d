"""What is written is what is read, by this package and by the safetensors library; a failure leaves
nothing behind.
"""

import os
import stat

import ml_dtypes
import numpy as np
import pytest
from checkpoint_files import GOLDEN, reference
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.checkpoints.safetensors_file import write_checkpoint, write_safetensors
from tf_groupvit.checkpoints.tensors import Entry, Tensors
from tf_groupvit.errors import CheckpointError

DTYPES = [
    "f8",
    "f4",
    "f2",
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    "i8",
    "i4",
    "i2",
    "i1",
    "u1",
    "u2",
    "u4",
    "u8",
    "?",
]


def test_a_checkpoint_comes_back_from_both_readers(tmp_path):
    expected = reference()
    without = {
        name: array for name, array in expected.items() if not name.endswith("num_batches_tracked")
    }
    path = write_checkpoint(tmp_path, without)
    assert path == tmp_path / "model.safetensors"
    for found in (load_file(path), read_checkpoint(tmp_path).tensors):
        assert set(found) == set(expected)
        for name, array in without.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
        counter = found["visual_projection.1.num_batches_tracked"]
        assert (counter.shape, counter.dtype, int(counter)) == ((), np.int64, 0)
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_file_is_the_one_that_transformers_writes(tmp_path):
    path = write_checkpoint(tmp_path, reference())
    assert path.read_bytes() == (GOLDEN / "transformers" / "model.safetensors").read_bytes()


def test_counters_that_are_there_are_kept(tmp_path):
    write_checkpoint(tmp_path, reference())
    assert (
        int(load_file(tmp_path / "model.safetensors")["text_projection.1.num_batches_tracked"]) == 4
    )


def test_every_dtype_shape_and_stride_is_written(tmp_path):
    arrays = {
        f"d{n}": np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype) for n, dtype in enumerate(DTYPES)
    }
    arrays |= {
        "t": arrays["d3"].T,
        "steps": arrays["d2"][:, ::2],
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 2), "f4"),
    }
    arrays |= {
        "swapped": np.arange(3, dtype=">f4"),
        "repeated": np.broadcast_to(np.float32(7), (2, 2)),
    }
    write_safetensors(tmp_path / "x.safetensors", arrays)
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert set(file.keys()) == set(arrays)
    found = read_checkpoint(tmp_path / "x.safetensors").tensors
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


def test_every_tensor_is_aligned_to_its_items(tmp_path):
    """Readers that map the file into memory need it."""
    arrays = {
        "a": np.ones(3, "u1"),
        "b": np.ones(1, "f2"),
        "c": np.ones(1, "f8"),
        "d": np.ones(1, "f4"),
    }
    path = tmp_path / "x.safetensors"
    write_safetensors(path, arrays, {"format": "pt"})
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 8 == 0
    assert data[start : start + 8] == np.ones(1, "<f8").tobytes()


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    arrays = reference()
    write_safetensors(tmp_path / "a", arrays)
    write_safetensors(tmp_path / "b", dict(reversed(arrays.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_checkpoint_is_written_over_the_file_that_it_is_read_from(tmp_path):
    write_checkpoint(tmp_path, reference())
    write_checkpoint(tmp_path, read_checkpoint(tmp_path).tensors)
    assert len(load_file(tmp_path / "model.safetensors")) == 214
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_checkpoint_is_readable_for_whom_the_umask_lets(tmp_path):
    """A server often runs as another user; the library alone would keep its file to the one who
    wrote it.
    """
    before = os.umask(0o022)
    try:
        write_safetensors(tmp_path / "x", {"a": np.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


def test_a_full_disk_is_told_and_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"old": np.ones(2)})

    def full(*_):
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr("tf_groupvit.checkpoints.safetensors_file.save_file", full)
    with pytest.raises(CheckpointError, match=r"Cannot write .*No space left"):
        write_safetensors(path, {"new": np.ones(2)})
    assert set(load_file(path)) == {"old"}
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def broken():
    raise RuntimeError("no more")


FAILING = {
    "a tensor that cannot be made": (Entry((1,), np.dtype("f4"), broken), RuntimeError),
    "words": (Entry.of(np.array(["a"])), CheckpointError),
    "complex numbers": (Entry.of(np.ones(1, "c8")), CheckpointError),
}


@pytest.mark.parametrize(("entry", "error"), FAILING.values(), ids=FAILING)
def test_a_failure_leaves_the_older_file_whole_and_nothing_beside_it(tmp_path, entry, error):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"old": np.ones(2)})
    before = path.read_bytes()
    with pytest.raises(error):
        write_safetensors(path, Tensors({"a": Entry.of(np.ones(2)), "z": entry}))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="Cannot write"):
        write_checkpoint(tmp_path / "gone", reference())
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Cannot write"):
        write_checkpoint(tmp_path / "file", reference())
