"""Each format of training pairs: the same pairs are read, broken ones are named, a share is held
out.
"""

import csv
import io
import json
import re
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tensorflow as tf
from fsspec.implementations.memory import MemoryFileSystem
from loaded import loaded
from pairs import folder, pairs, picture, shard, write_tar

from tf_groupvit.errors import DatasetError, GroupViTError
from tf_groupvit.scenes.scene import scenes, write_scenes
from tf_groupvit.training.caption_shards import Record, write_tfrecord
from tf_groupvit.training.caption_sources import (
    count_records,
    first_images,
    open_pairs,
    split,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "captions"


def test_webdataset_shards_give_their_pairs_in_order(tmp_path):
    shard(tmp_path / "00000.tar", 3), shard(tmp_path / "00001.tar", 2, first=3)
    (tmp_path / "00000_stats.json").write_text("{}")
    for paths in (tmp_path, f"{tmp_path}/{{00000..00001}}.tar", f"{tmp_path}/*.tar"):
        assert loaded(open_pairs(paths)) == (pairs(5), {})


@pytest.mark.parametrize("ending", ["tar.gz", "tgz"])
def test_a_compressed_tar_is_refused_in_one_line(tmp_path, ending):
    file = tmp_path / f"0.{ending}"
    file.write_bytes(b"")
    for path in (file, tmp_path, f"{tmp_path}/*.{ending}"):
        with pytest.raises(DatasetError) as refused:
            open_pairs(path)
        assert str(refused.value) == (
            f"{file} is a compressed tar, and those are not read: unpack it, with gunzip."
        )


def test_a_caption_may_stand_in_json_alone_and_keys_may_lie_in_folders(tmp_path):
    members = {
        "a.b/1.x.json": b"{}",
        "a.b/1.jpg": b"image",
        "a.b/1.json": json.dumps({"caption": "é"}).encode(),
    }
    assert loaded(open_pairs(write_tar(tmp_path / "s.tar", members))) == ([(b"image", "é")], {})


def test_what_a_webdataset_record_lacks_is_told(tmp_path):
    members = {
        "1.jpg": b"image",
        "2.txt": b"text",
        "3.jpg": b"i",
        "3.json": b'{"url": ""}',
        "4.jpg": b"i",
    }
    good, bad = loaded(open_pairs(write_tar(tmp_path / "s.tar", members | {"4.txt": b"t"})))
    assert good == [(b"i", "t")]
    reasons = {name.rpartition(":")[2]: reason for name, reason in bad.items()}
    assert reasons == {
        "1": "there is no caption among jpg",
        "2": "there is no image among txt",
        "3": "its JSON has no entry 'caption'",
    }


@pytest.mark.parametrize("left", [0, 100, 511, 512, 700, 1024, 2048, 4096, 5000, 7680])
def test_a_shard_cut_short_gives_its_whole_records_and_is_named(tmp_path, left):
    """Of a pair's 3,072 bytes, the picture has the first 1,024, and the caption ends 9 bytes behind
    its header.
    """
    whole = shard(tmp_path / "whole.tar", 3).read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[:left])
    good, bad = loaded(open_pairs(cut))
    assert good == pairs(sum(left >= 3072 * i + 1536 + len("picture i") for i in range(3)))
    assert "cut short" in bad[str(cut)]


def test_a_shard_damaged_in_the_middle_gives_what_is_before(tmp_path):
    whole = bytearray(shard(tmp_path / "s.tar", 3).read_bytes())
    whole[3072 : 3072 + 512] = b"\xff" * 512
    (tmp_path / "s.tar").write_bytes(whole)
    good, bad = loaded(open_pairs(tmp_path / "s.tar"))
    assert good == pairs(1) and "damaged" in bad[str(tmp_path / "s.tar")]


