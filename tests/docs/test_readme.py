"""Every block of code in the pages runs: Python, commands of `tf-groupvit`, and, in tests of their own, scripts."""

import json
import shlex
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
from pages import ROOT, blocks

PYTHON, SHELL = blocks("python"), blocks("shell")


@pytest.mark.parametrize("code", [code for _, code in PYTHON], ids=[label for label, _ in PYTHON])
def test_a_block_of_python_runs(code, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})


def _marked(label, lines):
    return pytest.param(lines, id=label, marks=[pytest.mark.slow] if "tf-groupvit export" in lines else [])


@pytest.mark.parametrize("lines", [_marked(*block) for block in SHELL])
def test_a_block_of_commands_runs(lines, workplace, monkeypatch):
    from click.testing import CliRunner

    from tf_groupvit.cli import main

    monkeypatch.chdir(workplace)
    with ExitStack() as servers:
        port = None
        for line in lines.splitlines():
            if line.endswith(" &"):
                port = servers.enter_context(serving(line.removesuffix(" &")))
                continue
            program, *arguments = shlex.split(line.replace("localhost:8501", f"localhost:{port}"))
            assert program == "tf-groupvit"
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, f"{line}\n{result.output}"


@contextmanager
def serving(line):
    """Run a server's command as written, on free ports: its REST port."""
    program, *arguments = shlex.split(line)
    assert program == "tf-groupvit" and arguments[0] == "serve"
    code = "from tf_groupvit.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments, "--port", "0", "--rest-api-port", "0", "--json-logs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            ready = next(filter(None, map(_port_in, server.stdout)), None)
            assert ready, "the server did not start"
            yield ready
        finally:
            server.terminate()


def _port_in(line):
    said = json.loads(line)
    return said["rest_api_port"] if said.get("event") == "ready" else None


# Lines that need a machine of their own, and the test that runs them there.
ELSEWHERE = {
    "scripts/demo": "tests/scripts/test_demo.py",
    "scripts/test": "scripts/test",  # what runs this
    "pip install .": "tests/scripts/test_build.py",
    "tf-groupvit train --recipe demo --output my-demo": "tests/training/test_training_runs.py",  # fewer steps
    "tf-groupvit train --data my-captions --output mine": "tests/training/test_training_own_captions.py",
}


def test_every_other_line_of_a_shell_is_run_by_a_test_of_its_own():
    for label, lines in blocks("sh"):
        for line in lines.splitlines():
            test = ELSEWHERE[line.partition("#")[0].strip()]
            assert (ROOT / test).exists(), label


def test_the_readme_shows_both_ways():
    assert len(PYTHON) >= 3
    assert len(SHELL) >= 2


def test_segment_writes_the_files_that_the_readme_names(workplace, monkeypatch):
    from click.testing import CliRunner

    from tf_groupvit.cli import main

    monkeypatch.chdir(workplace)
    arguments = "segment photo.jpg --model checkpoint --classes sheep,grass --output named"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 0, result.output
    assert {path.name for path in (workplace / "named").iterdir()} == {
        "photo.overlay.png",
        "photo.labels.png",
        "photo.colors.png",
        "photo.json",
    }
