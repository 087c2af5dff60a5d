"""Safetensors: what is written is what is read, by the library too; headers that do not fit their
file are refused.
"""

import json
import os
import stat

import ml_dtypes
import numpy as np
import pytest
from checkpoint_files import GOLDEN, reference, row, safetensors
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.checkpoints.safetensors_file import (
    read_safetensors,
    write_checkpoint,
    write_safetensors,
)
from tf_groupvit.checkpoints.tensors import Entry, Tensors
from tf_groupvit.errors import CheckpointError

ARRAYS = {
    name: np.array([[0, 1, 2], [3, 4, 5]], dtype)
    for name, dtype in {
        "double": "f8", "single": "f4", "half": "f2", "brain": ml_dtypes.bfloat16, "long": "i8", "int": "i4",
        "short": "i2", "char": "i1", "byte": "u1", "ushort": "u2", "uint": "u4", "ulong": "u8", "bool": "?",
        "quarter": ml_dtypes.float8_e4m3fn, "wide quarter": ml_dtypes.float8_e5m2,
    }.items()
} | {"scalar": np.array(2.5, "f4"), "empty": np.zeros((0, 3), "f4")}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def written(data):
        path = tmp_path / "model.safetensors"
        path.write_bytes(data)
        return path

    return written


def test_every_dtype_is_read_as_the_library_wrote_it(tmp_path):
    save_file(ARRAYS, tmp_path / "all.safetensors", metadata={"format": "pt"})
    tensors = read_safetensors(tmp_path / "all.safetensors")
    assert set(tensors) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].dtype == array.dtype == tensors.entry(name).dtype
        assert tensors[name].shape == array.shape == tensors.shapes()[name]


def test_a_hand_made_file_is_read(write):
    tensors = read_safetensors(
        write(safetensors({"two": row()}, np.array([1.5, -2.0], "<f4").tobytes()))
    )
    np.testing.assert_array_equal(tensors["two"], np.array([1.5, -2.0], np.float32))


BAD = {
    "empty": b"",
    "seven bytes": b"\x08\x00\x00\x00\x00\x00\x00",
    "header longer than the file": safetensors({}, length=1000),
    "header of 2**63 bytes": safetensors({}, length=2**63),
    "header that is too long": safetensors({}, header=b"{}" + b" " * 2**24),
    "not JSON": safetensors({}, header=b"{'a': 1}"),
    "not UTF-8": safetensors({}, header=b"\xff\xfe{}"),
    "JSON cut off": safetensors({}, header=b'{"a": {"dtype"'),
    "JSON without end": safetensors({}, header=b"[" * 100_000),
    "a list": safetensors([]),
    "a name twice": safetensors(
        {}, b"x" * 8, header=b'{"a":%b,"a":%b}' % (2 * (json.dumps(row()).encode(),))
    ),
    "metadata that is text": safetensors({"__metadata__": "pt"}),
    "a row that is text": safetensors({"a": "F32"}),
    "no dtype": safetensors({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"x" * 8),
    "unknown dtype": safetensors({"a": row("F33")}, b"x" * 8),
    "a dtype that is a list": safetensors({"a": row(["F32"])}, b"x" * 8),
    "a negative size": safetensors({"a": row(shape=(-2,))}, b"x" * 8),
    "a size that is text": safetensors({"a": row(shape=("2",))}, b"x" * 8),
    "a size that is true": safetensors({"a": row(shape=(2, True))}, b"x" * 8),
    "a row that is a list": safetensors({"a": ["F32", [2], [0, 8]]}, b"x" * 8),
    "a dtype that is an object": safetensors({"a": row({"F32": None})}, b"x" * 8),
    "complex numbers": safetensors({"a": row("C64", (1,))}, b"x" * 8),
    "half bytes": safetensors({"a": row("F4", (16,))}, b"x" * 8),
    "a size of 1e300": safetensors(
        {}, b"", header=b'{"a":{"dtype":"F32","shape":[1e300],"data_offsets":[0,8]}}'
    ),
    "sizes that overflow": safetensors({"a": row(shape=(2**40, 2**40, 2**40), span=(0, 0))}),
    "nothing times too much": safetensors({"a": row(shape=(0, 2**59, 2**59), span=(0, 0))}),
    "100 dimensions": safetensors({"a": row(shape=(1,) * 100, span=(0, 4))}, b"x" * 4),
    "too few bytes for the shape": safetensors({"a": row(span=(0, 4))}, b"x" * 4),
    "too many bytes for the shape": safetensors({"a": row(span=(0, 12))}, b"x" * 12),
    "end before begin": safetensors({"a": row(span=(8, 0))}, b"x" * 8),
    "offsets past the end": safetensors({"a": row(span=(8, 16))}, b"x" * 8),
    "three offsets": safetensors({"a": row(span=(0, 4, 8))}, b"x" * 8),
    "negative offset": safetensors({"a": row(span=(-8, 0))}, b"x" * 8),
    "truncated data": safetensors({"a": row()}, b"x" * 7),
    "bytes left over": safetensors({"a": row()}, b"x" * 9),
    "overlap": safetensors({"a": row(), "b": row(span=(4, 12))}, b"x" * 12),
    "twice the same bytes": safetensors({"a": row(), "b": row()}, b"x" * 8),
    "a name that would move the cursor": safetensors({"\x1b[2J\n": row(span=(4, 12))}, b"x" * 12),
    "the same in a row": safetensors({"\x1b[2J\n": row("C64", (1,))}, b"x" * 8),
    "a gap": safetensors({"a": row(), "b": row(span=(12, 20))}, b"x" * 20),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_file_that_is_not_sound_is_refused_in_one_line(write, data):
    path = write(data)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_cut_after_it_was_opened_is_noticed(write):
    path = write(safetensors({"a": row()}, b"x" * 8))
    tensors = read_safetensors(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="changed"):
        tensors["a"]


def test_only_what_is_asked_for_is_read(tmp_path):
    """A sparse file of 64 GB: reading its one small tensor takes no memory for the large one."""
    path = tmp_path / "large.safetensors"
    size = 2**36
    rows = {"large": row("U8", (size,), (0, size)), "small": row("U8", (3,), (size, size + 3))}
    head = safetensors(rows)
    with open(path, "wb") as file:
        file.write(head)
        file.seek(len(head) + size)
        file.write(b"abc")
    assert read_safetensors(path)["small"].tobytes() == b"abc"


# ---- Writing ----


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
    arrays = ARRAYS | {
        "transposed": ARRAYS["long"].T,
        "steps": ARRAYS["half"][:, ::2],
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