def test_tfrecord_files_give_what_was_written(tmp_path):
    assert write_tfrecord(tmp_path / "a.tfrecord", pairs(3)) == 3
    assert write_tfrecord(tmp_path / "b.tfrecord", pairs(2, first=3)) == 2
    assert loaded(open_pairs(tmp_path)) == (pairs(5), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tfrecord", "b.tfrecord"]


def test_tfrecord_files_are_what_tensorflow_reads(tmp_path):
    import tensorflow as tf

    write_tfrecord(tmp_path / "a.tfrecord", pairs(2))
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "caption")}
    read = [
        tf.io.parse_single_example(e, spec)
        for e in tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord"))
    ]
    assert [(r["image"].numpy(), r["caption"].numpy().decode()) for r in read] == pairs(2)


def test_tfrecord_files_of_img2dataset_are_read_and_others_refused_by_name(tmp_path):
    import tensorflow as tf

    def example(**features):
        bytes_list = {
            k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v]))
            for k, v in features.items()
        }
        return tf.train.Example(features=tf.train.Features(feature=bytes_list)).SerializeToString()

    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for data in (
            example(jpg=b"i", txt=b"t", key=b"1"),
            example(pixels=b"i", caption=b"t"),
            b"\xff",
        ):
            writer.write(data)
    good, bad = loaded(open_pairs(path))
    assert good == [(b"i", "t")]
    assert [
        "image, jpg" in reason or "no tf.train.Example" in reason for reason in bad.values()
    ] == [True, True]


@pytest.mark.parametrize("left", [0.3, 0.5, 0.99])
def test_a_tfrecord_file_cut_short_gives_its_whole_records_and_is_named(tmp_path, left):
    write_tfrecord(tmp_path / "a.tfrecord", pairs(3))
    data = (tmp_path / "a.tfrecord").read_bytes()
    (tmp_path / "a.tfrecord").write_bytes(data[: int(left * len(data))])
    good, bad = loaded(open_pairs(tmp_path))
    assert good == pairs(3)[: int(left * 3)]
    assert "cut short" in bad[str(tmp_path / "a.tfrecord")]


def test_a_failed_tfrecord_leaves_no_file(tmp_path):
    with pytest.raises(DatasetError, match="cannot be written"):
        write_tfrecord(tmp_path / "missing" / "a.tfrecord", pairs(1))


def test_a_folder_with_a_table_of_captions(tmp_path):
    assert loaded(open_pairs(folder(tmp_path / "f", 4))) == (pairs(4), {})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", '\ufefffilename,n,caption\na.png,1,"one, and ""two"""\n\nb.png,2,three\n'),
        ("captions.tsv", 'image\ttext\na.png\tone, and "two"\nb.png\tthree\n'),
        (
            "metadata.jsonl",
            (
                '{"file_name": "a.png", "text": "one, and \\"two\\""}\n{"path": "b.png", "caption":'
                ' "three"}'
            ),
        ),
        ("captions.txt", 'one, and "two"\nthree\n'),
        ("captions.txt", '\ufeffone, and "two"\r\nthree'),
        ("captions.txt", 'image,caption\na.png,"one, and ""two"""\nb.png,three'),
        ("captions.txt", 'image\tcaption\r\na.png\t"one, and ""two"""\r\nb.png\tthree\r\n'),
    ],
)
def test_captions_files_in_every_form(tmp_path, name, text):
    for number, image in enumerate(("a.png", "b.png")):
        (tmp_path / image).write_bytes(picture(number))
    (tmp_path / name).write_text(text, encoding="utf-8")
    expected = [(picture(0), 'one, and "two"'), (picture(1), "three")]
    assert loaded(open_pairs(tmp_path)) == loaded(open_pairs(tmp_path / name)) == (expected, {})


