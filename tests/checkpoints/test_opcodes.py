"""The pickle interpreter builds what Python's own builds from plain values, and nothing else."""

import io
import pickle
import time
from pathlib import Path

import pytest
from checkpoint_files import Call, Global, pickled
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_groupvit.checkpoints import opcodes
from tf_groupvit.checkpoints.torch_names import TorchAnswers

SIMPLE = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
WHOLE = st.integers(-(2**63), 2**63)
KEYS = st.text() | WHOLE | st.tuples(st.text(), WHOLE)
PLAIN = st.recursive(
    SIMPLE | st.frozensets(KEYS) | st.sets(KEYS),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(KEYS, inner)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.just(())
    ),
)


def read(data):
    return opcodes.run(io.BytesIO(data), TorchAnswers(Path("file.bin")))


@settings(max_examples=60)
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_come_back_as_python_pickled_them(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


@settings(max_examples=60)
@given(value=PLAIN)
def test_the_streams_of_the_python_pickler_are_read_too(value):
    assert read(pickled(value)) == value


def test_shared_and_recursive_values_keep_their_identity():
    shared = [1]
    loop: dict = {"a": shared, "b": shared}
    loop["self"] = loop
    found = read(pickle.dumps(loop))
    assert found["a"] is found["b"]
    assert found["self"] is found


def test_the_stream_is_left_behind_its_end():
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps("two"))
    answers = TorchAnswers(Path("file.bin"))
    assert [opcodes.run(stream, answers), opcodes.run(stream, answers)] == [1, "two"]


BROKEN = {
    "nothing": b"",
    "no end": b"\x80\x02]",
    "an unknown opcode": b"\x80\x02\xff.",
    "an empty stack": b"\x80\x02.",
    "a mark as the result": b"(.",
    "a mark in a tuple": b"((\x85.",
    "a mark that is remembered": b"(q\x00.",
    "nothing remembered": b"h\x07.",
    "append to a number": b"K\x01K\x02a.",
    "set in a list": b"]K\x01K\x02s.",
    "a key without a value": b"(K\x01d.",
    "a list as a key": b"}]K\x01s.",
    "a name of numbers": b"K\x01K\x02\x93.",
    "a call of a number": b"K\x01)R.",
    "arguments that are a list": b"ccollections\nOrderedDict\n]R.",
    "a state for a list": b"]}b.",
    "an extension": b"\x82\x01.",
    "an out-of-band buffer": b"\x97.",
    "keywords": b"ccollections\nOrderedDict\n)}(X\x01\x00\x00\x00aK\x01u\x92.",
    "text cut short": b"X\xff\xff\xff\x7fab.",
    "bytes of 2**62": b"\x8e" + (2**62).to_bytes(8, "little") + b"ab.",
    "a number of 10,000 digits": b"I" + b"9" * 10_000 + b"\n.",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_breaks_the_reading(data):
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        read(data)


def test_a_large_memo_index_costs_nothing():
    assert read(b"K\x01r\xff\xff\xff\x7f.") == 1


def test_hashing_a_nest_of_tuples_is_refused():
    """Each level holds the one below twice: hashing 100 levels would take 2**100 steps."""
    nest = b")" + b"2\x86" * 100
    with pytest.raises(TypeError, match="key"):
        read(b"}" + nest + b"K\x01s.")


def short(text):
    return b"X" + len(text).to_bytes(4, "little") + text


BOMBS = {
    "a list copied": b"]("
    + b"N" * 100_000
    + b"eq\x00"
    + b"cbuiltins\nlist\nq\x01"
    + b"h\x01h\x00\x85R" * 100_000,
    "text encoded": short(b"a" * 100_000)
    + b"q\x00c_codecs\nencode\nq\x01"
    + b"h\x01h\x00\x85R" * 100_000,
    "arguments spread": b"("
    + b"N" * 100_000
    + b"tq\x00cnumpy\ndtype\nq\x01"
    + b"h\x01h\x00R0" * 100_000,
    "long names": short(b"omegaconf")
    + b"q\x00"
    + short(b"a" * 100_000)
    + b"q\x01"
    + b"h\x00h\x01\x93" * 100_000,
    "long keys": b"(" + b"N" * 100_000 + b"tq\x00}" + b"h\x00Ns" * 100_000,
    "large keys": b"\x8b"
    + (400_000).to_bytes(4, "little")
    + b"\x7f" * 400_000
    + b"q\x00}"
    + b"h\x00Ns" * 100_000,
    "opcodes without end": b"N0" * 1_500_000,
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_what_is_remembered_cannot_be_made_to_cost_time_or_memory(data):
    """A value of 100,000 parts used 100,000 times: a stream of half a megabyte would take ten
    billion steps.
    """
    started = time.process_time()
    with pytest.raises((ValueError, TypeError)):
        read(b"\x80\x02" + data + b".")
    assert time.process_time() - started < 30


def test_states_and_items_of_stand_ins_are_let_go():
    node = Call(
        Global("omegaconf.dictconfig", "DictConfig"), {"a": 1}, state={"_content": {}, "append": 3}
    )
    found = read(pickled([node, node.called]))
    assert [type(value) for value in found] == [opcodes.Inert, opcodes.Inert]
    assert "not loaded" in repr(found[0])
    assert read(b"comegaconf\nX\n)\x81}b(K\x01K\x02u.").name == "omegaconf.X"
