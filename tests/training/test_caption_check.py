"""The check of training data: it counts what training would take, and leaves out what it would."""

import io
import json
from collections import Counter

import pytest
from click.testing import CliRunner
from pairs import picture, write_tar
from PIL import Image

from tf_groupvit.cli import main
from tf_groupvit.hub import demo_checkpoint
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training import caption_check
from tf_groupvit.training.augment import PLAIN
from tf_groupvit.training.caption_batches import TrainingData
from tf_groupvit.training.caption_check import check_pairs
from tf_groupvit.training.caption_sources import open_pairs

CAPTIONS = ["a dog", "a red apple on a table", "word " * 100]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_pretrained(demo_checkpoint())


@pytest.fixture
def data(tmp_path):
    """A shard of three whole pairs among seven broken ones of five kinds."""
    members = {}
    for number, caption in enumerate(CAPTIONS):
        members |= {f"{3 * number}.png": picture(number), f"{3 * number}.txt": caption.encode()}
    for number in (1, 2):
        members |= {f"{number}.png": b"no picture", f"{number}.txt": b"x"}
    members |= {"4.png": picture(0, size=1), "4.txt": b"x", "5\nx.png": picture(0)}
    members |= {"7.txt": b"x"}
    members |= {"8.png": picture(0), "8.txt": b" &nbsp; "}
    members |= {"9.png": picture(0), "9.json": b'{"caption": "half \\ud800"}'}
    return write_tar(tmp_path / "data" / "0.tar", dict(sorted(members.items())))


@pytest.mark.slow
def test_it_leaves_out_what_training_does_and_counts_tokens(data, tokenizer):
    check = check_pairs(open_pairs(data), tokenizer)
    training = TrainingData(open_pairs(data), tokenizer, 8, 3, augmentation=PLAIN, shuffle=1)
    batches = iter(training.batches())
    next(batches), next(batches)  # what the first round lacked is known in the second
    assert check.pairs == 3 and len(check.broken) == 7
    assert check.broken == training.skipped
    lengths = [tokenizer(text)["input_ids"].shape[1] for text in CAPTIONS[:2]]
    assert sorted(check.lengths.elements())[:2] == lengths
    summary = check.summary(48)
    assert summary.startswith("3 pairs; 7 more are broken, and left out\n  2: its image: expected")
    assert "1 with more than 48 are cut" in summary and len(summary.splitlines()) == 9
    assert "8 to 8 pixels" in summary
    assert len(training.skipped.summary().splitlines()) == 8


def test_the_command_prints_it_and_writes_a_sheet_and_no_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(caption_check, "SHOWN", 2)
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["train", "--check", "--data", str(data), "--output", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == f"{data}: 3 pairs; 7 more are broken, and left out"
    assert done.stdout.splitlines()[-1] == f"2 of them: {out}/contact_sheet.jpg"
    assert [path.name for path in out.iterdir()] == ["contact_sheet.jpg"]
    with Image.open(io.BytesIO((out / "contact_sheet.jpg").read_bytes())) as sheet:
        assert sheet.width == 2 * 412 + 12


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "Drawn scenes need no check"),
        (
            ["--data", "broken.tar"],
            "nothing to train on: 1 records were skipped, the first of them",
        ),
    ],
)
def test_data_without_a_whole_pair_are_one_line(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "broken.tar", {"1.png": picture(0), "1.json": json.dumps({}).encode()})
    done = CliRunner().invoke(main, ["train", "--check", "--output", "out", *given])
    assert done.exit_code == 2 and words in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_pairs_that_are_shown_are_drawn_from_all(tmp_path, tokenizer):
    members = {}
    for number in range(60):
        members |= {f"{number:02d}.png": picture(number), f"{number:02d}.txt": b"a picture"}
    check = check_pairs(open_pairs(write_tar(tmp_path / "s.tar", members)), tokenizer)
    numbers = [number for number, _ in check.shown]
    assert check.summary(48).startswith("60 pairs; none broken\ncaptions have")
    assert check.pairs == 60 and len(set(numbers)) == 20 and max(numbers) >= 20


def test_large_numbers_of_tokens_have_separators_too():
    check = caption_check.Check(pairs=1, lengths=Counter([1234]), sides=Counter([8]))
    assert "captions have 1,234 to 1,234 tokens" in check.summary(1000)
    assert "at most 1,234, 95 of 100 at most 1,234; 1 with more than 1,000" in check.summary(1000)
