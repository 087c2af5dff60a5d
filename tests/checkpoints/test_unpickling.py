"""The restricted unpickler makes what Python's own makes of plain values, and nothing else."""

import io
import pickle
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from checkpoint_files import Call, Global, Stored, pickled
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_groupvit.checkpoints import unpickling
from tf_groupvit.checkpoints.unpickling import Stub, Unpickler

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
WHOLE = st.integers(-(2**63), 2**63)
KEYS = st.text() | WHOLE | st.tuples(st.text(), WHOLE)
PLAIN = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(KEYS, inner)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.just(())
    ),
)


def read(data):
    return Unpickler(Path("file.bin")).load(io.BytesIO(data))


@settings(max_examples=60)
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_come_back_as_python_pickled_them(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


@settings(max_examples=60)
@given(value=PLAIN)
def test_the_streams_of_the_python_pickler_are_read_too(value):
    assert read(pickled(value)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value", [b"", b"\xff", {1, 2}, set(), frozenset("a"), {frozenset("a"): 1}]
)
def test_bytes_and_sets_are_read_and_may_be_let_go(value, protocol):
    found = read(pickle.dumps({"before": value, "after": 1}, protocol))
    assert found["after"] == 1


def test_shared_and_recursive_values_keep_their_identity():
    shared = [1]
    loop: dict = {"a": shared, "b": shared}
    loop["self"] = loop
    found = read(pickle.dumps(loop))
    assert found["a"] is found["b"]
    assert found["self"] is found


def test_the_stream_is_left_behind_its_end():
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps("two"))
    unpickler = Unpickler(Path("file.bin"))
    assert [unpickler.load(stream), unpickler.load(stream)] == [1, "two"]


def test_states_and_items_of_stand_ins_are_let_go():
    node = Call(
        Global("omegaconf.dictconfig", "DictConfig"), {"a": 1}, state={"_content": {}, "append": 3}
    )
    found = read(pickled([node, node.called]))
    assert [type(value) for value in found] == [Stub, Stub]
    assert read(b"comegaconf\nX\n)\x81}b(K\x01K\x02u.").name == "omegaconf.X"


BROKEN = {
    "nothing": b"",
    "no end": b"\x80\x02]",
    "an unknown opcode": b"\x80\x02\xff.",
    "an empty stack": b"\x80\x02.",
    "a mark as the result": b"(.",
    "a mark in a tuple": b"((\x85.",
    "a mark that is remembered": b"(q\x00.",
    "no mark": b"K\x01t.",
    "nothing remembered": b"h\x07.",
    "append to a number": b"K\x01K\x02a.",
    "append to a dict": b"}K\x02a.",
    "set in a list": b"]K\x01K\x02s.",
    "add to a dict": b"}(K\x01\x90.",
    "a key without a value": b"(K\x01d.",
    "a list as a key": b"}]K\x01s.",
    "a name of numbers": b"K\x01K\x02\x93.",
    "a call of a number": b"K\x01)R.",
    "a new object of a tensor's kind": b"ctorch._utils\n_rebuild_tensor_v2\n)\x81.",
    "arguments that are a list": b"ccollections\nOrderedDict\n]R.",
    "a state for a list": b"]}b.",
    "an extension": b"\x82\x01.",
    "an out-of-band buffer": b"\x97.",
    "a bytearray": b"\x96" + bytes(8) + b".",
    "keywords": b"ccollections\nOrderedDict\n)}(X\x01\x00\x00\x00aK\x01u\x92.",
    "text cut short": b"X\xff\xff\xff\x7fab.",
    "bytes of 2**62": b"\x8e" + (2**62).to_bytes(8, "little") + b"ab.",
    "text of 2**62": b"\x8d" + (2**62).to_bytes(8, "little") + b"ab.",
    "a number of 2**31 bytes": b"\x8b" + (2**31 - 1).to_bytes(4, "little") + b"ab.",
    "a number of 10,000 digits": b"I" + b"9" * 10_000 + b"\n.",
    # What no pickler writes into a file of torch.save, and what is of use to nobody but an
    # attacker.
    "the top twice": b"N2\x86.",
    "something taken away": b"NN0.",
    "a mark taken away": b"N(N1.",
    "an instance by name": b"(iargparse\nNamespace\n.",
    "an instance of what is marked": b"(cargparse\nNamespace\no.",
    "a storage by text": b"Pstorage\n.",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_breaks_the_reading(data):
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        read(data)


# --- Small files that would take much memory or time


def number(value, size=4):
    return value.to_bytes(size, "little")


def short(text):
    return b"X" + number(len(text)) + text


def stored(view=()):
    return pickled(Stored("FloatStorage", "0", 4, view).id)[2:-1]


def stored_at_length(last):
    """A storage whose view, or what follows it, is long, asked for again and again."""
    head = short(b"storage") + b"ctorch\nFloatStorage\n" + short(b"0") + short(b"cpu") + b"K\x04"
    more = b"N" * 100_000 if last == b"N" else b""
    return b"(" + head + last + more + b"tq\x00" + b"h\x00Q" * 100_000


def many(value, count=100_000):
    """A tuple of ``count`` times the same, remembered as 0."""
    return b"(" + value * count + b"tq\x00"


NEST = b")q\x01" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(1, 60))


