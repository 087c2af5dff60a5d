"""Commands ask TensorFlow for oneDNN's kernels, where it is not too late and nobody has decided
otherwise.
"""

import os
import platform
import sys

import pytest

from tf_groupvit.cli.kernels import SWITCH, prefer_onednn


@pytest.fixture
def fresh(monkeypatch):
    """A process on x86 that has not imported TensorFlow yet."""
    monkeypatch.setenv(SWITCH, "")  # so that it is as it was, afterwards
    monkeypatch.delenv(SWITCH)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return monkeypatch


def test_onednn_is_asked_for_before_tensorflow_is_imported(fresh):
    prefer_onednn()
    assert os.environ[SWITCH] == "1"


def test_whoever_sets_the_variable_decides(fresh):
    fresh.setenv(SWITCH, "0")
    prefer_onednn()
    assert os.environ[SWITCH] == "0"


def test_once_tensorflow_is_imported_nothing_changes_for_processes_started_later(fresh):
    fresh.setitem(sys.modules, "tensorflow", object())
    prefer_onednn()
    assert SWITCH not in os.environ


def test_other_processors_are_left_alone(fresh):
    fresh.setattr(platform, "machine", lambda: "arm64")
    prefer_onednn()
    assert SWITCH not in os.environ
