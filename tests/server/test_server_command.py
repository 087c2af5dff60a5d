"""`tf-groupvit serve`: its errors before anything is loaded, its ports, its log, its end."""

import json
import math
import re
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from served import ROOT
from test_server_versions import Loader

from tf_groupvit.cli import main
from tf_groupvit.cli.serve import command
from tf_groupvit.errors import GroupViTError, InputError, ServerError
from tf_groupvit.server import lifecycle, rest_server
from tf_groupvit.server.options import Options
from tf_groupvit.server.ports import Ports
from tf_groupvit.server.running import Server


@pytest.mark.parametrize(
    ("make", "arguments", "text"),
    [
        (lambda path: None, ["{path}/none"], "No such folder"),
        (lambda path: None, ["{path}"], "No versions found under base path"),
        (
            lambda path: (path / "saved_model.pb").touch(),
            ["{path}"],
            "is a version itself: serve its parent",
        ),
        (lambda path: None, [], "Give either a BASE_PATH or a --model-config-file"),
        (
            lambda path: (path / "m").touch(),
            ["{path}", "--model-config-file", "{path}/m"],
            "Give either a BASE_PATH",
        ),
        (
            lambda path: (path / "m").write_text("x: 1"),
            ["--model-config-file", "{path}/m"],
            "is no ModelServerConfig",
        ),
    ],
)
def test_a_wrong_start_is_one_line(tmp_path, make, arguments, text):
    make(tmp_path)
    result = CliRunner().invoke(command, [argument.format(path=tmp_path) for argument in arguments])
    assert isinstance(result.exception, GroupViTError)
    assert text in str(result.exception) and "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("flag", "value", "least"),
    [
        ("--max-in-flight", -1, "0"),
        ("--max-queued", -1, "0"),
        ("--max-request-bytes", 0, "1"),
        ("--max-connections", 0, "1"),
        ("--max-num-load-retries", -1, "0"),
        ("--receive-timeout-seconds", 0.0, "0.001"),
        ("--shutdown-grace-seconds", -5.0, "0"),
        ("--tensorflow-intra-op-parallelism", -3, "0"),
        ("--tensorflow-inter-op-parallelism", -2, "-1"),
        ("--shutdown-grace-seconds", math.nan, None),
        ("--receive-timeout-seconds", math.nan, None),
        ("--file-system-poll-wait-seconds", math.inf, None),
    ],
)
def test_a_limit_that_would_be_none_or_refuse_everything_is_refused(flag, value, least):
    expected = "a finite number" if least is None else f"a number from {least}"
    with pytest.raises(InputError, match=f"{flag} is {value}: expected {expected}\\."):
        Options(**{flag.removeprefix("--").replace("-", "_"): value})


@pytest.mark.parametrize(
    ("flag", "value", "most"),
    [
        ("--shutdown-grace-seconds", 1e12, "1,000,000,000"),
        ("--load-retry-interval-micros", 10**16, "1,000,000,000,000,000"),
        ("--rest-api-timeout-in-ms", 10**13, "1,000,000,000,000"),
        ("--tensorflow-inter-op-parallelism", 99_999_999_999, "4,096"),
        ("--max-queued", 2**63, f"{2**62:,}"),
        ("--max-request-bytes", 2**31, "2,147,483,647"),
        ("--max-connections", 2**31 - 1, "1,073,741,824"),
        ("--receive-timeout-seconds", 1e9, "1,000,000"),
    ],
)
def test_what_is_more_than_can_be_waited_for_or_made_is_refused_without_tensorflow(
    tmp_path, flag, value, most
):
    (tmp_path / "1").mkdir()
    result = CliRunner().invoke(main, ["serve", str(tmp_path), "--port", "0", flag, str(value)])
    assert result.exit_code == 2
    assert result.output == f"Error: {flag} is {value}: expected a number up to {most}.\n"


