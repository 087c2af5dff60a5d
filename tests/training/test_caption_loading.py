"""Loading of pairs: in their order, at once where a network is waited for."""

import threading
from functools import partial

import pytest

from tf_groupvit.errors import DatasetError
from tf_groupvit.training.caption_folders import ImagesWithTexts
from tf_groupvit.training.caption_loading import AT_ONCE, load_pair, load_pairs, threads_for
from tf_groupvit.training.caption_shards import Record


def test_records_of_other_storage_are_found_at_once_and_given_in_order():
    together = threading.Barrier(4)

    def load(number):
        together.wait(timeout=60)  # for ever alone
        if number % 3 == 1:
            raise DatasetError(f"{number} is broken")
        return b"image", f" {number} "

    records = [(k, Record(str(k), partial(load, k))) for k in range(8)]
    found = list(load_pairs(records, threads=4))
    assert [number for number, _, _ in found] == list(range(8))
    assert [str(pair) for *_, pair in found if isinstance(pair, DatasetError)] == [
        f"{number} is broken" for number in (1, 4, 7)
    ]
    assert [pair[1] for *_, pair in found if not isinstance(pair, DatasetError)] == list("02356")
    assert threads_for(["data/0.tar"]) == threads_for([]) == 1
    assert threads_for(["s3://bucket/0.tar"]) == AT_ONCE
    before = set(threading.enumerate())  # those of other tests, too
    ended = load_pairs(records, threads=4)
    next(ended)
    together.abort()
    ended.close()  # ends the threads
    assert set(threading.enumerate()) <= before


def test_a_caption_in_utf_16_is_told_in_place_of_learned(tmp_path):
    (tmp_path / "1.txt").write_bytes("a dog".encode("utf-16"))
    (tmp_path / "1.png").write_bytes(b"image")
    (record,) = ImagesWithTexts([str(tmp_path)]).read(str(tmp_path))
    with pytest.raises(DatasetError, match="has zero bytes: write it as UTF-8"):
        load_pair(record)
