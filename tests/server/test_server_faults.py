"""What goes wrong beside requests: odd names below a base path, threads that fail, names that forge
log lines.
"""

import json
import logging
import os
import threading

import pytest
from click.testing import CliRunner
from test_server_versions import Loader, states, until

from tf_groupvit.cli import main
from tf_groupvit.errors import InputError, ServerError
from tf_groupvit.server import lifecycle, model_manager, rest_server, threads
from tf_groupvit.server.batching import Queue, Scheduler
from tf_groupvit.server.config_files import Parameters, ServedModel
from tf_groupvit.server.model_manager import ModelManager, versions_to_serve
from tf_groupvit.server.monitoring import JsonFormatter, Metrics, TextFormatter, logged_request
from tf_groupvit.server.ports import Ports
from tf_groupvit.server.running import Server
from tf_groupvit.server.servable import load
from tf_groupvit.server.status import StatusError, loggable
from tf_groupvit.server.versions import Retries, Versions

ODD = os.fsdecode(b"caf\xe9\n\x1b[31m")
FORGED = "m\n2026-01-01 00:00:00,000 INFO all is well\x1b[2J"


@pytest.fixture
def base_path(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    return tmp_path / "m"


@pytest.fixture
def polled(base_path, monkeypatch):
    monkeypatch.setattr(threads, "PAUSE", 0.001)
    served = ModelManager(Versions(Loader(), Retries(0, 0.0)), poll_seconds=0.001)
    yield served
    served.stop()


def test_a_folder_whose_name_is_not_utf8_is_named_once_and_ignored(base_path, polled, caplog):
    (base_path / ODD).mkdir()
    assert versions_to_serve(ServedModel("m", str(base_path))) == {1: f"{base_path}/1"}
    caplog.clear()
    polled.start([ServedModel("m", str(base_path))])
    (base_path / "2").mkdir()
    until(lambda: states(polled.versions) == {2: "AVAILABLE", 1: "END"})  # polling goes on
    warnings = [
        record.getMessage() for record in caplog.records if "Ignored" in record.getMessage()
    ]
    assert warnings == [
        rf"Ignored caf\xe9\n\x1b[31m below {base_path}: its name is neither a number nor UTF-8."
    ]


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


def test_a_fault_in_looking_at_one_model_is_said_once_and_stops_no_other(
    base_path, polled, monkeypatch, caplog
):
    looked = model_manager.versions_to_serve
    monkeypatch.setattr(
        model_manager,
        "versions_to_serve",
        lambda model, warn: looked(model, warn) if model.name == "m" else 1 // 0,
    )
    with pytest.raises(
        ServerError, match="Looking for versions of servable a failed: ZeroDivisionError: integer"
    ):
        polled.start([ServedModel("a", "/nowhere"), ServedModel("m", str(base_path))])
    polled.poll()
    assert 1 in states(polled.versions)
    assert caplog.text.count("ZeroDivisionError: integer division or modulo by zero.") == 1
    assert "Traceback" in caplog.text


def test_polling_that_ends_by_an_exception_starts_again_loudly(
    base_path, polled, monkeypatch, caplog
):
    polled.start([ServedModel("m", str(base_path))])
    poll, failed = polled.poll, threading.Event()

    def fails_once():
        if not failed.is_set():
            failed.set()
            raise RuntimeError("injected")
        poll()

    monkeypatch.setattr(polled, "poll", fails_once)
    assert failed.wait(10)
    (base_path / "2").mkdir()
    until(lambda: states(polled.versions) == {2: "AVAILABLE", 1: "END"})
    assert "The thread poll-models ended by an exception; it starts again" in caplog.text
    assert "RuntimeError: injected" in caplog.text


def test_a_version_whose_thread_cannot_be_started_is_tried_again(base_path, polled, monkeypatch):
    start = threading.Thread.start

    def none_left(thread):
        if thread.name == "load":
            raise RuntimeError("can't start new thread")
        start(thread)

    polled.start([ServedModel("m", str(base_path))])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        (base_path / "2").mkdir()
        until(lambda: "can't start new thread" in polled._complaints.get("m", ""))
        assert states(polled.versions) == {1: "AVAILABLE"}
    until(lambda: states(polled.versions) == {2: "AVAILABLE", 1: "END"})


def test_a_version_that_cannot_be_closed_ends_all_the_same(base_path, polled, monkeypatch, caplog):
    polled.start([ServedModel("m", str(base_path))])
    with polled.versions.use("m") as version:
        monkeypatch.setattr(version.servable, "close", lambda: 1 // 0)
    (base_path / "2").mkdir()
    until(lambda: states(polled.versions) == {2: "AVAILABLE", 1: "END"})
    assert "failed in an unexpected way" in caplog.text and "ZeroDivisionError" in caplog.text


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


def test_a_front_that_ends_by_an_exception_ends_the_server_loudly(base_path, monkeypatch, caplog):
    class Broken:
        def __init__(self, *_, **__):
            self.config = None

        async def serve(self, sockets):
            for one in sockets:
                one.close()
            raise OSError("injected")

    monkeypatch.setattr("uvicorn.Server", Broken)
    monkeypatch.setattr("uvicorn.Config", lambda *_, **__: None)
    monkeypatch.setattr(lifecycle, "_on_signals", lambda *_: None)
    for name in ("_forget_start_up", "cut_off_after", "_end_for_certain"):
        monkeypatch.setattr(lifecycle, name, lambda *_: None)
    monkeypatch.setattr(rest_server.RestServer, "stop", lambda *_: None)
    monkeypatch.setattr("tf_groupvit.server.running.load", lambda path, *_: Loader()(path))
    with (
        Ports("127.0.0.1", None, 0) as ports,
        pytest.raises(ServerError, match="A front ended by an exception"),
    ):
        lifecycle.serve_until_stopped(
            {"m": str(base_path)}, ports, 0.0, lambda *_: None, enable_model_warmup=False
        )
    assert (
        "The REST server ended by an exception" in caplog.text
        and "OSError: injected" in caplog.text
    )


def test_a_name_is_shown_on_one_line_without_escape_codes_and_cut():
    assert loggable("étoile 1") == "étoile 1"
    assert loggable("a\r\nb\x1b[2J\x00\u2028\u202e\udcff") == r"a\r\nb\x1b[2J\x00\u2028\u202e\xff"
    assert loggable("x" * 10_000) == "x" * 200
    assert len(loggable("\n" * 10_000)) == 200


def lines_of(formatter, log) -> list[str]:
    """What a handler with that formatter writes while ``log`` runs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(formatter.format(record))
    logger = logging.getLogger("tf_groupvit.server")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        log()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
    return lines


def fail(name: str, error: Exception) -> None:
    with pytest.raises(StatusError), logged_request("REST", f"GET /{name}"):
        raise error


@pytest.mark.parametrize(
    "error", [StatusError("NOT_FOUND", FORGED), ValueError(FORGED)], ids=["refusal", "bug"]
)
def test_a_name_forges_no_line_of_the_log(error):
    for line in lines_of(TextFormatter("%(levelname)s %(message)s"), lambda: fail(FORGED, error)):
        first, *rest = line.split("\n")
        assert first.startswith(("INFO ", "ERROR ")) and all(
            more.startswith("    ") for more in rest
        )
        assert "\x1b" not in line
    for line in lines_of(JsonFormatter(), lambda: fail(FORGED, error)):
        entry = json.loads(line)
        assert "\n" not in entry["message"] + entry.get("request", "") + entry.get("error", "")


def test_a_name_of_megabytes_takes_no_more_of_the_log_and_the_metrics_than_its_beginning():
    long = "n" * 10_000_000
    for formatter in (TextFormatter("%(message)s"), JsonFormatter()):
        lines = lines_of(formatter, lambda: fail(long, StatusError("NOT_FOUND", long)))
        assert sum(map(len, lines)) < 2000
    metrics = Metrics()
    metrics.answered(long, "NOT_FOUND")
    assert len(metrics.page()) < 400
    assert f'model_name="{"n" * 200}",status="NOT_FOUND"' in metrics.page()


def test_a_label_of_the_metrics_has_no_escape_codes():
    metrics = Metrics()
    metrics.answered("a\x1b[2J\r\n", "NOT_FOUND")
    assert r'model_name="a\\x1b[2J\\r\n",status="NOT_FOUND"' in metrics.page()


def test_unknown_names_do_not_take_the_series_of_models_that_are_served():
    metrics = Metrics(lambda: ["served"])
    for index in range(2000):
        metrics.answered(f"name {index}", "NOT_FOUND")
    metrics.answered("served", "OK")
    assert 'model_name="served",status="OK"} 1' in metrics.page()
    assert 'model_name="(other)",status="NOT_FOUND"} 1000' in metrics.page()


def test_names_of_a_reload_forge_no_line(base_path, polled, caplog):
    caplog.set_level("INFO")
    polled.start([ServedModel("m", str(base_path))])
    polled._models[FORGED] = ServedModel(FORGED, str(base_path))
    polled._models["gone"] = ServedModel("gone", "/no/\n\x1b" + "x" * 5000)
    polled.poll()
    until(lambda: states(polled.versions, FORGED) == {1: "AVAILABLE"})
    said = [record.getMessage() for record in caplog.records]
    assert any(r"m\n2026" in text for text in said)
    assert all(text.isprintable() and len(text) < 1500 for text in said)
