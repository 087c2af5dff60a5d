"""TensorFlow's libraries say nothing on standard error unless they are asked to; everything else is
shown.
"""

import os
import subprocess
import sys

import pytest

from tf_groupvit.quiet import LEVEL, held_back, without_remarks

ABSL = (
    b"I0000 00:00:1795976746.815906   28455 port.cc:153] oneDNN custom operations are on. You may"
    b" see\n"
)
WARNED = b"W0000 00:00:1795976746.815906   28455 gpu.cc:1] no device\n"
FAILED = b"E0000 00:00:1795976750.771730   28455 cuda_platform.cc:52] failed call to cuInit\n"
OLDER = (
    b"2026-01-01 10:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations are"
    b" on.\n"
)
OLDER_FAILED = (
    b"2026-01-01 10:00:00.123456: E external/local_xla/cuda_dnn.cc:9261] Unable to register cuDNN"
    b" factory\n"
)
AROUND = b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
BELOW = (
    b"To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.\n"
)
OWN = (
    b"Idle: 3 I0000 words\nWARNING:my.program: careful\nTraceback (most recent call last):\n "
    b" E0000\n"
)


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        ("3", b""),
        ("2", FAILED + OLDER_FAILED),
        ("1", WARNED + FAILED + OLDER_FAILED),
        ("0", AROUND + ABSL + WARNED + BELOW + FAILED + OLDER + OLDER_FAILED),
        ("x", AROUND + ABSL + WARNED + BELOW + FAILED + OLDER + OLDER_FAILED),
    ],
)
def test_remarks_below_the_level_are_left_out_and_all_else_is_kept(monkeypatch, level, kept):
    monkeypatch.setenv(LEVEL, level)
    assert without_remarks(AROUND + ABSL + WARNED + BELOW + FAILED + OLDER + OLDER_FAILED) == kept
    assert without_remarks(OWN + ABSL)[: len(OWN)] == OWN


def test_what_a_program_says_meanwhile_is_shown_afterwards(monkeypatch, capfd):
    monkeypatch.setenv(LEVEL, "3")
    with held_back(only_remarks=True):
        os.write(2, ABSL + OWN)
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == OWN.decode()


def test_where_no_file_takes_what_is_printed_all_is_shown(capfd, monkeypatch):
    def refused():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with held_back(only_remarks=True):
        os.write(2, b"I0000 00:00:1700000000.000000 1 port.cc:1] shown\n")
    assert capfd.readouterr().err.endswith("] shown\n")


def test_a_failure_shows_everything(monkeypatch, capfd):
    monkeypatch.setenv(LEVEL, "3")
    with pytest.raises(ImportError), held_back(only_remarks=True):
        os.write(2, ABSL)
        raise ImportError
    assert capfd.readouterr().err == ABSL.decode()


# One process: a program that touches the package in several ways, and prints a line of its own in
# between.
PROGRAM = """
import logging, sys
from tf_groupvit import TFGroupViTModel
import keras, tensorflow as tf
tf.constant(1) + 1
assert type(tf.__loader__).__module__ == "_frozen_importlib_external" and tf.__spec__.loader is tf.__loader__
from click.testing import CliRunner
from tf_groupvit.cli import main
done = CliRunner().invoke(main, ["evaluate", "scenes", "--count", "1"])
assert done.exit_code == 0, done.output
print("own words", file=sys.stderr)
"""


@pytest.mark.slow
def test_a_program_shows_its_own_words_alone():
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in (LEVEL, "CUDA_VISIBLE_DEVICES")
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "own words\n")
