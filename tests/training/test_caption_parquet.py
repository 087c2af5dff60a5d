"""Parquet files of pairs: which columns, when rows are read, and what is refused."""

import sys

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from loaded import loaded
from pairs import pairs, picture

from tf_groupvit.errors import DatasetError
from tf_groupvit.training import caption_parquet
from tf_groupvit.training.caption_sources import open_pairs


def table(path, /, rows_a_group=2, **columns):
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pa.table(columns), path, row_group_size=rows_a_group)
    return path


IMAGES, TEXTS = map(list, zip(*pairs(5), strict=True))


def test_images_are_bytes_or_a_struct_or_paths_beside_the_file(tmp_path):
    for number, image in enumerate(IMAGES):
        (tmp_path / f"{number}.png").write_bytes(image)
    names = [f"{number}.png" for number in range(5)]
    structs = [{"bytes": image, "path": None} for image in IMAGES[:3]]
    structs += [{"bytes": None, "path": name} for name in names[3:]]
    for number, columns in enumerate(({"jpg": IMAGES}, {"image": structs}, {"PATH": names})):
        file = table(tmp_path / f"{number}.parquet", **columns, TEXT=TEXTS)
        assert loaded(open_pairs(file)) == (pairs(5), {})
    (tmp_path / "4.png").unlink()
    good, bad = loaded(open_pairs(tmp_path / "2.parquet"))
    assert good == pairs(4) and list(bad.values()) == [
        "its image cannot be read: there is no such file or folder"
    ]


def test_a_list_of_captions_is_a_pair_for_each(tmp_path):
    captions = [["a", "b"], [], None, ["c"]]
    file = table(tmp_path / "0.parquet", image=IMAGES[:4], captions=captions)
    source = open_pairs(file)
    records = list(source.read(source.shards[0]))
    assert [record.load()[1] for record in records] == ["a", "b", "", "", "c"]
    assert len({record.name for record in records}) == 5


def test_a_row_group_is_read_once_and_only_when_a_row_is_asked_for(tmp_path, monkeypatch):
    source = open_pairs(table(tmp_path / "0.parquet", image=IMAGES, caption=TEXTS))
    read, original = [], parquet.ParquetFile.read_row_group

    def counted(self, number, *rest, **words):
        read.append(number)
        return original(self, number, *rest, **words)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", counted)
    records = list(source.read(source.shards[0]))
    assert len(records) == 5 and read == []
    for place in (3, 0, 2, 1):
        assert records[place].load() == pairs(5)[place]
    assert read == [1, 0]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_picture_of_many_rows_is_in_memory_once(tmp_path, wrapped):
    image = bytes(1_000_000)
    images = [{"bytes": image, "path": "x"}] * 100 if wrapped else [image] * 100
    texts = [["the same"]] * 100
    file = table(tmp_path / "0.parquet", rows_a_group=100, image=images, caption=texts)
    before = pa.total_allocated_bytes()
    first, *_ = open_pairs(file).read(str(file))
    assert first.load() == (image, "the same")
    assert pa.total_allocated_bytes() - before < 5_000_000


def test_a_text_that_is_not_utf_8_costs_its_row_alone(tmp_path):
    parts = pa.array([b"picture \xff", *(text.encode() for text in TEXTS[1:])]).buffers()
    texts = pa.Array.from_buffers(pa.string(), 5, parts)
    good, bad = loaded(open_pairs(table(tmp_path / "0.parquet", image=IMAGES, caption=texts)))
    assert good == pairs(4, first=1)
    assert list(bad.values()) == ["its caption is no text in UTF-8"]


def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(
        DatasetError, match=r"no column of captions, but image: call it one of capt"
    ):
        open_pairs(table(tmp_path / "0.parquet", image=IMAGES))
    with pytest.raises(DatasetError, match=r"no column of images, but image, caption: call it"):
        open_pairs(table(tmp_path / "0.parquet", image=[1, 2], caption=["a", "b"]))
    good = table(tmp_path / "0.parquet", image=[IMAGES[0], None], caption=["a", "b"])
    (tmp_path / "1.parquet").write_bytes(b"PAR1")
    pairs_, bad = loaded(open_pairs(tmp_path))
    assert pairs_ == [(picture(0), "a")] and bad.pop(f"{good}:1") == "its row has no image"
    ((name, reason),) = bad.items()
    assert name.endswith("1.parquet") and "cannot be read: " in reason and "\n" not in reason
    monkeypatch.setattr(caption_parquet, "MOST_BYTES", 100)
    assert "write the file anew with smaller ones" in loaded(open_pairs(good))[1][f"{good}:0"]
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DatasetError, match=r"need pyarrow: pip install 'tf-groupvit\[annotate\]'"):
        open_pairs(good)
