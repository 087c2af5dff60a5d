"""Files are written whole or not at all, and JSON is read within bounds."""

import os

import pytest

from tf_groupvit import files
from tf_groupvit.errors import CheckpointError, ConfigError, InputError, did_you_mean, one_line
from tf_groupvit.files import atomic_write, make_folder, read_json, replacing


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]
    atomic_write(path, b"new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_written_is_the_error_that_was_asked_for(tmp_path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path, tmp_path / "none" / "file", tmp_path / "file" / "under"):
        with pytest.raises(CheckpointError) as caught:
            atomic_write(path, "", CheckpointError)
        assert "\n" not in str(caught.value) and str(path.name) in str(caught.value)
    with pytest.raises(ConfigError, match="is no folder: choose another"):
        make_folder(tmp_path / "file" / "under", ConfigError)
    assert (tmp_path / "file").read_text() == "kept"


def test_an_object_is_read_with_and_without_a_byte_order_mark(tmp_path):
    for text in ('{"a": 1}', '\ufeff{"a": 1}'):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        assert read_json(tmp_path / "a.json", InputError) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not valid JSON"),
        (b"\xff{}", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1]", "holds a list: expected a JSON object"),
        (b"{}" + b" " * 100, "has 102 bytes: expected JSON, at most 100 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run 'git lfs pull'"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_json_object_is_refused_in_one_line(tmp_path, monkeypatch, content, words):
    if len(content or b"") < 1000:
        monkeypatch.setattr(files, "LONGEST_JSON", 100)
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_json(tmp_path / "a.json", InputError)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_words_from_elsewhere_become_one_short_line():
    assert one_line(" two\n lines\t ") == "two lines"
    assert one_line("\x1b[31mred\u202e") == "\\x1b[31mred\\u202e"
    assert one_line("x" * 10**6, 5) == "xxxxx..."
    assert one_line(ValueError("It broke.\n")) == "It broke"
    assert one_line(ValueError()) == "ValueError"


def test_the_nearest_known_name_is_suggested():
    assert did_you_mean("colour", ["size", "color"]) == "did you mean 'color'?"
    assert did_you_mean("xyz", ["only"]) == "did you mean 'only'?"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match="is a device or a pipe: expected a JSON file"):
        read_json(tmp_path / "a.json", InputError)