ODD = "one\u2028two\x85three\x0cfour\x1c\rfive"  # str.splitlines would make six of it


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt"])
def test_a_caption_may_hold_whatever_is_no_line_end(tmp_path, kind):
    expected = []
    for number, caption in enumerate((ODD, '"a" and\t"b", c', "plain")):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        expected.append((picture(number), caption))
    with open(tmp_path / f"captions.{kind}", "w", encoding="utf-8", newline="") as file:
        if kind in ("csv", "tsv"):
            table = csv.writer(file, "excel" if kind == "csv" else "excel-tab")
            table.writerows(
                [
                    ("image", "caption"),
                    *((f"{k}.png", text) for k, (_, text) in enumerate(expected)),
                ]
            )
        elif kind == "jsonl":
            entries = [
                {"image": f"{k}.png", "caption": text} for k, (_, text) in enumerate(expected)
            ]
            file.write("\r\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries))
        else:
            file.write("".join(f"{caption}\r\n" for _, caption in expected))
    assert loaded(open_pairs(tmp_path)) == (expected, {})


def test_a_list_of_captions_is_a_pair_for_each(tmp_path):
    entries = [
        {"image": "a.png", "captions": ["a dog", "", "a pet"]},
        {"image": "b.png", "caption": None},
    ]
    for entry in entries:
        (tmp_path / entry["image"]).write_bytes(b"image")
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, entries)))
    members = {
        "1.jpg": b"image",
        "1.json": b"\xef\xbb\xbf" + json.dumps({"caption": ["a dog", "", "a pet"]}).encode(),
    }
    members |= {"2.jpg": b"image", "2.json": b'{"caption": null}'}
    for path in (tmp_path, write_tar(tmp_path / "shard" / "s.tar", members)):
        source = open_pairs(path)
        records = list(source.read(source.shards[0]))
        assert [record.load()[1] for record in records] == ["a dog", "", "a pet", ""]
        assert (
            len({record.name for record in records}) == 4
        )  # one that is left out leaves the others in


@pytest.mark.parametrize(
    ("value", "shown"), [("5", "5"), ('["a", {"b": 1}]', "{'b': 1}"), ("true", "True")]
)
def test_a_caption_that_is_no_text_is_refused_where_it_stands(tmp_path, value, shown):
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / "captions.jsonl").write_text(
        f'{{"image": "a.png", "caption": "x"}}\n{{"image": "a.png", "caption": {value}}}'
    )
    with pytest.raises(
        DatasetError,
        match=rf"captions\.jsonl, line 2: its caption is {re.escape(shown)}: expected a text",
    ):
        open_pairs(tmp_path)
    members = {"1.jpg": b"i", "1.json": f'{{"caption": {value}}}'.encode()}
    good, bad = loaded(open_pairs(write_tar(tmp_path / "s.tar", members)))
    assert (
        good == [] and f"its caption is {shown}: expected a text" in bad[f"{tmp_path / 's.tar'}:1"]
    )


@pytest.mark.parametrize(
    "line", ["0.png\ta dog", "0.png,a dog", "0.png#0 a dog", "images/0.png a dog", '"0.png": a dog']
)
def test_lines_that_begin_with_the_name_of_an_image_are_no_captions(tmp_path, line):
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "captions.txt").write_text(f"{line}\n")
    with pytest.raises(DatasetError, match="line 1 begins with the name of an image"):
        open_pairs(tmp_path)


def test_lines_are_not_paired_with_images_whose_order_is_in_doubt(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(12):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "captions.txt").write_text("".join(f"picture {number}\n" for number in range(12)))
    with pytest.raises(
        DatasetError, match=r"line 3 may be .* '10\.jpg' .* '2\.jpg' .*captions\.csv"
    ):
        open_pairs(tmp_path)
    for number in (10, 11):
        (tmp_path / "images" / f"{number}.jpg").unlink()
    (tmp_path / "captions.txt").write_text("".join(f"picture {number}\n" for number in range(10)))
    assert loaded(open_pairs(tmp_path)) == (pairs(10), {})


