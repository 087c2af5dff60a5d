"""Each format of training pairs: the same pairs come back, and what is broken is told by name."""

import json

import pytest
from pairs import folder, pairs, picture, shard, write_tar

from tf_groupvit.errors import DatasetError
from tf_groupvit.evaluation.scene_dataset import write_scenes
from tf_groupvit.evaluation.scenes import scenes
from tf_groupvit.training.records import open_pairs
from tf_groupvit.training.records_tfrecord import write_tfrecord


def loaded(source) -> tuple[list[tuple[bytes, str]], dict[str, str]]:
    """All pairs of a source, and the reason why by the name of what could not be loaded."""
    good, bad = [], {}
    for one in source.shards:
        for record in source.read(one):
            try:
                good.append(record.load())
            except DatasetError as error:
                bad[record.name] = str(error)
    return good, bad


def test_webdataset_shards_give_their_pairs_in_order(tmp_path):
    shard(tmp_path / "00000.tar", 3), shard(tmp_path / "00001.tar", 2, first=3)
    (tmp_path / "00000_stats.json").write_text("{}")
    for paths in (tmp_path, f"{tmp_path}/{{00000..00001}}.tar", f"{tmp_path}/*.tar"):
        assert loaded(open_pairs(paths)) == (pairs(5), {})


def test_a_caption_may_stand_in_json_alone_and_keys_may_lie_in_folders(tmp_path):
    members = {"a.b/1.x.json": b"{}", "a.b/1.jpg": b"image", "a.b/1.json": json.dumps({"caption": "é"}).encode()}
    assert loaded(open_pairs(write_tar(tmp_path / "s.tar", members))) == ([(b"image", "é")], {})


def test_what_a_webdataset_record_lacks_is_told(tmp_path):
    members = {"1.jpg": b"image", "2.txt": b"text", "3.jpg": b"i", "3.json": b'{"url": ""}', "4.jpg": b"i"}
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
    """Of a pair's 3,072 bytes, the picture has the first 1,024, and the caption ends 9 bytes behind its header."""
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
    read = [tf.io.parse_single_example(e, spec) for e in tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord"))]
    assert [(r["image"].numpy(), r["caption"].numpy().decode()) for r in read] == pairs(2)


def test_tfrecord_files_of_img2dataset_are_read_and_others_refused_by_name(tmp_path):
    import tensorflow as tf

    def example(**features):
        bytes_list = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in features.items()}
        return tf.train.Example(features=tf.train.Features(feature=bytes_list)).SerializeToString()

    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for data in (example(jpg=b"i", txt=b"t", key=b"1"), example(pixels=b"i", caption=b"t"), b"\xff"):
            writer.write(data)
    good, bad = loaded(open_pairs(path))
    assert good == [(b"i", "t")]
    assert ["image, jpg" in reason or "no tf.train.Example" in reason for reason in bad.values()] == [True, True]


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
            '{"file_name": "a.png", "text": "one, and \\"two\\""}\n{"path": "b.png", "caption": "three"}',
        ),
        ("captions.txt", 'one, and "two"\nthree\n'),
        ("captions.txt", 'image,caption\na.png,"one, and ""two"""\nb.png,three'),
    ],
)
def test_captions_files_in_every_form(tmp_path, name, text):
    for number, image in enumerate(("a.png", "b.png")):
        (tmp_path / image).write_bytes(picture(number))
    (tmp_path / name).write_text(text, encoding="utf-8")
    expected = [(picture(0), 'one, and "two"'), (picture(1), "three")]
    assert loaded(open_pairs(tmp_path)) == loaded(open_pairs(tmp_path / name)) == (expected, {})


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
        ("captions.jsonl", "{}\n", "line 1: expected JSON"),
        ("captions.txt", "x\ny\n", "2 captions for 1 images"),
        ("captions.doc", "x", "kind csv"),
    ],
)
def test_a_captions_file_that_does_not_fit_is_refused_before_work_starts(tmp_path, name, text, words):
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
    ):
        with pytest.raises(DatasetError, match=words):
            open_pairs(paths)
    shard(tmp_path / "a.tar", 1), write_tfrecord(tmp_path / "a.tfrecord", pairs(1))
    with pytest.raises(DatasetError, match="one kind"):
        open_pairs(tmp_path)


def test_an_image_that_vanishes_during_training_is_told_by_name(tmp_path):
    source = open_pairs(folder(tmp_path / "f", 2))
    (tmp_path / "f" / "images" / "00000.png").unlink()
    good, bad = loaded(source)
    assert len(good) == 1 and [name[-9:] for name in bad] == ["00000.png"]
