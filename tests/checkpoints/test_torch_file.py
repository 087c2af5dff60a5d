"""Files of torch.save: both formats give torch's own arrays; no name outside the table is followed."""

import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from checkpoint_files import (
    GOLDEN,
    Call,
    Global,
    pickled,
    reference,
    tensor,
    torch_legacy,
    torch_zip,
)

from tf_groupvit.checkpoints import torch_file
from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.checkpoints.torch_file import read_torch
from tf_groupvit.errors import CheckpointError

FOUR = np.array([0.5, 1, 2, 3], "<f4")


@pytest.fixture
def write(tmp_path):
    def written(data):
        path = tmp_path / "pytorch_model.bin"
        path.write_bytes(data)
        return path

    return written


def zipped(value, records=None):
    return torch_zip(pickled(value), {"0": FOUR.tobytes()} if records is None else records)


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin"])
def test_a_state_dict_of_torch_is_read_exactly(name):
    tensors, expected = read_torch(GOLDEN / name), reference()
    assert set(tensors) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(tensors[key], array)
        assert tensors[key].dtype == array.dtype


@pytest.mark.parametrize("name", ["odd_zip.bin", "odd_legacy.bin"])
def test_every_dtype_stride_and_offset_of_torch_is_read_exactly(name):
    expected = np.load(GOLDEN / "odd.npz")
    tensors = read_torch(GOLDEN / name)
    assert set(tensors) == {*expected.files, "brain"}
    for key in expected.files:
        np.testing.assert_array_equal(tensors[key], expected[key])
        assert tensors[key].dtype == expected[key].dtype
    assert tensors["brain"].dtype.name == "bfloat16"
    np.testing.assert_array_equal(tensors["brain"].astype(np.float32), [1.5, -2.0])


def test_a_hand_made_zip_is_read(write):
    tensors = read_torch(
        write(zipped({"a": tensor(), "b": tensor(offset=1, shape=(2,), strides=(2,))}))
    )
    np.testing.assert_array_equal(tensors["a"], FOUR)
    np.testing.assert_array_equal(tensors["b"], FOUR[1::2])


def test_a_view_of_the_legacy_format_is_read(write):
    data = torch_legacy({"a": tensor(shape=(2,), view=(("v", 1, 3),))}, {"0": (4, FOUR.tobytes())})
    np.testing.assert_array_equal(read_torch(write(data))["a"], FOUR[1:3])


@pytest.mark.parametrize("inner", ["model", "state_dict"])
def test_the_weights_of_a_training_file_are_found(write, inner):
    tensors = read_torch(
        write(zipped({inner: {"a": tensor()}, "epoch": 3, "best": Call(Global("typing", "Any"))}))
    )
    assert list(tensors) == ["a"]


def test_a_state_dict_may_bring_its_metadata(write):
    state = Call(
        Global("collections", "OrderedDict"),
        [["a", tensor()]],
        state={"_metadata": {"": {"version": 1}}},
    )
    assert list(read_torch(write(zipped(state)))) == ["a"]


# --- What must never happen
# ----------------------------------------------------------------------------------------


