"""The command itself: help, version, errors of one line, and bugs that keep their traceback."""

import errno
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import tf_groupvit
from tf_groupvit import cli
from tf_groupvit.errors import GroupViTError, InputError
from tf_groupvit.hub import DEMO


def run(*arguments):
    return CliRunner().invoke(cli.main, list(arguments))


@pytest.fixture
def failing(monkeypatch):
    """A command that raises what it is told to."""
    raised: dict[str, BaseException] = {}

    @click.command()
    def command():
        raise raised["error"]

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, ctx, name: command)
    return raised


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(flag):
    done = run(flag)
    assert done.exit_code == 0
    for name, what in cli.COMMANDS.items():
        assert name in done.stdout and what.split(":")[0][:30] in done.stdout


def test_the_version_is_that_of_the_package():
    done = run("--version")
    assert done.exit_code == 0 and tf_groupvit.__version__ in done.stdout


@pytest.mark.parametrize(
    "name", [name for name in cli.COMMANDS if find_spec(f"tf_groupvit.cli.{name}")]
)
def test_every_command_helps(name):
    done = run(name, "--help")
    assert done.exit_code == 0 and done.stdout.startswith(f"Usage: main {name}")


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["info"], ["info", "a", "b"], ["convert", "a"], ["--nope"]]
)
def test_wrong_usage_is_exit_code_2(arguments):
    done = run(*arguments)
    assert done.exit_code == 2 and "Traceback" not in done.output and done.stdout == ""


@pytest.mark.parametrize("arguments", [["info"], ["segment"], ["scenes"], ["query", "a.jpg"]])
def test_where_a_word_is_missing_the_usage_is_shown(arguments):
    lines = run(*arguments).stderr.splitlines()
    assert lines[0].startswith(f"Usage: main {arguments[0]} [OPTIONS]")
    assert "--help" in lines[1] and lines[-1].startswith("Error: Missing ")


@pytest.mark.parametrize("error", [InputError("Give a name."), GroupViTError("Odd.")])
def test_an_error_of_ours_is_one_line_on_standard_error_and_exit_code_2(failing, error):
    failing["error"] = error
    done = run("info")
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"Error: {error}\n")


class ResourceExhaustedError(Exception):
    """As TensorFlow's is called."""


@pytest.mark.parametrize("error", [MemoryError(), ResourceExhaustedError("OOM when allocating")])
@pytest.mark.parametrize("hidden", [False, True])
def test_no_memory_left_is_one_line(failing, error, hidden):
    failing["error"] = error
    if hidden:  # as Keras does
        failing["error"] = RuntimeError("Exception encountered when calling Dense.call()")
        failing["error"].__context__ = error
    done = run("info")
    wanted = "Error: It ran out of memory: take a smaller --size, batch or picture.\n"
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", wanted)


def test_an_error_of_the_system_is_one_line_and_exit_code_2(failing):
    failing["error"] = OSError(errno.ENOSPC, "No space left on device", "out/a.json")
    done = run("info")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("Error: No space left on device: 'out/a.json' cannot be")


def test_a_command_runs_with_standard_output_closed(failing, monkeypatch):
    failing["error"] = InputError("Give a name.")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["info"])
    assert ended.value.code == 2


def test_a_reader_that_has_gone_away_ends_a_command_without_a_word(failing):
    failing["error"] = BrokenPipeError(errno.EPIPE, "Broken pipe")
    done = run("info")
    assert (done.exit_code, done.output) == (1, "")


PROGRAM = [sys.executable, "-c", "from tf_groupvit.cli import main; main()"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["info", str(DEMO), "--json"]])
def test_a_full_disk_behind_standard_output_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "Error: No space left on device: the output cannot be written.\n"


def test_a_pipe_that_is_closed_early_is_no_error():
    with subprocess.Popen(
        [*PROGRAM, "info", str(DEMO)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_name_that_standard_output_cannot_say_is_escaped(tmp_path, monkeypatch):
    say = click.Command("say", callback=lambda: click.echo("Bäume \udcff"))
    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: say)
    with open(tmp_path / "out", "w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with pytest.raises(SystemExit):
            cli.main(["say"])
    assert (tmp_path / "out").read_text("utf-8") == "Bäume \\udcff\n"


def test_a_bug_keeps_its_traceback(failing):
    failing["error"] = ZeroDivisionError("a bug")
    done = run("info")
    assert done.exit_code == 1 and isinstance(done.exception, ZeroDivisionError)


def test_warnings_are_one_line_on_standard_error(monkeypatch, capsys):
    monkeypatch.setattr("sys.warnoptions", [])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        run("info", "--help")
        cli._say(UserWarning("careful"), UserWarning, "file", 3)
    assert capsys.readouterr().err == "Warning: careful\n"
