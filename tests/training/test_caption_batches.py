"""Batches of pairs: what is in them, what is left out, and that they resume where they stopped."""

import json
from itertools import chain, islice
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from pairs import folder, pairs, picture, png, shard, write_tar

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.preprocessing.image_graph_bytes import assert_with_message
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training import caption_batches
from tf_groupvit.training.augment import PLAIN, PUBLISHED, Augmentation
from tf_groupvit.training.caption_batches import Position, Share, TrainingData
from tf_groupvit.training.caption_shards import write_tfrecord
from tf_groupvit.training.caption_sources import open_pairs
from tf_groupvit.training.texts import Prompts, listed_words

UNIT = ((0.0, 0.0, 0.0), (1 / 255,) * 3)  # mean and deviation that give grey levels back


@pytest.fixture(scope="module")
def tokenizer(golden):
    return Tokenizer.from_pretrained(
        golden / "tokenizer" / "vocabularies" / "trained", max_length=10
    )


def data_of(paths, tokenizer, batch_size=3, augmentation=PLAIN, **settings):
    settings = dict(size=4, normalize=UNIT, augmentation=augmentation) | settings
    return TrainingData(open_pairs(paths), tokenizer, batch_size=batch_size, **settings)


def take(data, count, position=None):
    dataset = data.batches() if position is None else data.batches(position)
    return list(dataset.take(count).as_numpy_iterator())


def levels(batches):
    """The number of each picture, batch by batch."""
    return [
        [round(float(level)) for level in batch["pixel_values"][:, 0, 0, 0]] for batch in batches
    ]


def same(one, other):
    return all(
        np.array_equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a
    )


def test_a_batch_holds_pictures_and_their_captions_in_the_right_shapes(tmp_path, tokenizer):
    (batch,) = take(data_of(shard(tmp_path / "s.tar", 3), tokenizer, shuffle=1), 1)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "pixel_values": ((3, 3, 4, 4), "float32"),
        "input_ids": ((3, 10), "int32"),
        "attention_mask": ((3, 10), "int32"),
    }
    expected = tokenizer([caption for _, caption in pairs(3)], padding="max_length")
    np.testing.assert_array_equal(batch["input_ids"], expected["input_ids"])
    np.testing.assert_array_equal(batch["attention_mask"], expected["attention_mask"])
    for i in range(3):
        np.testing.assert_allclose(batch["pixel_values"][i], i, atol=1e-4)


def test_pixels_are_normalised_channels_first(tmp_path, tokenizer):
    image = np.zeros((2, 2, 3), np.uint8) + np.array([255, 51, 0], np.uint8)
    path = write_tar(tmp_path / "s.tar", {"1.png": png(image), "1.txt": b"red"})
    (batch,) = take(data_of(path, tokenizer, 1, normalize=((0.5, 0.1, 0.2), (0.5, 0.1, 0.4))), 1)
    np.testing.assert_allclose(batch["pixel_values"][0, :, 0, 0], [1.0, 1.0, -0.5], atol=1e-5)


def test_prompts_of_words_come_beside_the_caption(tmp_path, tokenizer):
    prompts = Prompts(listed_words(["picture"]), count=2, templates="identity")
    (batch,) = take(
        data_of(shard(tmp_path / "s.tar", 2), tokenizer, 2, prompts=prompts, shuffle=1), 1
    )
    assert batch["label_ids"].shape == batch["label_mask"].shape == (2, 2, 10)
    word = tokenizer(["picture"], padding="max_length")["input_ids"][0]
    np.testing.assert_array_equal(batch["label_ids"][:, 0], [word, word])
    np.testing.assert_array_equal(batch["label_ids"][:, 1], batch["input_ids"])


