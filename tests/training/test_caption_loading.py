"""Loading of pairs: in their order, at once where a network is waited for, until it is gone."""

import shutil
import threading
import zlib
from functools import partial

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pairs import pairs, picture, shard

from tf_groupvit.errors import DatasetError
from tf_groupvit.training import caption_loading
from tf_groupvit.training.caption_folders import ImagesWithTexts
from tf_groupvit.training.caption_loading import AT_ONCE, load_pair, load_pairs, threads_for
from tf_groupvit.training.caption_shards import Record, StorageError, broken, write_tfrecord
from tf_groupvit.training.caption_sources import open_pairs, records_of


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


def test_a_storage_that_gives_nothing_any_more_ends_the_data(monkeypatch):
    monkeypatch.setattr(caption_loading, "IN_A_ROW", 3)
    lost = [broken(f"pair {k}", f"no host {k}", StorageError) for k in range(9)]
    empty, good = broken("empty", "its caption is empty"), Record("good", lambda: (b"", "a"))
    records = enumerate([lost[0], lost[1], good, lost[2], empty, lost[3], empty, *lost[4:]])
    found = load_pairs(records)
    assert [next(found)[0] for _ in range(7)] == list(range(7))
    with pytest.raises(DatasetError, match=r"^3 pairs in a row .* of them pair 4: no host 4\.$"):
        next(found)
    whole = [broken("empty", "its caption is empty")] * 9
    assert len(list(load_pairs(enumerate(whole)))) == 9


def write_storages(folder):
    """Two pairs of each layout; of downloads and of Parquet the second is broken."""
    address = "http://a.b/1.jpg"
    lines = [f"a dog\t{address}", "a cat\thttp://a.b/2.jpg"]
    (folder / "gcc" / "training").mkdir(parents=True)
    (folder / "gcc" / "training" / f"{zlib.crc32(address.encode())}").write_bytes(picture(1))
    (folder / "gcc" / "gcc.tsv").write_text("\n".join(lines))
    images, texts = zip(*pairs(2), strict=True)
    rows = pa.table({"jpg": list(images), "txt": list(texts)})
    (folder / "rows").mkdir()
    parquet.write_table(rows, folder / "rows" / "0.parquet", row_group_size=1, compression="none")
    content = (folder / "rows" / "0.parquet").read_bytes()
    about = parquet.read_metadata(folder / "rows" / "0.parquet").row_group(1).column(0)
    start, end = about.data_page_offset, about.data_page_offset + 8
    (folder / "rows" / "0.parquet").write_bytes(content[:start] + b"\xff" * 8 + content[end:])
    shard(folder / "tar" / "0.tar", 2)
    (folder / "examples").mkdir()
    write_tfrecord(folder / "examples" / "0.tfrecord", pairs(2))


def test_what_a_storage_does_not_give_is_told_from_what_is_broken(tmp_path):
    write_storages(tmp_path)
    kinds = {path.name: list(records_of(open_pairs(path))) for path in tmp_path.iterdir()}
    for kind in ("gcc", "rows"):
        with pytest.raises(DatasetError) as caught:
            load_pair(kinds[kind][1])
        assert not isinstance(caught.value, StorageError)
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    for records in kinds.values():
        with pytest.raises(StorageError, match=r"cannot be read|is gone"):
            load_pair(records[0])