def alike(count):
    """Tuples of two numbers that all have one hash, pickled: Python's (tupleobject.c), undone."""
    first, second, start = 11400714785074694791, 14029467366897019727, 2870177450012600261
    undone, most, found = pow(second, -1, 2**64), 2**61 - 1, []
    for number in range(1, 8 * count):
        lane = (start + number * second) % 2**64
        lane = ((lane << 31) | (lane >> 33)) * first % 2**64
        other = (-lane * undone + 2**63) % 2**64 - 2**63
        if abs(other) < most and other != -1:
            found.append((number, other))
    assert len(found) >= count and len(set(map(hash, found[:count]))) == 1
    return [pickle.dumps(pair, 2)[2:-1] for pair in found[:count]]


COSTLY = {
    "hashing nested tuples": b"}" + NEST + b"Ns",
    "hashing nested tuples in a set of keys": b"}(" + NEST + b"NNNu",
    "a long key": many(b"N") + b"}" + b"h\x00Ns" * 100_000,
    "a large key": b"\x8b" + number(400_000) + b"\x7f" * 400_000 + b"q\x00}" + b"h\x00Ns" * 100_000,
    "keys of one hash": b"}(" + b"".join(pair + b"N" for pair in alike(60_000)) + b"u",
    "keys of one hash, one at a time": b"}" + b"".join(pair + b"Ns" for pair in alike(60_000)),
    "pairs copied": many(b"N\x85") + b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 100_000,
    "pairs that are long": many(b"N") + b"(" + b"h\x00" * 100_000 + b"t\x85q\x02"
    b"ccollections\nOrderedDict\nq\x01h\x02R",
    "a size copied": many(b"K\x01") + b"ctorch\nSize\nq\x01" + b"h\x01h\x00\x85R" * 100_000,
    "arguments spread": many(b"N") + b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00R" * 100_000,
    "a tensor of many dimensions": many(b"K\x01")
    + b"ctorch._utils\n_rebuild_tensor\nq\x01"
    + stored()
    + b"Qq\x02"
    + b"h\x01(h\x02K\x00h\x00h\x00tR" * 100_000,
    "a storage described at length": stored_at_length(b"N"),
    "a view described at length": stored_at_length(b"(K\x00K\x00K\x01" + b"N" * 100_000 + b"t"),
    "long names": short(b"omegaconf") + b"q\x00" + short(b"a" * 100_000) + b"q\x01"
    + b"h\x00h\x01\x93" * 100_000,
}  # fmt: skip


def refused_cheaply(data):
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, TypeError, IndexError)):
            read(b"\x80\x04" + data + b".")
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 60


@pytest.mark.parametrize("data", COSTLY.values(), ids=COSTLY)
def test_what_is_remembered_cannot_be_made_to_cost_time_or_memory(data):
    """Streams of at most a megabyte, each of which repeats something large."""
    refused_cheaply(data)


FEW = 50_000  # in place of MOST_OPCODES, which is 20 times as much
ENDLESS = {
    "opcodes without end": b"N" * (FEW + 2),
    "lists without end": b"]" * (FEW + 2),
    "sets without end": b"\x8f" * (FEW + 2),
    "lists in lists": b"]" * (FEW // 2) + b"a" * (FEW // 2 + 2),
    "a memo without end": b"N" + b"\x94" * (FEW + 2),
}


@pytest.mark.parametrize("data", ENDLESS.values(), ids=ENDLESS)
def test_a_stream_of_too_many_opcodes_is_refused(monkeypatch, data):
    monkeypatch.setattr(unpickling, "MOST_OPCODES", FEW)
    refused_cheaply(data)


def test_a_large_memo_index_costs_nothing():
    tracemalloc.start()
    assert read(b"K\x01r\xff\xff\xff\x7f.") == 1
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks for memory as Linux counts")
def test_pythons_own_unpickler_has_no_such_bounds():
    """Why there is one here. Should this fail some day, Python's own can take its place."""
    program = (
        "import io, pickle, resource\n"
        "class Restricted(pickle.Unpickler):\n"
        "    def find_class(self, module, name): raise ValueError(name)\n"
        "Restricted(io.BytesIO(b'N' + b'r' + (2**22).to_bytes(4, 'little') + b'.')).load()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(told.stdout) > 64_000  # kilobytes, for seven bytes
