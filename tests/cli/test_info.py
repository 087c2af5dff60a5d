"""tf-groupvit info: sizes, config and counts of every format, from headers alone."""

import json
import subprocess
import sys

import pytest
from checkpoint_folders import CHECKPOINTS, EVERYTHING, FORMATS, checkpoint
from click.testing import CliRunner

from tf_groupvit.cli import main


def info(*arguments):
    return CliRunner().invoke(main, ["info", *map(str, arguments)])


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_tells_the_same_counts(kind, tmp_path):
    found = json.loads(info(checkpoint(tmp_path / "a", kind), "--json").stdout)
    assert found["parameters"] == {
        "total": 7910,
        "text_model": 848,
        "vision_model": 6511,
        "text_projection": 261,
        "visual_projection": 289,
        "logit_scale": 1,
    }
    assert found["dtypes"] == {"float32": 7910} and found["bytes"] > 4 * 7910
    assert found["config"]["text_config"]["vocab_size"] == 23
    assert ("original" in found["format"]) == (kind == "original") == bool(found["notes"])


def test_a_person_reads_a_table(tmp_path):
    done = info(checkpoint(tmp_path / "a", beside=EVERYTHING))
    assert done.exit_code == 0
    rows = dict(line.strip().split("  ", 1) for line in done.stdout.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows["parameters"] == "7,910" and rows["vision tower"] == "6,511"
    assert (
        rows["tokenizer"] == "vocab.json + merges.txt"
        and rows["preprocessor"] == "preprocessor_config.json"
    )
    assert rows["vision"].startswith(
        "1 + 2 + 1 layers, width 8, 4 heads, groups 5 -> 3, images of 12 x 12"
    )
    assert rows["text"].startswith(
        "2 layers, width 6, 2 heads, 23 tokens, texts of up to 7, end token 22"
    )


def test_what_is_not_there_is_said(tmp_path):
    rows = info(checkpoint(tmp_path / "a")).stdout
    assert [line.split()[0] for line in rows.splitlines() if line.endswith("not there")] == [
        "tokenizer",
        "preprocessor",
    ]
    alone = info(CHECKPOINTS / "original.pth")
    assert alone.exit_code == 0
    assert (
        "published sizes are assumed" in alone.stdout
        and "Note: multi_label_logit_scale was dropped" in alone.stdout
    )


def test_a_tower_is_described_too(tmp_path):
    folder = tmp_path / "tower"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "groupvit_vision_model"}')
    (folder / "tf_model.h5").write_bytes(
        (CHECKPOINTS / "tensorflow" / "vision" / "tf_model.h5").read_bytes()
    )
    done = info(folder)
    assert (
        done.exit_code == 0
        and "6 + 3 + 3 layers" in done.stdout
        and "text tower" not in done.stdout
    )


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            "config.json cannot be read: there is no",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "clip"}'),
            "expected 'groupvit'",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b""),
            "not a sound safetensors file",
        ),
    ],
)
def test_a_broken_checkpoint_is_one_line_and_exit_code_2(spoil, told, tmp_path):
    folder = checkpoint(tmp_path / "a")
    spoil(folder)
    done = info(folder)
    assert done.exit_code == 2 and told in done.stderr and done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("source", ["gone", "./gone", "", "a/b/c", "a b"])
def test_a_source_that_is_not_there_is_one_line_and_exit_code_2(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = info(source)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.output


def test_no_tensorflow_is_loaded(tmp_path):
    folder = checkpoint(tmp_path / "a")
    code = (
        "import sys; from click.testing import CliRunner; from tf_groupvit.cli import main; "
        f"assert CliRunner().invoke(main, ['info', {str(folder)!r}]).exit_code == 0; "
        "assert not {'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