class Evil:
    """Pickles as a call that leaves a trace on the disk."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_pickle_that_would_run_code_does_not(write, tmp_path, protocol, form):
    trace = tmp_path / "trace"
    evil = pickle.dumps({"a": Evil(trace)}, protocol)
    head = torch_legacy({}, {})[: -len(pickled({})) - len(pickled([]))]
    path = write({"zip": torch_zip(evil), "legacy": head + evil + pickled([]), "bare": evil}[form])
    with pytest.raises(CheckpointError, match=r"asks for '_?io\.open'"):
        read_checkpoint(path)
    assert not trace.exists()


REFUSED = [
    "os.system", "posix.system", "nt.system", "subprocess.Popen", "builtins.eval", "builtins.exec",
    "builtins.getattr", "__builtin__.getattr", "builtins.__import__", "builtins.open", "builtins.map",
    "builtins.range", "builtins.bytearray", "builtins.dict.fromkeys", "collections.OrderedDict.__init__",
    "collections.OrderedDict.fromkeys", "collections.Counter", "torch.load", "torch.storage._load_from_bytes",
    "torch.hub.load", "torch.nn.modules.linear.Linear", "torch.FloatTensor",
    "torch._utils._rebuild_tensor_v2.__globals__", "torch._utils._import_dotted_name", "torch.os.system",
    "numpy.load", "numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype.__init__",
    "numpy.testing._private.utils.runstring", "omegaconfevil.X", "omegaconf_.X", "typing.get_type_hints",
    "typing.Any.__class__", "typing.sys.modules", "copyreg._reconstructor", "functools.partial",
    "operator.attrgetter", "pickle.loads", "_pickle.loads", "tf_groupvit.hub.resolve", "__main__.x", ".x", "x.",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_outside_the_table_is_refused_however_it_is_written(write, name):
    module, _, last = name.rpartition(".")
    short = [module.encode(), last.encode()]
    streams = [
        b"c%b\n%b\n." % tuple(short),
        b"\x80\x04" + b"".join(b"\x8c%c%b" % (len(part), part) for part in short) + b"\x93.",
    ]
    first, _, rest = name.partition(".")
    streams.append(
        b"\x80\x04"
        + b"".join(b"\x8c%c%b" % (len(p), p) for p in (first.encode(), rest.encode()))
        + b"\x93."
    )
    for stream in streams:
        with pytest.raises(CheckpointError, match="asks for"):
            read_torch(write(torch_zip(stream)))


@pytest.mark.parametrize("name", ["os.system", "OmegaConf.load", "base.sys.modules", "DictConfig"])
def test_any_name_of_omegaconf_is_a_stand_in_and_never_the_thing(write, tmp_path, name):
    trace = tmp_path / "trace"
    call = Call(Global("omegaconf", name), f"touch {trace}")
    path = write(zipped({"model": {"a": tensor()}, "config": call}))
    assert list(read_torch(path)) == ["a"]
    assert not trace.exists()


def test_what_a_file_does_to_a_name_is_gone_with_the_file(write):
    """BUILD on a name would set attributes of what has the name."""
    for name in (
        Global("collections", "OrderedDict"),
        Global("torch._utils", "_rebuild_tensor_v2"),
    ):
        state = pickled({"__call__": 1, "__setstate__": 2})[2:-1]
        stream = b"\x80\x02" + pickled(name)[2:-1] + state + b"b."
        with pytest.raises(CheckpointError, match="holds no dict of tensors"):
            read_torch(write(torch_zip(stream)))
    assert list(read_torch(write(zipped({"a": tensor()})))) == ["a"]


# --- Files that do not fit themselves
# --------------------------------------------------------------------------------

BAD_TENSORS = {
    "past its storage": tensor(offset=1),
    "steps past its storage": tensor(shape=(2,), strides=(4,)),
    "a negative offset": tensor(offset=-1),
    "a negative step": tensor(strides=(-1,)),
    "a size that is text": tensor(shape=("4",)),
    "a size that is true": tensor(shape=(True,)),
    "more sizes than steps": tensor(shape=(2, 2)),
    "a shape of 2**90": tensor(shape=(2**30, 2**30, 2**30), strides=(0, 0, 0)),
    "nothing times too much": tensor(shape=(0, 2**40, 2**40), strides=(0, 0, 0)),
    "100 dimensions": tensor(shape=(1,) * 100, strides=(1,) * 100),
    "a storage that is not there": tensor(key="7"),
    "a storage elsewhere": tensor(key="../data.pkl"),
    "a storage that is larger": tensor(count=5, shape=(5,)),
    "a storage of another type": tensor(kind="DoubleStorage"),
    "a storage of -1": tensor(count=-1, shape=()),
    "a number of a million digits": tensor(offset=10**4000),
    "no storage": Call(Global("torch._utils", "_rebuild_tensor_v2"), 1, 0, (4,), (1,), False, None),
    "no arguments": Call(Global("torch._utils", "_rebuild_tensor_v2")),
    "a parameter of nothing": Call(Global("torch._utils", "_rebuild_parameter"), 3, True, None),
}


@pytest.mark.parametrize("value", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(write, value):
    with pytest.raises(CheckpointError) as caught:
        dict(read_torch(write(zipped({"a": value}))))
    assert "\n" not in str(caught.value)


NUMPY = Call(
    Global("numpy", "dtype"), "f8", False, True, state=(3, "<", None, None, None, -1, -1, 0)
)
BAD_OBJECTS = {
    "a list": [tensor()],
    "a tensor alone": tensor(),
    "numbers": {"a": 1, "b": tensor()},
    "a name that is a number": {1: tensor()},
    "a numpy number that is too short": {
        "a": tensor(),
        "b": Call(Global("numpy.core.multiarray", "scalar"), NUMPY, b"12"),
    },
    "a numpy object": {"a": Call(Global("numpy", "dtype"), "O8", False, True)},
    "one storage in two ways": {"a": tensor(), "b": tensor(kind="IntStorage")},
}


@pytest.mark.parametrize("value", BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_a_file_that_is_no_state_dict_is_refused(write, value):
    with pytest.raises(CheckpointError):
        read_torch(write(zipped(value)))


BAD_FILES = {
    "empty": b"",
    "text": b"hello",
    "a plain pickle": pickle.dumps({"a": 1}),
    "a zip without pickle": torch_zip(b"")[:4] + b"junk",
    "a compressed zip": torch_zip(
        pickled({"a": tensor()}), {"0": FOUR.tobytes()}, compression=zipfile.ZIP_DEFLATED
    ),
    "a storage too short": torch_zip(pickled({"a": tensor()}), {"0": FOUR.tobytes()[:-1]}),
    "a legacy storage too short": torch_legacy({"a": tensor()}, {"0": (4, FOUR.tobytes()[:-1])}),
    "a legacy storage of another count": torch_legacy({"a": tensor()}, {"0": (3, FOUR.tobytes())}),
    "a legacy storage of -1": torch_legacy({"a": tensor()}, {"0": (-1, FOUR.tobytes())}),
    "a legacy file without storages": torch_legacy({"a": tensor()}, {}),
    "a legacy view past its storage": torch_legacy(
        {"a": tensor(shape=(2,), view=(("v", 3, 2),))}, {"0": (4, FOUR.tobytes())}
    ),
}


@pytest.mark.parametrize("data", BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_not_sound_is_refused_in_one_line(write, data):
    with pytest.raises(CheckpointError) as caught:
        read_torch(write(data))
    assert "\n" not in str(caught.value)


def test_a_big_endian_file_is_refused(write):
    with pytest.raises(CheckpointError, match="big-endian"):
        read_torch(write(torch_zip(pickled({"a": tensor()}), {"0": FOUR.tobytes()}, order="big")))
    facts = pickled({"protocol_version": 1001, "little_endian": False, "type_sizes": {}})
    legacy = torch_legacy({"a": tensor()}, {"0": (4, FOUR.tobytes())}, facts)
    with pytest.raises(CheckpointError, match="big-endian"):
        read_torch(write(legacy))


FEW = 2**12  # bytes, in place of torch_file.LONGEST
ZEROS = bytes(2**22)


def deflated(kind, size=8):
    """A sound zip but for one record: compressed, and said to have this size."""
    held = io.BytesIO(torch_zip(pickled({"a": tensor()}), {"0": FOUR.tobytes()}))
    records = {name: zipfile.ZipFile(held).read(name) for name in zipfile.ZipFile(held).namelist()}
    name = f"archive/{kind}".encode()
    with zipfile.ZipFile(made := io.BytesIO(), "w") as archive:
        for record, data in (records | {name.decode(): ZEROS}).items():
            method = zipfile.ZIP_DEFLATED if data is ZEROS else zipfile.ZIP_STORED
            archive.writestr(record, data, method)
    data = bytearray(made.getvalue())
    for start, offset in ((data.index(name) - 30, 22), (data.rindex(name) - 46, 24)):
        data[start + offset : start + offset + 4] = size.to_bytes(4, "little")
    return bytes(data)


def long_directory():
    """A zip that ends in a directory of four megabytes."""
    entry = b"PK\x01\x02" + bytes(24) + b"\1\0" + bytes(16) + b"x"
    entries = entry * (len(ZEROS) // len(entry))
    size = len(entries).to_bytes(4, "little")
    end = b"PK\x05\x06" + bytes(4) + b"\xff" * 4 + size + bytes(6)
    return b"PK\x03\x04" + entries + end


BOMBS = {
    "the pickle": deflated("data.pkl"),
    "the byte order": deflated("byteorder"),
    "a storage": deflated("data/0", 16),
    "a long pickle": torch_zip(pickled({"a": ZEROS.decode()})),
    "a long directory": long_directory(),
    "a long legacy pickle": pickle.dumps(ZEROS),
    "a legacy storage": torch_legacy(
        {"a": tensor(count=2**40, shape=(2**40,))}, {"0": (2**40, b"x")}
    ),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_costs_no_memory(write, monkeypatch, data):
    """Files that would unpack to more than they may have, or are said to hold it."""
    path = write(data)
    monkeypatch.setattr(torch_file, "LONGEST", FEW)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            read_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