@pytest.mark.parametrize("kind", ["tar", "tfrecord", "folder"])
def test_every_format_gives_every_pair_once_a_round(tmp_path, tokenizer, kind):
    if kind == "folder":
        path = folder(tmp_path / "f", 12)
    else:
        path = tmp_path
        for k in range(3):
            if kind == "tar":
                shard(path / f"{k}.tar", 4, first=4 * k)
            else:
                write_tfrecord(path / f"{k}.tfrecord", pairs(4, first=4 * k))
    batches = take(data_of(path, tokenizer, shuffle=5), 8)
    first, second = (list(chain.from_iterable(levels(part))) for part in (batches[:4], batches[4:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != list(range(12)) and first != second
    for batch, numbers in zip(batches, levels(batches), strict=True):
        words = tokenizer([f"picture {i}" for i in numbers], padding="max_length")
        np.testing.assert_array_equal(batch["input_ids"], words["input_ids"])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_batches_and_another_seed_others(tmp_path, tokenizer):
    path = shard(tmp_path / "s.tar", 20)
    one, again, other = (
        take(data_of(path, tokenizer, augmentation=PUBLISHED, seed=s), 9) for s in (1, 1, 2)
    )
    assert same(one, again) and levels(one) != levels(other)


def test_without_a_buffer_the_order_is_that_of_the_files(tmp_path, tokenizer):
    shard(tmp_path / "0.tar", 3), shard(tmp_path / "1.tar", 3, first=3)
    assert levels(take(data_of(tmp_path, tokenizer, shuffle=1), 3)) == [
        [0, 1, 2],
        [3, 4, 5],
        [0, 1, 2],
    ]


BROKEN = {
    "cut.png": picture(1)[:40],
    "cut.txt": b"cut",
    "dot.png": picture(2, size=1),
    "dot.txt": b"one pixel",
    "empty.png": picture(3),
    "empty.txt": b" \n",
    "lone.png": picture(4),
    "text.jpg": b"no image",
    "text.txt": b"text",
}


REASONS = {
    "cut": "expected a whole PNG",
    "dot": "1 x 1 pixels",
    "empty": "its caption is empty",
    "lone": "there is no caption",
    "text": "expected an image",
}


def broken_shard(path):
    """Thirteen pairs, five of them broken in their own ways, and the end cut off in the last one."""
    members = {}
    for i, (image, caption) in enumerate(pairs(9, first=10)):
        if i % 2 == 0:
            key = sorted(REASONS)[i // 2]
            members |= {name: data for name, data in BROKEN.items() if name.startswith(key)}
        members |= {f"{i}.png": image, f"{i}.txt": caption.encode()}
    data = write_tar(path, members).read_bytes()
    path.write_bytes(data[: data.rindex(b"picture 18") + 4])
    return path


def test_broken_records_are_left_out_counted_and_named(tmp_path, tokenizer):
    path = broken_shard(tmp_path / "s.tar")
    data = data_of(path, tokenizer, 4, shuffle=1)
    assert levels(take(data, 4)) == [[10, 11, 12, 13], [14, 15, 16, 17]] * 2
    assert {name.rpartition("s.tar:")[2] for name in data.skipped} == {*REASONS, "8", str(path)}
    for key, reason in REASONS.items():
        assert reason in data.skipped[f"{path}:{key}"]
    assert "cut short" in data.skipped[str(path)]
    lines = data.skipped.summary(shown=2).splitlines()
    assert lines[0] == "7 records were skipped:" and lines[-1] == "  and 5 more"
    line = data.skipped.in_one_line()
    assert line.startswith("7 records were skipped, the first of them ") and "\n" not in line


@pytest.mark.slow
def test_batches_go_on_exactly_where_they_stopped(tmp_path, tokenizer):
    """With augmentation, words, a shuffle buffer and broken records; over the ends of rounds."""
    broken_shard(tmp_path / "0.tar"), shard(tmp_path / "1.tar", 5)

    def fresh():
        prompts = Prompts(listed_words(["picture", *map(str, range(20))]))
        return data_of(
            f"{tmp_path}/*.tar",
            tokenizer,
            augmentation=PUBLISHED,
            prompts=prompts,
            shuffle=4,
            seed=5,
        )

    whole = fresh()
    expected = take(whole, 8)
    for taken in (0, 2, 5):
        position = Position.from_dict(whole.position(taken).to_dict())
        assert position.batches == taken
        again = fresh()
        assert same(take(again, 8 - taken, position), expected[taken:])
        assert again.position(7) == whole.position(7)


def test_workers_share_every_global_batch_among_them(tmp_path, tokenizer):
    path = shard(tmp_path / "s.tar", 20)
    flips = Augmentation(operations=0)
    whole = take(data_of(path, tokenizer, 4, augmentation=flips), 8)
    parts = [
        take(data_of(path, tokenizer, 2, augmentation=flips, share=Share(w, 2)), 8)
        for w in range(2)
    ]
    for all_rows, *own in zip(whole, *parts, strict=True):
        together = np.concatenate([part["pixel_values"] for part in own])
        order = [0, 2, 1, 3]  # worker 0 has the even places, worker 1 the odd ones
        np.testing.assert_array_equal(together, all_rows["pixel_values"][order])


def test_shares_are_those_of_one_process_in_every_round(tmp_path, tokenizer):
    """Five pairs do not share evenly: what is whose changes from round to round."""
    path = shard(tmp_path / "s.tar", 5)
    whole = levels(take(data_of(path, tokenizer, 4), 5))
    workers = [data_of(path, tokenizer, 2, share=Share(w, 2)) for w in range(2)]
    parts = [levels(take(data, 5)) for data in workers]
    assert [sorted(chain(*own)) for own in zip(*parts, strict=True)] == list(map(sorted, whole))
    again = [levels(take(data, 2, data.position(3))) for data in workers]
    assert again == [part[3:] for part in parts]


def test_a_new_round_of_several_workers_takes_no_pass_to_count_its_records(tmp_path, tokenizer):
    """Others wait for its first batch, and a pass through all headers may take very long."""
    data, read = data_of(shard(tmp_path / "s.tar", 6), tokenizer, 2, share=Share(1, 2)), []
    source = data.source
    data.source = SimpleNamespace(
        shards=source.shards, read=lambda one: read.append(one) or source.read(one)
    )
    assert len(list(islice(data.records_from(Position()), 3 * 3))) == 9
    assert len(read) == 3


def test_rounds_that_are_still_in_the_graph_are_waited_for(tmp_path, tokenizer):
    data = data_of(shard(tmp_path / "s.tar", 3), tokenizer)
    ahead = islice(data.records_from(Position()), 12 * 3)  # no batch has come out yet
    assert [place for place, *_ in ahead] == [
        (number, place) for number in range(12) for place in range(3)
    ]


@pytest.mark.parametrize("caption", ["text", " "])
def test_data_of_which_nothing_can_be_used_end(tmp_path, tokenizer, caption):
    members = {
        f"{i}.{part}": text
        for i in range(3)
        for part, text in (("jpg", b"no image"), ("txt", caption.encode()))
    }
    data = data_of(write_tar(tmp_path / "s.tar", members), tokenizer)
    with pytest.raises(DatasetError, match="gave no batch of 3: 3 records were skipped"):
        list(data.records_from(Position()))


def test_fewer_records_than_a_batch_are_refused(tmp_path, tokenizer):
    with pytest.raises(DatasetError, match="hold 3 records, fewer than a batch of 4"):
        data_of(shard(tmp_path / "s.tar", 3), tokenizer, 4)


def test_data_of_nothing_but_broken_records_end_with_their_names(tmp_path, tokenizer):
    path = write_tar(
        tmp_path / "s.tar", {f"{i}.{kind}": b"x" for i in range(3) for kind in ("jpg", "txt")}
    )
    data = data_of(path, tokenizer, 2)
    with pytest.raises(Exception, match="3 records were skipped"):
        take(data, 1)


@pytest.mark.parametrize("count", [3, 130])
def test_errors_that_are_not_of_the_pictures_end_the_data_with_their_words(
    tmp_path, tokenizer, monkeypatch, count
):
    monkeypatch.setattr(caption_batches, "IN_A_ROW", 9)
    data = data_of(shard(tmp_path / "s.tar", count), tokenizer, 2)
    data._in_graph = 80  # of as many cores as there are

    def image(place, contents, caption):
        contents = assert_with_message(tf.size(place) == 1, ["No device here."], contents)
        return place, tf.zeros((3, 4, 4)) + tf.cast(tf.size(contents), tf.float32), caption

    monkeypatch.setattr(data, "_image", image)
    many = "Two rounds" if count == 3 else "90 pairs in a row"
    with pytest.raises(tf.errors.OpError):
        take(data, 1)
    assert isinstance(data.failure, DatasetError)
    line = str(data.failure)
    assert line.startswith(f"{many} gave no batch of 2: {tmp_path / 's.tar'}:0000")
    assert ": its image cannot be decoded: " in line and "No device here." in line
    assert "\n" not in line


def test_positions_that_are_none_are_refused(tmp_path, tokenizer):
    data = data_of(shard(tmp_path / "s.tar", 3), tokenizer)
    with pytest.raises(InputError, match="has not been made"):
        data.position(7)
    for content in ({"batches": -1}, {"steps": 1}, "here"):
        with pytest.raises(InputError):
            Position.from_dict(content)


def test_impossible_shares_and_sizes_are_refused(tmp_path, tokenizer):
    path = shard(tmp_path / "s.tar", 3)
    for settings in (dict(batch_size=0), dict(size=0)):
        with pytest.raises(InputError, match="1 or more"):
            data_of(path, tokenizer, **settings)
    with pytest.raises(InputError, match="no worker 2"):
        Share(2, 2)


@pytest.mark.parametrize("kind", ["jsonl", "tar"])
def test_pairs_of_a_list_of_captions_go_on_where_they_stopped(tmp_path, tokenizer, kind):
    entries = [
        (picture(10 * i), [f"picture {10 * i + k}" for k in range(i % 3 + 1)]) for i in range(5)
    ]
    path = tmp_path
    if kind == "tar":
        members = {}
        for i, (image, captions) in enumerate(entries):
            members |= {f"{i}.png": image, f"{i}.json": json.dumps({"caption": captions}).encode()}
        path = write_tar(tmp_path / "s.tar", members)
    else:
        for i, (image, captions) in enumerate(entries):
            (tmp_path / f"{i}.png").write_bytes(image)
            with open(tmp_path / "captions.jsonl", "a") as file:
                file.write(json.dumps({"image": f"{i}.png", "captions": captions}) + "\n")
    data = data_of(path, tokenizer, seed=4)
    assert len(data) == 9
    whole = take(data, 6)
    numbers = [10 * i + k for i in range(5) for k in range(i % 3 + 1)]
    rows = np.concatenate([batch["input_ids"] for batch in whole[:3]])
    decoded = [
        int(text.replace(" ", "")[len("picture") :])
        for text in tokenizer.decode(rows, skip_special_tokens=True)
    ]
    assert sorted(decoded) == numbers  # each pair once a round
    assert list(chain.from_iterable(levels(whole[:3]))) == [number // 10 * 10 for number in decoded]
    again = data_of(path, tokenizer, seed=4)
    assert same(take(again, 4, data.position(2)), whole[2:])
