"""Files of every format, cut or changed anywhere: arrays or a CheckpointError of one line come out."""

import numpy as np
import pytest
from checkpoint_files import GOLDEN, pickled, tensor, torch_legacy, torch_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.errors import CheckpointError

FOUR = np.array([0.5, 1, 2, 3], "<f4")
TWO = {"x": tensor(), "y": tensor(shape=(2, 2), strides=(2, 1))}
FILES = {
    "model.safetensors": save({"a": FOUR, "b": FOUR.astype("f2"), "c": np.zeros((0, 2), "i8")}),
    "tf_model.h5": (GOLDEN / "tensorflow" / "text" / "tf_model.h5").read_bytes(),
    "zip.bin": torch_zip(pickled({"epoch": {1: 2}, "model": TWO}), {"0": FOUR.tobytes()}),
    "legacy.bin": torch_legacy(TWO, {"0": (4, FOUR.tobytes())}),
}
by_format = pytest.mark.parametrize("name", FILES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@by_format
def test_a_whole_file_is_read(folder, name):
    (folder / name).write_bytes(FILES[name])
    assert len(read_checkpoint(folder / name).tensors) >= 2


@by_format
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_truncated_file_is_read(folder, name, data):
    (folder / name).write_bytes(FILES[name][: data.draw(st.integers(0, len(FILES[name]) - 1))])
    with pytest.raises(CheckpointError):
        read_checkpoint(folder / name)


@by_format
@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=5)
)
def test_a_damaged_file_gives_arrays_or_a_checkpoint_error(folder, name, changes):
    damaged = bytearray(FILES[name])
    for place, value in changes:
        damaged[place % len(damaged)] = value
    (folder / name).write_bytes(damaged)
    try:
        arrays = read_checkpoint(folder / name).tensors.values()
        assert sum(array.nbytes for array in arrays) <= 100 * len(damaged)
    except CheckpointError as error:
        assert "\n" not in str(error)
