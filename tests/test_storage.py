"""Storage: a disk and what fsspec reaches answer alike; whole files or none; refused in one line."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tf_groupvit.errors import InputError
from tf_groupvit.storage import Output, beside, kind_of, listed, matching, name_of, place_of


@pytest.fixture(params=["disk", "memory"])
def output(request, tmp_path):
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return Output(tmp_path / "out" if request.param == "disk" else "memory://bucket/out/")


def test_files_are_written_found_read_and_deleted(output):
    assert output.names() == [] and output.names("deep") == []
    output.write("a.json", "ä")
    output.write("deep/b.bin", b"\0")
    with output.stream("deep/c.bin") as file:
        file.write(b"12")
        assert output.names("deep") == ["b.bin"]
        file.write(b"3")
    assert output.names() == ["a.json", "deep"] and output.names("deep") == ["b.bin", "c.bin"]
    assert output.read("a.json").decode() == "ä" and output.read("deep/c.bin") == b"123"
    output.remove("deep/c.bin")
    assert output.exists("deep/b.bin") and not output.exists("deep/c.bin")
    assert not output.exists("deep")


def test_a_stream_that_fails_leaves_what_was_there(output):
    output.write("c.bin", "old")
    with pytest.raises(KeyboardInterrupt), output.stream("c.bin") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    with pytest.raises(InputError, match="half a row"), output.stream("c.bin") as file:
        raise InputError("half a row")
    assert output.read("c.bin") == b"old" and output.names() == ["c.bin"]


def test_a_full_disk_is_one_line(output, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", full)
    with pytest.raises(InputError, match=r"a\.json' cannot be written: No space left on device\."):
        output.write("a.json", "x")
    assert output.names() == []


def test_what_is_missing_is_named(output):
    with pytest.raises(InputError, match=r"out/a\.json' cannot be read: "):
        output.read("a.json")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="is a file: name a folder"):
        Output(tmp_path / "x").names()


def test_unknown_kinds_of_urls_are_refused():
    with pytest.raises(InputError, match=r"'ftpz://x/y' cannot be opened: Protocol not known"):
        Output("ftpz://x/y")


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    root = str(tmp_path) if request.param == "disk" else "memory://photos"
    for name in ("b.tar", "a.tar", "deep/c.tar"):
        with fsspec.open(f"{root}/{name}", "wb", auto_mkdir=True) as file:
            file.write(name.encode())
    return root


def test_what_is_found_is_named_as_one_wrote_it(root):
    assert matching(f"{root}/*.tar") == [f"{root}/a.tar", f"{root}/b.tar"]
    assert matching(f"{root}/a.tar") == [f"{root}/a.tar"]
    assert matching(f"{root}/no.tar") == matching(f"{root}/no*") == []
    assert listed(root) == [
        (f"{root}/a.tar", False),
        (f"{root}/b.tar", False),
        (f"{root}/deep", True),
    ]
    assert [kind_of(f"{root}/{name}") for name in ("a.tar", "deep", "no")] == [
        *("file", "directory", "")
    ]
    system, path = place_of(beside(f"{root}/a.tar", "deep/c.tar"))
    assert system.cat_file(path) == b"deep/c.tar" and name_of(path) == "c.tar"


def test_what_a_file_names_is_beside_it_unless_it_says_otherwise():
    assert beside("captions.csv", "a.png") == "a.png"
    assert beside("s3://b/captions.csv", "images/a.png") == "s3://b/images/a.png"
    assert beside("x/captions.csv", "/a.png") == "/a.png"
    assert beside("x/captions.csv", "s3://b/a.png") == "s3://b/a.png"
