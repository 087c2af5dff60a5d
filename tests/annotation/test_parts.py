"""Parts: whole files of records, on a disk and elsewhere, which say what is done."""

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tf_groupvit.annotation.parts import Parts
from tf_groupvit.annotation.records import Record
from tf_groupvit.errors import InputError
from tf_groupvit.storage import Output


@pytest.fixture(params=["disk", "memory"])
def parts(request, tmp_path):
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return Parts(Output(tmp_path / "out" if request.param == "disk" else "memory://bucket/out"))


def records(*names):
    """Records of these ids, which failed where they begin with an x."""
    return [
        Record(name, error="broken")
        if name[0] == "x"
        else Record(name, 1, 1, [0], [b"01"], [1.0], [1.0], 1.0)
        for name in names
    ]


def test_parts_are_numbered_in_order_and_say_what_is_done(parts):
    assert parts.names() == [] and list(parts.ids()) == []
    names = [parts.write(records("a", "x")), parts.write(records("b"))]
    assert parts.names() == names
    assert [name[:11] for name in names] == ["part-00000-", "part-00001-"]
    assert list(parts.ids()) == [("a", False), ("x", True), ("b", False)]
    assert list(parts.records()) == records("a", "x", "b")


def test_failures_are_forgotten_and_the_rest_is_kept(parts):
    for names in (["a", "x1", "b"], ["x2"], ["c"]):
        parts.write(records(*names))
    assert parts.forget_failures() == 2
    assert list(parts.records()) == records("a", "b", "c")
    assert parts.write(records("d")).startswith("part-00003-")
    assert parts.forget_failures() == 0


def test_many_records_come_back_in_order(parts):
    names = [f"{number:04}" for number in range(300)]
    parts.write(records(*names))
    assert [record.id for record in parts.records()] == names


def test_a_damaged_part_is_named(parts):
    parts.output.write("records/part-00000-0.parquet", b"PAR1 no")
    with pytest.raises(
        InputError, match=r"out/records/part-00000-0\.parquet' is damaged .* delete it"
    ):
        list(parts.ids())


def test_of_records_of_one_picture_the_first_is_kept(parts):
    for names in (["a", "b"], ["b", "c"], ["a"], ["d"]):
        parts.write(records(*names))
    assert parts.forget_repeated() == 2
    assert list(parts.records()) == records("a", "b", "c", "d")
    assert len(parts.names()) == 3 and parts.forget_repeated() == 0


def test_the_same_pictures_under_one_number_replace_each_other(parts):
    assert parts.next_number() == 0
    assert parts.write(records("a"), 7) == parts.write(records("a"), 7)
    assert list(parts.records()) == records("a") and parts.next_number() == 8
