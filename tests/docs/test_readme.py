"""Every block of Python in the pages runs, and so does every block of the command `tf-groupvit`."""

import shlex

import pytest
from pages import blocks

PYTHON, SHELL = blocks("python"), blocks("shell")


@pytest.mark.parametrize("code", [code for _, code in PYTHON], ids=[label for label, _ in PYTHON])
def test_a_block_of_python_runs(code, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("lines", [lines for _, lines in SHELL], ids=[label for label, _ in SHELL])
def test_a_block_of_commands_runs(lines, workplace, monkeypatch):
    from click.testing import CliRunner

    from tf_groupvit.cli import main

    monkeypatch.chdir(workplace)
    for line in lines.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "tf-groupvit"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"


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
        "photo.json",
    }
