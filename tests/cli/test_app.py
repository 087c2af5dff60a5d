"""`tf-groupvit app` before anything is loaded: what it refuses, and in which words."""

import socket

import pytest
from click.testing import CliRunner

from tf_groupvit.cli import main
from tf_groupvit.errors import InputError


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == "gradio" else None)
    return lambda *arguments: CliRunner().invoke(main, ["app", *arguments])


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["app"])
    assert result.exit_code == 2
    assert (
        result.output == "Error: The page needs Gradio, which is not installed: pip install"
        " 'tf-groupvit[demo]'.\n"
    )


def test_a_port_that_is_taken_is_refused_before_the_model_loads(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--port", str(port), "--model", "nowhere")
    assert result.exit_code == 2
    assert f"127.0.0.1:{port} cannot be listened on" in result.output
    assert "choose another --port, or 0 for any" in result.output


@pytest.mark.parametrize("port", ["-1", "70000"])
def test_a_port_that_there_is_not_is_refused(run, port):
    result = run("--port", port)
    assert result.exit_code == 2
    assert "cannot be listened on" in result.output


def test_a_model_that_is_not_there_is_refused(run, tmp_path):
    result = run("--port", "0", "--model", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "nowhere" in result.output


@pytest.mark.parametrize(
    ("arguments", "wanted"), [((), "pamr"), (("--refine", "guided"), "guided")]
)
def test_the_page_sharpens_masks_as_it_is_told(run, monkeypatch, arguments, wanted):
    pages = []

    def loaded(**choices):
        pages.append(choices["refine"])
        raise InputError("Loaded.")

    monkeypatch.setattr("tf_groupvit.cli.app.load_segmenter", loaded)
    assert "Loaded." in run("--port", "0", *arguments).output
    assert pages == [wanted]
