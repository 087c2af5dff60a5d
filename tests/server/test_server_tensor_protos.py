"""TensorProtos are read as `tf.io.parse_tensor`, the C++ code, reads them, and written back."""

from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework.tensor_pb2 import TensorProto

from tf_groupvit.server import tensor_protos
from tf_groupvit.server.servable import type_name
from tf_groupvit.server.status import StatusError
from tf_groupvit.server.tensor_protos import (
    FIELDS,
    TYPES,
    numpy_type,
    read_tensor,
    varints,
    write_tensor,
)

VALUES = {
    "string_val": st.binary(max_size=3),
    "bool_val": st.booleans(),
    "uint32_val": st.integers(0, 2**32 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "int_val": st.integers(-(2**31), 2**31 - 1),
    "half_val": st.integers(-(2**31), 2**31 - 1),
    **dict.fromkeys(
        ["float_val", "double_val", "scomplex_val", "dcomplex_val"], st.floats(width=32)
    ),
}


@st.composite
def messages(draw):
    """TensorProtos of every kind, most of them odd: too few values, too many, in the wrong field,
    twice.
    """
    proto = TensorProto(dtype=draw(st.sampled_from(sorted(TYPES))))
    for size in draw(st.lists(st.sampled_from([0, 1, 2, 3, -1]), max_size=3)):
        proto.tensor_shape.dim.add().size = size
    proto.tensor_shape.unknown_rank = draw(st.booleans())
    field = draw(st.sampled_from([FIELDS[proto.dtype], *sorted(set(FIELDS.values()))]))
    getattr(proto, field).extend(draw(st.lists(VALUES[field], max_size=5)))
    content = st.lists(st.sampled_from([0, 1, 2, 255]), max_size=48).map(bytes)
    proto.tensor_content = draw(st.just(b"") | content)
    return proto


@settings(max_examples=200, deadline=None)
@given(messages())
def test_a_message_is_read_as_the_cpp_code_reads_it(proto):
    try:
        wanted = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype)).numpy()
    except tf.errors.InvalidArgumentError:
        with pytest.raises(StatusError, match="tensor parsing error: x"):
            read_tensor(proto, "x")
        return
    got = read_tensor(proto, "x")
    assert got.shape == np.shape(wanted)
    assert str(got.tolist()) == str(np.asarray(wanted).tolist())


def test_types_are_named_as_tensorflow_names_them():
    names = {number: name for number, (name, _, _) in TYPES.items()}
    others = {
        0: "INVALID",
        13: "qint32",
        20: "resource",
        25: "float8_e4m3fn",
        29: "int4",
        101: "float_ref",
    }
    for number, name in (names | others | {999: "unknown dtype enum (999)"}).items():
        assert type_name(number) == name


@pytest.mark.parametrize("number", sorted(TYPES))
def test_an_array_survives_the_typed_field(number):
    type_ = numpy_type(number)
    values = (
        np.array([b"", b"\xff\x00"], object)
        if number == 7
        else np.array([0, 1, 2, 200, 3], np.int64).astype(type_)
    )
    proto = TensorProto()
    write_tensor(values, proto)
    assert not proto.tensor_content and len(getattr(proto, FIELDS[number]))
    back = read_tensor(proto, "x")
    assert back.dtype == values.dtype and back.tolist() == values.tolist()
    assert np.array_equal(tf.make_ndarray(proto), values)


@pytest.mark.parametrize("most", [b"\x81\x00", b"\x81\x80\x80\x80\x00", b"\x81\x80\x80\x80\x10"])
def test_lengths_of_strings_may_have_up_to_five_bytes(most):
    message = claim(7, [2], tensor_content=most + b"\x02abc")
    assert read_tensor(message, "x").tolist() == [b"a", b"bc"]
    assert tf.io.parse_tensor(message.SerializeToString(), tf.string).numpy().tolist() == [
        b"a",
        b"bc",
    ]
    with pytest.raises(StatusError, match=r"tensor parsing error: x$"):
        read_tensor(claim(7, [2], tensor_content=b"\x81\x80\x80\x80\x80\x00\x02abc"), "x")


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_varints_are_those_of_protobuf(values):
    proto = TensorProto()
    proto.int64_val.extend(values)
    payload = varints(np.array(values, np.int64))
    assert proto.SerializeToString().endswith(payload)