def test_a_shard_packed_in_any_order_loses_no_pair(tmp_path):
    """As plain tar packs a folder, whose files come in the order of the disk."""
    members = {f"{k}.png": image for k, (image, _) in enumerate(pairs(3))}
    members |= {"9.txt": b"lost", "a.json": b"{}"}
    members |= {f"{k}.txt": caption.encode() for k, (_, caption) in enumerate(pairs(3))}
    members |= {f"{k}.json": b"{}" for k in range(3)}
    good, bad = loaded(open_pairs(write_tar(tmp_path / "s.tar", members)))
    assert good == pairs(3)
    assert sorted(bad.values()) == ["there is no image among json", "there is no image among txt"]
    first = {name: data for name, data in members.items() if name[0] in "012"}
    names = sorted(first, key=lambda name: (name.endswith("json"), name))
    shard = write_tar(tmp_path / "t.tar", {name: first[name] for name in names})
    assert loaded(open_pairs(shard)) == (pairs(3), {})  # JSON at the end goes with what was given


def test_files_of_one_name_in_a_shard_are_not_lost_without_a_word(tmp_path):
    members = [
        (f"0.{kind}", part)
        for image, caption in pairs(3)
        for kind, part in (("png", image), ("txt", caption.encode()))
    ]
    source = open_pairs(write_tar(tmp_path / "s.tar", members))
    assert loaded(source) == (pairs(3), {})
    assert len({record.name for record in source.read(source.shards[0])}) == 3
    shard = write_tar(tmp_path / "t.tar", members[::2] + members[1::2])
    good, bad = loaded(open_pairs(shard))
    reason = "2 of its files come more than once, such as 0.png: the last of each counts"
    assert good == pairs(1, first=2) and bad == {str(shard): reason}


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax", "oldgnu"])
def test_what_gnu_tar_packs_is_read_in_each_of_its_formats(tmp_path, form):
    deep = tmp_path / ("d" * 60) / ("é" * 40)
    deep.mkdir(parents=True)
    for number, (image, caption) in enumerate(pairs(4)):
        (deep / f"{number}.png").write_bytes(image)
        (deep / f"{number}.txt").write_text(caption)
    command = ["tar", f"--format={form}", "-cf", "s.tar", "-C", str(tmp_path), "d" * 60]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if (
        done.returncode
        and "GNU" not in subprocess.run(["tar", "--version"], capture_output=True, text=True).stdout
    ):
        pytest.skip("tar is not GNU's")
    assert done.returncode == 0, done.stderr
    good, bad = loaded(open_pairs(tmp_path / "s.tar"))
    assert sorted(good, key=lambda pair: pair[1]) == pairs(4) and not bad


def test_what_macos_packs_is_read_as_if_its_twins_were_not_there(tmp_path):
    """A twin before each file, and times and attributes of Apple's in headers of their own."""
    extra = {
        "mtime": "1700000000.123456789",
        "LIBARCHIVE.xattr.com.apple.provenance": "AQIA",
        "SCHILY.xattr.com.apple.quarantine": "0081;é",
    }
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for number, (image, caption) in enumerate(pairs(3)):
            for name, data in ((f"{number}.png", image), (f"{number}.txt", caption.encode())):
                for path, content in ((f"./._{name}", b"Mac OS X"), (f"./{name}", data)):
                    member = tarfile.TarInfo(path)
                    member.size, member.pax_headers = len(content), extra
                    tar.addfile(member, io.BytesIO(content))
    assert loaded(open_pairs(tmp_path)) == (pairs(3), {})


JUNK = (
    "._{}",
    ".{}",
    "__MACOSX/._{}",
    "__MACOSX/{}",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".hidden/{}",
)


def test_what_macos_and_windows_leave_in_a_shard_costs_no_sample(tmp_path):
    members = {}
    for number, (image, caption) in enumerate(pairs(3)):
        for name, data in ((f"./{number}.png", image), (f"./{number}.txt", caption.encode())):
            twins = {junk.format(name.removeprefix("./")): b"Mac OS X" for junk in JUNK}
            members |= {**twins, name: data}
    write_tar(tmp_path / "0.tar", members)
    (tmp_path / "._0.tar").write_bytes(b"Mac OS X")
    assert loaded(open_pairs(tmp_path)) == (pairs(3), {})


