"""tf_model.h5 of transformers' TensorFlow classes: PyTorch's names, layouts and numbers come out."""

import re

import h5py
import numpy as np
import pytest
from checkpoint_files import GOLDEN, reference

from tf_groupvit.checkpoints.hdf5 import read_hdf5
from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.errors import CheckpointError

TOWERS = {"joint": "", "text": "text_model.", "vision": "vision_model."}


@pytest.fixture
def write(tmp_path):
    """Write a tf_model.h5 with a function that is given the open file."""

    def written(fill):
        path = tmp_path / "tf_model.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    return written


@pytest.mark.parametrize("part", TOWERS)
def test_the_weights_of_the_tensorflow_class_are_those_of_the_pytorch_class(part):
    found = read_checkpoint(GOLDEN / "tensorflow" / part)
    expected = {name: array for name, array in reference().items() if name.startswith(TOWERS[part])}
    assert found.format == "h5"
    assert set(found.tensors) == {
        name for name in expected if not name.endswith("num_batches_tracked")
    }
    for name, array in found.tensors.items():
        assert array.dtype == np.float32
        assert array.shape == found.tensors.shapes()[name]
        np.testing.assert_array_equal(array.reshape(expected[name].shape), expected[name])
        assert array.shape == expected[name].shape or name == "logit_scale"


def test_tensorflow_names_in_a_safetensors_file_are_known_too():
    found, expected = read_checkpoint(GOLDEN / "tensorflow" / "safetensors"), reference()
    for name, array in found.tensors.items():
        np.testing.assert_array_equal(array.reshape(expected[name].shape), expected[name])
    assert len(found.tensors) == len(expected) - 2  # the counts of batches


def test_names_are_found_without_the_attributes(write):
    def fill(file):
        file["any/wrapper/text_model/encoder/layers_._3/mlp/fc1/kernel:0"] = np.arange(
            6, dtype="f4"
        ).reshape(2, 3)

    tensors = read_checkpoint(write(fill)).tensors
    assert list(tensors) == ["text_model.encoder.layers.3.mlp.fc1.weight"]
    np.testing.assert_array_equal(
        tensors["text_model.encoder.layers.3.mlp.fc1.weight"], [[0, 3], [1, 4], [2, 5]]
    )


def test_half_precision_and_tiny_datasets_are_read(write):
    def fill(file):
        file["m/logit_scale:0"] = np.array([2.5], "f2")
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2,))
        h5py.h5d.create(file["m"].id, b"text_model", h5py.h5t.IEEE_F32LE, space, compact)
        file["m/text_model"][...] = [1, 2]

    tensors = read_hdf5(write(fill))
    assert tensors["m/logit_scale:0"].dtype == np.float16
    np.testing.assert_array_equal(tensors["m/text_model"], [1, 2])


def refusals():
    """What an h5 may hold that is no weight of its own: (why, how)."""

    def external(file):
        file.create_dataset("text_model/kernel:0", (4,), "f4", external=[("/etc/passwd", 0, 16)])

    def virtual(file):
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
        file.create_virtual_dataset("text_model/kernel:0", layout)

    return {
        "words": lambda file: file.create_dataset("text_model/kernel:0", data="words"),
        "nothing at all": lambda file: None,
        "groups alone": lambda file: file.create_group("text_model"),
        "an empty space": lambda file: file.create_dataset(
            "text_model/kernel:0", data=h5py.Empty("f4")
        ),
        "complex numbers": lambda file: file.create_dataset(
            "text_model/kernel:0", data=np.zeros(2, "c8")
        ),
        "compressed zeros": lambda file: file.create_dataset(
            "x", (2**20,), "f4", compression="gzip", fillvalue=1
        ),
        "a bomb": lambda file: file.create_dataset("x", (2**40,), "f4", chunks=(2**20,)),
        "space without bytes": lambda file: file.create_dataset("x", (2**30,), "f4"),
        "groups in groups": lambda file: file.create_group("a/" * 1000),
        "another file": external,
        "a dataset made of others": virtual,
        "a link to another file": lambda file: file.__setitem__(
            "x", h5py.ExternalLink("/etc/passwd", "/")
        ),
    }


@pytest.mark.parametrize("fill", refusals().values(), ids=refusals())
def test_what_is_no_weight_in_the_file_is_refused(write, fill):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(write(fill))
    assert "\n" not in str(caught.value)


def test_two_names_for_one_weight_are_refused(write):
    def fill(file):
        file["a/text_model/fc/kernel:0"] = np.zeros((2, 2), "f4")
        file["b/text_model/fc/kernel:0"] = np.zeros((2, 2), "f4")

    with pytest.raises(CheckpointError, match=re.escape("both 'text_model.fc.weight'")):
        read_checkpoint(write(fill))


@pytest.mark.parametrize(
    "data", [b"", b"\x89HDF", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(100)]
)
def test_a_file_that_is_no_hdf5_is_refused(tmp_path, data):
    path = tmp_path / "tf_model.h5"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="HDF5"):
        read_checkpoint(path)
