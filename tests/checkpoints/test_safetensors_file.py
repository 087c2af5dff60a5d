"""Safetensors: every dtype is read, every header that does not fit its file is refused."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
from checkpoint_files import row, safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.checkpoints.safetensors_file import read_safetensors
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


GOOD = save(ARRAYS)


@given(cut=st.integers(0, len(GOOD) - 1))
def test_no_truncated_file_is_read(tmp_path_factory, cut):
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(GOOD[:cut])
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_gives_arrays_or_a_checkpoint_error(tmp_path_factory, changes):
    data = bytearray(GOOD)
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(data)
    try:
        for array in read_checkpoint(path).tensors.values():
            assert array.nbytes <= len(data)
    except CheckpointError as error:
        assert "\n" not in str(error)