def test_what_macos_and_windows_leave_in_a_folder_is_no_image(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        (tmp_path / f"._{number}.png").write_bytes(b"Mac OS X")
    (tmp_path / "a folder.png").mkdir()
    (tmp_path / "captions.txt").write_text("".join(f"{caption}\n" for _, caption in pairs(3)))
    assert loaded(open_pairs(tmp_path)) == (pairs(3), {})


def test_the_folder_that_the_command_scenes_writes_is_training_data(tmp_path):
    write_scenes(tmp_path, seed=3, count=4)
    good, bad = loaded(open_pairs(tmp_path))
    assert [caption for _, caption in good] == [scene.caption for scene in scenes(3, 4)] and not bad


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "captions.csv",
            "file_name,caption\na.png,x\nno.png,y\nnor.png,z\n",
            "2 images that are missing: .*no.png, .*n",
        ),
        ("captions.csv", "a,b\na.png,x\n", "none of them image"),
        ("captions.csv", "image,caption\na.png\n", "line 2: expected 2 columns"),
        ("captions.csv", "image,caption\n", "holds no captions"),
        (
            "captions.csv",
            "image,caption\na.png,a dog, a cat\n",
            "line 2: expected 2 columns, got 3: .*quotation marks",
        ),
        (
            "captions.csv",
            'image,caption\na.png,x\na.png,"y\na.png,z\n',
            "line 3: a quotation mark is opened",
        ),
        (
            "captions.csv",
            'image,caption\na.png,"' + "y" * 200_000,
            "line 2: cannot be read as a table",
        ),
        ("captions.jsonl", '{"image": 5, "caption": "x"}', "line 1: its image is 5"),
        ("captions.jsonl", "[" * 100_000, "line 1: expected a JSON object"),
        ("captions.jsonl", "{}\n", "line 1: expected a JSON object"),
        ("captions.txt", "x\ny\n", "2 captions for 1 images"),
        ("captions.doc", "x", "kind csv"),
    ],
)
def test_a_captions_file_that_does_not_fit_is_refused_before_work_starts(
    tmp_path, name, text, words
):
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=words) as caught:
        open_pairs(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_paths_to_nothing_are_refused(tmp_path):
    for paths, words in (
        (tmp_path / "no.tar", "nothing at"),
        (tmp_path, "neither shards"),
        ([], "at least one"),
        (f"{tmp_path}/*.tar", "nothing at"),
        (f"{tmp_path}/{{0..1000000}}.tar", r"nothing at .*\.tar: check"),
    ):
        with pytest.raises(DatasetError, match=words):
            open_pairs(paths)
    shard(tmp_path / "a.tar", 1), write_tfrecord(tmp_path / "a.tfrecord", pairs(1))
    with pytest.raises(DatasetError, match="one kind"):
        open_pairs(tmp_path)


def test_a_name_with_signs_of_a_pattern_is_a_name(tmp_path):
    folder(tmp_path / "photos [2020] {a,b}", 2)
    assert loaded(open_pairs(tmp_path / "photos [2020] {a,b}")) == (pairs(2), {})


def test_an_image_that_vanishes_during_training_is_told_by_name(tmp_path):
    source = open_pairs(folder(tmp_path / "f", 2))
    (tmp_path / "f" / "images" / "00000.png").unlink()
    good, bad = loaded(source)
    assert len(good) == 1 and [name[-9:] for name in bad] == ["00000.png"]


def names(source):
    return [record.name for shard in source.shards for record in source.read(shard)]


@pytest.mark.parametrize(
    "share, held", [(0.2, 2 * 2), (0.25, 2 * 2), (0.1, 2), (0.5, 2 * 5), (0.05, 0)]
)
def test_each_shard_gives_its_share_and_no_pair_is_in_both_parts(tmp_path, share, held):
    for k in range(2):
        shard(tmp_path / f"{k}.tar", 10, first=10 * k)
    source = open_pairs(tmp_path)
    rest, held_out = split(source, share)
    assert len(names(held_out)) == held
    assert not set(names(rest)) & set(names(held_out))
    assert sorted(names(rest) + names(held_out)) == sorted(names(source))
    assert names(held_out) == names(split(source, share)[1])


def test_held_out_pairs_lie_spread(tmp_path):
    source = open_pairs(shard(tmp_path / "s.tar", 10))
    assert [name.rpartition(":")[2] for name in names(split(source, 0.2)[1])] == [
        "000000004",
        "000000009",
    ]


def test_images_that_cannot_be_read_are_passed_over(tmp_path):
    class Source:
        shards = (tmp_path,)

        def read(self, shard):
            file = tf.io.encode_png(np.full((2, 3, 3), 7, np.uint8)).numpy()
            yield from (
                Record("a", lambda: (b"no picture", "a caption")),
                Record("b", lambda: (file, "a caption")),
            )

    (image,) = first_images(Source(), 2)
    assert image.shape == (2, 3, 3) and (image == 7).all()
    broken = Source()
    broken.read = lambda shard: iter([Record("a", lambda: (b"no picture", "a caption"))])
    with pytest.raises(DatasetError, match="nothing to show"):
        first_images(broken, 2)


def test_a_folder_may_be_named_from_where_one_stands(tmp_path, monkeypatch):
    folder(tmp_path / "f", 2)
    monkeypatch.chdir(tmp_path)
    source = open_pairs("f")
    _, caption = next(source.read(source.shards[0])).load()
    assert caption == "picture 0"


@pytest.fixture
def memory():
    """The address of an empty folder in memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return "memory://bucket"


def uploaded(folder, address):
    fsspec.filesystem("memory").put(f"{folder}/", address, recursive=True)
    return address


@pytest.mark.parametrize("kind", ["tar", "tfrecord", "csv", "txt", "files", "parquet", "coco"])
def test_pairs_on_other_storage_are_those_of_a_disk(tmp_path, memory, kind):
    here = tmp_path / "data"
    if kind in ("files", "parquet"):
        shutil.copytree(GOLDEN / kind, here)
    elif kind == "csv":
        folder(here, 3)
    elif kind == "txt":
        write_scenes(here, seed=3, count=3)
    elif kind == "coco":
        (here / "annotations").mkdir(parents=True), (here / "train").mkdir()
        (here / "train" / "0.png").write_bytes(picture(0))
        content = {
            "images": [{"id": 4, "file_name": "0.png"}],
            "annotations": [{"image_id": 4, "caption": "one"}],
        }
        (here / "annotations" / "captions_train.json").write_text(json.dumps(content))
    else:
        for number in range(2):
            if kind == "tar":
                shard(here / f"{number}.tar", 2, first=2 * number)
            else:
                here.mkdir(exist_ok=True)
                write_tfrecord(here / f"{number}.tfrecord", pairs(2, 2 * number))
    there = uploaded(here, memory)
    good, bad = loaded(open_pairs(there))
    on_disk, bad_on_disk = loaded(open_pairs(here))
    assert good == on_disk and good and list(bad.values()) == list(bad_on_disk.values())
    assert all(name.startswith(f"{there}/") for name in bad)
    if kind in ("tar", "tfrecord"):
        for paths in (f"{there}/*.{kind}", f"{there}/{{0..1}}.{kind}", f"simplecache::{there}"):
            assert loaded(open_pairs(paths))[0] == good


def test_few_downloads_are_looked_for_on_other_storage(tmp_path, memory, monkeypatch):
    monkeypatch.setattr("tf_groupvit.training.caption_folders.AFAR", 2)
    lines = [f"picture {number}\thttp://x/{number}" for number in range(3)]
    (tmp_path / "gcc.tsv").write_text("\n".join(lines))
    (tmp_path / f"{zlib.crc32(b'http://x/2')}").write_bytes(picture(2))
    assert loaded(open_pairs(tmp_path / "gcc.tsv"))[0] == [(picture(2), "picture 2")]
    with pytest.raises(DatasetError, match="none of its first 2 images is there"):
        open_pairs(f"{uploaded(tmp_path, memory)}/gcc.tsv")


def test_other_storage_that_lacks_something_is_one_line(tmp_path, memory):
    uploaded(folder(tmp_path / "f", 2), memory)
    with pytest.raises(DatasetError, match=r"nothing at memory://bucket/no"):
        open_pairs(f"{memory}/no")
    fsspec.filesystem("memory").rm("/bucket/images/00001.png")
    good, bad = loaded(open_pairs(memory))
    assert good == pairs(1) and list(bad.values()) == [
        "00001.png cannot be read: there is no such file or folder"
    ]
    fsspec.filesystem("memory").rm("/bucket/images/00000.png")
    with pytest.raises(DatasetError, match=r"names 1 images that are missing: .*00000\.png"):
        open_pairs(memory)
    with pytest.raises(GroupViTError, match="cannot be opened"):
        open_pairs("nowhere://bucket")


def test_pairs_in_a_bucket_are_those_of_a_disk(s3):
    for kind in ("files", "webdataset", "parquet"):
        s3.put(f"{GOLDEN / kind}/", f"photos/{kind}", recursive=True)
        good, bad = loaded(open_pairs(f"s3://photos/{kind}"))
        assert good == loaded(open_pairs(GOLDEN / kind))[0] and len(bad) == (kind == "parquet")
    source = open_pairs("s3://photos/webdataset/{00000..00001}.tar")
    s3.pipe_file("photos/webdataset/00001.tar", b"short")
    (reason,) = loaded(source)[1].values()
    assert "cut short" in reason and "\n" not in reason
    with pytest.raises(DatasetError, match="nothing at s3://nowhere/x"):
        open_pairs("s3://nowhere/x")


def test_several_folders_of_shards_are_one_source(tmp_path):
    for number, name in enumerate(("gcc", "yfcc")):
        (tmp_path / name).mkdir()
        shard(tmp_path / name / "0.tar", 2, first=2 * number)
        (tmp_path / name / "0.parquet").write_bytes(b"notes")
    expected = (pairs(4), {})
    assert loaded(open_pairs(f"{tmp_path}/{{gcc,yfcc}}")) == expected
    assert loaded(open_pairs(f"{tmp_path}/{{gcc,yfcc}}/{{0..0}}.tar")) == expected
    assert loaded(open_pairs([tmp_path / "gcc", tmp_path / "yfcc"])) == expected
    for kind in ("files", "parquet"):
        good, _ = loaded(open_pairs([GOLDEN / kind, GOLDEN / kind]))
        assert good == 2 * loaded(open_pairs(GOLDEN / kind))[0]
    (tmp_path / "gcc" / "0.tar").rename(tmp_path / "0.tar")
    for paths in (
        [tmp_path / "yfcc", GOLDEN / "files"],
        [tmp_path / "yfcc", tmp_path / "0.tar"],
        [folder(tmp_path / "f", 1), tmp_path / "f"],
    ):
        with pytest.raises(DatasetError, match="several of shards of one kind, got 2: "):
            open_pairs(paths)


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DatasetError, match=r"cannot be read: Permission denied\."):
        open_pairs(tmp_path)


@pytest.mark.parametrize("kind", ["webdataset", "parquet", "files"])
def test_records_are_counted_as_they_are_read_or_by_the_notes_of_img2dataset(kind, monkeypatch):
    source = open_pairs(GOLDEN / kind)
    count = len(names(source))
    assert count_records(source) == count == (4 if kind == "parquet" else 3)
    for part in split(source, 0.4):
        assert count_records(part) == len(names(part))
    monkeypatch.setattr(type(source), "read", lambda *_: iter("x"))
    assert count_records(source) == (3 if kind == "webdataset" else 2)  # of one a shard


def test_notes_that_say_nothing_are_passed_over(tmp_path):
    for number, text in enumerate(('{"successes": "3"}', "[]", "{", '{"successes": true}')):
        shard(tmp_path / f"{number}.tar", 2)
        (tmp_path / f"{number}_stats.json").write_text(text)
    assert count_records(open_pairs(tmp_path)) == 8