def test_extreme_values_of_every_whole_type_survive():
    for number in (3, 4, 5, 6, 9, 17, 22, 23):
        type_ = numpy_type(number)
        assert type_ is not None
        values = np.array([np.iinfo(type_).min, np.iinfo(type_).max], type_)
        proto = TensorProto()
        write_tensor(values, proto)
        assert tf.make_ndarray(proto).tolist() == values.tolist()


def claim(number: int, shape: list[int], **values) -> TensorProto:
    proto = TensorProto(dtype=number, **values)
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    return proto


@pytest.fixture
def little_memory(monkeypatch):
    """Arrays that are larger than a few pages fail the test, so that a refusal must come before
    them.
    """

    def small(make):
        def made(shape, *arguments, **options):
            assert np.prod(shape, dtype=object) <= 1000, "an array was made before the refusal"
            return make(shape, *arguments, **options)

        return made

    for name in ("empty", "full", "zeros"):
        monkeypatch.setattr(np, name, small(getattr(np, name)))


@pytest.mark.parametrize("shape", [[2**24 + 1], [2**36], [1, 9400, 9400, 3], [5, 2**22, 1]])
def test_a_few_bytes_may_not_become_gigabytes(little_memory, shape):
    for number in TYPES:
        with pytest.raises(StatusError) as refused:
            read_tensor(claim(number, shape), "x")
        most = 2**24 // 64 if number == 7 else 2**24
        assert refused.value.code == "INVALID_ARGUMENT"
        assert (
            refused.value.text == f"tensor parsing error: x: its shape has {np.prod(shape):,}"
            f" elements, 0 are given; at most {most:,} are filled up"
        )


@pytest.mark.parametrize(
    "shape",
    [
        [-1],
        [-1, 0],
        [0, 2**62, 2**62],
        [2**62, 0, 4],
        [2**32, 2**32],
        [2**63 - 1, 2**63 - 1],
        [1] * 65,
    ],
)
def test_a_shape_that_is_none_is_refused(little_memory, shape):
    for number, content in product(TYPES, (b"", b"\0")):
        with pytest.raises(StatusError, match=r"^INVALID_ARGUMENT: tensor parsing error: x$"):
            read_tensor(claim(number, shape, tensor_content=content), "x")


def test_strings_are_counted_at_what_they_cost(little_memory):
    with pytest.raises(
        StatusError,
        match=r"its shape has 33,000,000 elements, 0 are given; at most 262,144 are filled up",
    ):
        read_tensor(claim(7, [33_000_000]), "x")
    with pytest.raises(
        StatusError, match=r"its shape has 200 elements, 1 are given; at most 167 are filled up"
    ):
        read_tensor(claim(7, [200], string_val=[bytes(100_000)]), "x")  # each copy is one of 100 kB
    with pytest.raises(
        StatusError,
        match=r"tensor parsing error: x: 1,048,577 strings, at most 1,048,576 are taken",
    ):
        read_tensor(claim(7, [2**20 + 1], tensor_content=bytes(2**20 + 1)), "x")
    with pytest.raises(StatusError, match=r"tensor parsing error: x$"):
        read_tensor(claim(7, [2**30], tensor_content=b"\0"), "x")


def test_many_real_strings_are_refused(monkeypatch):
    monkeypatch.setattr(tensor_protos, "MOST_STRINGS", 9)
    assert read_tensor(claim(7, [9], string_val=[b""] * 10), "x").tolist() == [b""] * 9
    with pytest.raises(StatusError, match="x: 10 strings, at most 9 are taken"):
        read_tensor(claim(7, [10], string_val=[b""] * 10), "x")


def test_as_much_as_is_allowed_is_filled_up():
    assert read_tensor(claim(4, [2**24, 1]), "x").shape == (2**24, 1)
    assert read_tensor(claim(7, [2**18 + 1], string_val=[b""]), "x").tolist() == [b""] * (2**18 + 1)
    assert read_tensor(claim(4, [1, 0, 2**40]), "x").size == 0


def test_content_is_not_copied():
    content = np.arange(4, dtype=np.float32).tobytes()
    proto = TensorProto(dtype=1, tensor_content=content)
    proto.tensor_shape.dim.add().size = 4
    assert not read_tensor(proto, "x").flags.owndata


def test_types_without_a_numpy_counterpart_are_refused():
    for dtype in (0, 11, 20, 21, 101):
        with pytest.raises(StatusError, match="tensor parsing error: x"):
            read_tensor(TensorProto(dtype=dtype), "x")
