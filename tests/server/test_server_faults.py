"""Faults outside of requests: odd names of models, graphs that are no files, threads that fail."""

import os

import pytest
from click.testing import CliRunner

from tf_groupvit.cli import main
from tf_groupvit.errors import InputError
from tf_groupvit.server import threads
from tf_groupvit.server.batching import Queue, Scheduler
from tf_groupvit.server.config_files import Parameters
from tf_groupvit.server.running import Server
from tf_groupvit.server.servable import load
from tf_groupvit.server.status import StatusError

ODD = os.fsdecode(b"caf\xe9\n\x1b[31m")


@pytest.fixture
def base_path(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    return tmp_path / "m"


@pytest.mark.parametrize("name", [ODD, "\udcff"])
def test_a_base_path_or_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name / "1").mkdir(parents=True)
    for arguments in (
        [str(tmp_path / name)],
        [str(tmp_path / name), "--wait-for-versions"],
        [str(tmp_path)],
    ):
        (tmp_path / "1").mkdir(exist_ok=True)
        options = ["--model-name", name] if arguments == [str(tmp_path)] else []
        result = CliRunner().invoke(
            main, ["serve", *arguments, *options, "--port", "0", "--rest-api-port", "0"]
        )
        assert result.exit_code == 2 and "is not UTF-8: give it another one." in result.output
        assert result.output.count("\n") == 1 and "\x1b" not in result.output
    with pytest.raises(InputError, match="is not UTF-8"):
        Server({"m": tmp_path / name})


def test_what_cannot_be_listed_is_refused_in_one_line(tmp_path):
    for path in (tmp_path / ("x" * 300), tmp_path / "link"):
        if path.name == "link":
            path.symlink_to(path)
        result = CliRunner().invoke(main, ["serve", str(path)])
        assert (
            result.exit_code == 2
            and result.output.startswith("Error: ")
            and result.output.count("\n") == 1
        )


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_should_be_a_graph_and_is_no_file_is_refused_in_the_servers_words(
    tmp_path, name, make
):
    make(tmp_path / name)
    with pytest.raises(StatusError) as refused:
        load(str(tmp_path))
    assert refused.value.code == "NOT_FOUND" and str(tmp_path) in refused.value.text
    assert refused.value.text.startswith(
        "Specified file path does not appear to contain a SavedModel bundle"
    )


def test_a_graph_in_text_that_cannot_be_read_is_refused_without_a_traceback(tmp_path):
    (tmp_path / "saved_model.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(StatusError, match="INTERNAL: 'utf-8' codec can't decode"):
        load(str(tmp_path))


def test_a_batch_thread_that_ends_by_an_exception_starts_again_loudly(monkeypatch, caplog):
    import numpy as np

    monkeypatch.setattr(threads, "PAUSE", 0.001)
    due, failed = Queue.due, []

    def fails_once(queue):
        if not failed:
            failed.append(True)
            raise RuntimeError("injected")
        return due(queue)

    monkeypatch.setattr(Queue, "due", fails_once)
    scheduler = Scheduler(threads=1)
    arrays = {"x": np.zeros(1)}
    run = lambda arrays, names, timeout: [arrays["x"]]  # noqa: E731
    assert scheduler.submit(("key",), run, Parameters(), arrays, ["y"], 10.0)[0].tolist() == [0.0]
    scheduler.close()
    assert (
        "The thread batch-0 ended by an exception" in caplog.text
        and "RuntimeError: injected" in caplog.text
    )