def test_help_loads_no_tensorflow():
    code = (
        "import sys; from click.testing import CliRunner; from tf_groupvit.cli.serve import"
        " command; assert CliRunner().invoke(command, ['--help']).exit_code == 0;"
        " print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "False"


def test_a_process_that_has_not_ended_soon_after_its_grace_period_is_cut_off(monkeypatch):
    left, server = threading.Event(), Server({"m": "/m"})  # not started
    codes = []
    monkeypatch.setattr(lifecycle, "_CUT_OFF_SECONDS", 0.01)
    lifecycle.cut_off_after(0.01, server, 2, lambda code: [codes.append(code), left.set()])
    assert left.wait(10) and codes == [2]


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    handlers, codes = {}, []
    monkeypatch.setattr(lifecycle.signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(lifecycle.os, "_exit", codes.append)
    server, stop = Server({"m": "/m"}), threading.Event()
    lifecycle.stop_on_signals(stop, server)
    assert handlers.keys() == {signal.SIGTERM, signal.SIGINT}
    server.started = True
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert stop.is_set() and codes == []
    handlers[signal.SIGINT](signal.SIGINT, None)
    assert codes == [130]


@pytest.mark.parametrize("logs", [[], ["--json-logs"]])
def test_the_start_says_what_it_does_in_seconds_and_as_json_only_the_ports(
    tmp_path, monkeypatch, logs
):
    def serve_until_stopped(models, ports, announce, options):
        assert options.background_warmup and models == {"a b": str(tmp_path)}
        announce("127.0.0.1", ports.grpc.number, ports.rest.number, list(models))

    lifecycle = SimpleNamespace(serve_until_stopped=serve_until_stopped)
    monkeypatch.setitem(sys.modules, "tf_groupvit.server.lifecycle", lifecycle)
    monkeypatch.setattr("tf_groupvit.server.monitoring.configure_logging", lambda *_: None)
    (tmp_path / "1").mkdir()
    arguments = [str(tmp_path), "--model-name", "a b", "--port", "0", "--rest-api-port", "0", *logs]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    if logs:
        assert result.stderr == "" and json.loads(result.stdout)["models"] == ["a b"]
        return
    said = re.sub(r"[0-9.]+ s\b", "N s", result.stderr).splitlines()
    assert said == [
        "Loading TensorFlow ...", f"Loaded TensorFlow in N s; loading {tmp_path} ...", "Ready N s after the start.",
    ]  # fmt: skip
    assert result.stdout.splitlines()[0] == "Serving a b; stop with Ctrl-C"
    assert result.stdout.splitlines()[2].endswith("/v1/models/a%20b")


def test_a_broken_model_ends_the_start_with_the_servers_words(tmp_path, monkeypatch):
    monkeypatch.setattr(lifecycle, "stop_on_signals", lambda *_: None)
    (tmp_path / "1").mkdir()
    ports = ["--port", "0", "--rest-api-port", "0"]
    result = CliRunner().invoke(
        main, ["serve", str(tmp_path), *ports, "--max-num-load-retries", "0"]
    )
    assert result.exit_code == 2
    words = "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available"
    assert words in result.output


def test_a_front_that_ends_by_an_exception_ends_the_server_loudly(tmp_path, monkeypatch, caplog):
    (tmp_path / "1").mkdir()

    class Broken:
        def __init__(self, *_, **__):
            self.config = None

        async def serve(self, sockets):
            for one in sockets:
                one.close()
            raise OSError("injected")

    monkeypatch.setattr("uvicorn.Server", Broken)
    monkeypatch.setattr("uvicorn.Config", lambda *_, **__: None)
    monkeypatch.setattr(lifecycle, "stop_on_signals", lambda *_: None)
    for name in ("_forget_start_up", "cut_off_after", "_end_for_certain"):
        monkeypatch.setattr(lifecycle, name, lambda *_: None)
    monkeypatch.setattr(rest_server.RestServer, "stop", lambda *_: None)
    monkeypatch.setattr("tf_groupvit.server.running.load", lambda path, *_: Loader()(path))
    with (
        Ports("127.0.0.1", None, 0) as ports,
        pytest.raises(ServerError, match="A front ended by an exception"),
    ):
        lifecycle.serve_until_stopped(
            {"m": str(tmp_path)},
            ports,
            lambda *_: None,
            Options(enable_model_warmup=False, shutdown_grace_seconds=0.0),
        )
    assert (
        "The REST server ended by an exception" in caplog.text
        and "OSError: injected" in caplog.text
    )
