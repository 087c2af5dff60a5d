"""`tf-groupvit export`: what it refuses before it loads anything, and the version that it writes."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tf_groupvit.cli.export import command
from tf_groupvit.errors import ExportError, InputError


def export(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--version", "3"], ExportError, "is at .* already"),
        (["--version", "-3"], ExportError, "whole number"),
        (["--version", "0"], ExportError, "whole number from 1"),
        (["--warmup", "some"], SystemExit, "2"),
        (["--classes", "cat,,dog"], InputError, "empty name"),
        (["--templates", "no place"], InputError, "no single"),
        (["--model", "nowhere/at/all"], Exception, "nowhere/at/all"),
        (["--int8"], InputError, "--int8 is not about SavedModels: name another --format"),
        (["--open"], InputError, "--open is not about SavedModels"),
        (
            ["--format", "litert", "--version", "4"],
            InputError,
            "--version is about SavedModels: leave it out with --format litert",
        ),
        (["--format", "litert"], ExportError, "holds something already: name a new or empty"),
        (["--format", "onyx"], SystemExit, "2"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(tmp_path, arguments, error, words):
    (tmp_path / "3").mkdir()
    done = export(tmp_path, *([] if "--classes" in arguments else ["--classes", "cat"]), *arguments)
    assert isinstance(done.exception, error)
    assert re.search(words, str(done.exception))
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


@pytest.mark.parametrize("verbose", [False, True])
def test_the_names_of_operations_are_told_on_request(tmp_path, monkeypatch, verbose):
    from tf_groupvit.export.check import Report
    from tf_groupvit.export.saving import _check

    found = Report([], {"MatMul": 3, "AddV2": 2}, 0.1)
    monkeypatch.setattr("tf_groupvit.export.check.check_export", lambda *_: found)
    said: list[str] = []
    _check(None, tmp_path, said.append, verbose)
    assert said[1:] == ["5 operations of 2 kinds"] + ["Operations: MatMul, AddV2"] * verbose


@pytest.mark.slow
def test_a_checkpoint_becomes_a_checked_version(tmp_path):
    from exported import tiny_segmenter

    tiny_segmenter().save_pretrained(tmp_path / "checkpoint")
    base = tmp_path / "models" / "groupvit"
    options = ["--model", tmp_path / "checkpoint", "--background", "0.4", "--classes", "cat, dog"]
    done = export(base, *options, "--warmup", "none")  # the check asks every signature all the same
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{base / '1'}\n" and (base / "1" / "saved_model.pb").exists()
    for words in (
        "Tracing segment_open ...",
        "serving_default, batch 8: 100.00% of labels agree",
        "operations of",
        f"Wrote {base / '1'}: ",
    ):
        assert words in done.stderr
    assert (
        "MatMul" not in done.stderr
        and "Signatures: serving_default, segment, segment_open" in done.stderr
    )
    assert [path.name for path in Path(base).iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (
            "--no-check --version 7 --max-images 2 --max-texts 3 --max-pixels 4 --warmup default",
            ["savedmodel"],
        ),
        ("--format litert --int8 --open", ["litert"]),
    ],
)
def test_every_choice_reaches_the_export(tmp_path, monkeypatch, options, given):
    asked = []

    def export_model(*arguments, say, **more):
        asked.append((arguments, more))
        return tmp_path / "7"

    monkeypatch.setattr("tf_groupvit.cli.export.load_segmenter", lambda **_: "segmenter")
    monkeypatch.setattr("tf_groupvit.export.portable.export_model", export_model)
    done = export(tmp_path, "--classes", "cat", *options.split())
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / '7'}\n"), done.output
    serving = {"max_images": 2, "max_texts": 3, "max_pixels": 4, "verbose": False}
    serving |= {"version": 7, "warmup": "default", "check": False}
    portable = {"int8": True, "is_open": True, "check": True, "calibration": ()}
    expected = serving if given == ["savedmodel"] else portable
    assert asked == [(("segmenter", str(tmp_path), *given), expected)]
