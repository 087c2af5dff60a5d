"""Pairs as single files: what downloaders and datasets leave in a folder, missing images included."""

import json
import shutil
import zlib
from pathlib import Path

import pytest
from loaded import loaded
from pairs import folder, pairs, picture

from tf_groupvit.errors import DatasetError
from tf_groupvit.training.caption_sources import open_pairs, outline

GOLDEN = Path(__file__).parents[1] / "golden" / "captions"
GOOD = ["a red apple", 'one, and "two"', "é on a\ttab"]  # of the four that img2dataset was given


@pytest.mark.parametrize("layout", ["files", "webdataset", "parquet"])
def test_what_img2dataset_wrote_is_read_in_each_of_its_layouts(layout):
    good, bad = loaded(open_pairs(GOLDEN / layout))
    assert [caption for _, caption in good] == GOOD
    assert all(image.startswith(b"\x89PNG") for image, _ in good)
    reasons = ["its row has no image: HTTP Error 404: File not found"]
    assert list(bad.values()) == (reasons if layout == "parquet" else [])


def test_images_with_a_txt_or_json_beside_them_need_no_list(tmp_path):
    for number, (image, caption) in enumerate(pairs(2)):
        (tmp_path / f"v1.{number}.PNG").write_bytes(image)
        (tmp_path / f"v1.{number}.txt").write_text(caption)
    (tmp_path / "a.png").write_bytes(picture(7))
    (tmp_path / "a.json").write_text(json.dumps({"caption": ["one", "two"]}))
    for name in ("lone.png", "lost.txt", "stats.json", "._a.png", "notes.md"):
        (tmp_path / name).write_text("x")
    source = open_pairs(tmp_path)
    good, bad = loaded(source)
    assert good == [(picture(7), "one"), (picture(7), "two"), *pairs(2)]
    assert {Path(name).name: reason for name, reason in bad.items()} == {
        "lone": "there is no caption among png",
        "lost": "there is no image among txt",
    }
    assert outline(source)[0] == "6 pairs"


@pytest.mark.parametrize("folder", ["", "images", "Images", "flickr30k_images"])
def test_images_lie_beside_their_list_or_in_a_folder_of_a_known_name(folder, tmp_path):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "1.jpg").write_bytes(picture(1))
    (tmp_path / "results.csv").write_text("image_name| comment_number| comment\n1.jpg| 0|a dog\n")
    assert loaded(open_pairs(tmp_path / "results.csv"))[0] == [(picture(1), "a dog")]


def test_an_outline_tells_names_and_their_order_wherever_they_are(tmp_path):
    def of(*names):
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        folder.mkdir()
        lines = [json.dumps({"image": name, "caption": "a dog"}) for name in names]
        for name in names:
            (folder / name).write_bytes(picture(0))
        (folder / "captions.jsonl").write_text("\n".join(lines))
        return outline(open_pairs(folder))

    one = of("1.png", "2.png")
    assert one == of("1.png", "2.png") and one[0] == "2 pairs"
    others = [of("2.png", "1.png"), of("1.png", "2.png", "3.png"), of("1.png", "3.png")]
    assert len({one, *others}) == 4
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(b"")
        count = outline(open_pairs(sorted(tmp_path.glob("*.tar"))))[0]
    assert count == "2 shards" and outline(open_pairs(tmp_path / "a.tar"))[0] == "1 shard"


def test_pairs_of_a_folder_and_of_those_in_it_are_all_read(tmp_path):
    for name, number in (("1", 1), ("more/2", 2)):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture(number))
        file.with_suffix(".txt").write_text(f"picture {number}")
    (tmp_path / "thumbs").mkdir()
    (tmp_path / "thumbs" / "1.png").write_bytes(picture(1))
    assert loaded(open_pairs(tmp_path)) == (pairs(2, first=1), {})


def coco(path: Path, annotations: list[dict], names=("0.png", "1.png")) -> Path:
    """A file of captions as COCO's are, whose ids are no places in a list."""
    images = [{"id": 90 + k, "file_name": name, "height": 8} for k, name in enumerate(names)]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    return path


@pytest.mark.parametrize("part", [".", "images", "val2017", "../val2017", "../images"])
def test_captions_of_coco_find_their_images_where_coco_has_them(tmp_path, part):
    annotations = [
        {"image_id": 91, "id": 7, "caption": "picture 1"},
        {"image_id": 90, "id": 8, "caption": "picture 0"},
        {"image_id": 91, "id": 9, "caption": "again"},
    ]
    file = coco(tmp_path / "annotations" / "captions_val2017.json", annotations)
    (file.parent / part).mkdir(exist_ok=True)
    for number in range(2):
        (file.parent / part / f"{number}.png").write_bytes(picture(number))
    expected = [(picture(1), "picture 1"), (picture(0), "picture 0"), (picture(1), "again")]
    assert loaded(open_pairs(file)) == loaded(open_pairs(tmp_path)) == (expected, {})
    coco(tmp_path / "annotations" / "captions_train2017.json", annotations)
    with pytest.raises(DatasetError, match=r"several files of captions, captions_train2017\.json,"):
        open_pairs(tmp_path)


def test_json_may_be_a_list_of_images_with_captions(tmp_path):
    entries = [{"image": "0.png", "caption": "a"}, {"image": "1.png", "caption": ["b", "c"]}]
    (tmp_path / "captions.json").write_text(json.dumps(entries))
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    good, bad = loaded(open_pairs(tmp_path))
    assert [caption for _, caption in good] == ["a", "b", "c"] and not bad


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not valid JSON"),
        ("{}", "expected COCO's captions"),
        ('[{"image": "a.png"}]', "entry 1: expected a JSON object with an image and a caption"),
        ('["image, caption"]', "entry 1: expected a JSON object with an image and a caption"),
        ('{"images": [{"id": 1}], "annotations": []}', "'images' with id and file_name"),
        (
            '{"images": [{"id": 5, "file_name": "a"}, {"id": 5, "file_name": "b"}],'
            ' "annotations": [{"image_id": 5, "caption": "x"}]}',
            "two of its 'images' have the same id",
        ),
        (
            '{"images": [], "annotations": [{"image_id": 5, "caption": "x"}]}',
            "annotation 1: its image_id is 5, which 'images' does not have",
        ),
        (
            '{"images": [{"id": 5, "file_name": "a"}], "annotations": [{"image_id": 5}]}',
            r"annotation 1: .*captions_\*\.json, in place of instances",
        ),
    ],
)
def test_json_that_is_no_list_of_captions_is_one_line(tmp_path, content, words):
    (tmp_path / "captions_x.json").write_text(content)
    with pytest.raises(DatasetError, match=words) as caught:
        open_pairs(tmp_path / "captions_x.json")
    assert "\n" not in str(caught.value)


def test_a_file_that_memory_would_not_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tf_groupvit.training.captions_file.LONGEST_JSON", 10)
    (tmp_path / "captions_x.json").write_text("[" + " " * 10 + "]")
    with pytest.raises(DatasetError, match="has 12 bytes, more than 10: split it"):
        open_pairs(tmp_path / "captions_x.json")


ADDRESSES = [f"http://x/{number}?a=é" for number in range(4)]


def test_where_the_images_of_coco_were_looked_for_is_told(tmp_path):
    file = coco(tmp_path / "annotations" / "captions_val.json", [{"image_id": 90, "caption": "x"}])
    where = (
        r"annotations/0\.png\. They were looked for there and in .* images, val, \.\./val, \.\./im"
    )
    with pytest.raises(DatasetError, match=where):
        open_pairs(file)


@pytest.mark.parametrize("order", ["caption first", "address first", "named columns"])
@pytest.mark.parametrize("name", ["{crc}", "{number}_{crc}", "{crc}.jpg"])
def test_conceptual_captions_are_paired_with_what_was_downloaded(tmp_path, order, name):
    (tmp_path / "training").mkdir()
    lines = ["caption\turl"] if order == "named columns" else []
    for number, address in enumerate(ADDRESSES):
        row = [f'" picture {number}', address]
        lines.append("\t".join(reversed(row) if order == "address first" else row))
        if number != 1:
            file = name.format(number=number, crc=zlib.crc32(address.encode()))
            (tmp_path / "training" / file).write_bytes(picture(number))
    if order != "named columns":
        lines.insert(3, "no address")
        lines[3], lines[4] = lines[4], lines[3]
    else:
        lines = [line.replace('" ', "") for line in lines]
    (tmp_path / "Train_GCC-training.tsv").write_text("\r\n".join(lines) + "\r\n")
    source = open_pairs(tmp_path)
    good, bad = loaded(source)
    mark = "" if order == "named columns" else '" '
    assert good == [(picture(k), f"{mark}picture {k}") for k in (0, 2, 3)]
    reasons = [reason for _, reason in sorted(bad.items())]
    assert reasons[0] == "its image was not downloaded"
    assert (order == "named columns") == (len(reasons) == 1)
    assert all("with a tab between" in reason for reason in reasons[1:])
    shutil.rmtree(tmp_path / "training")
    with pytest.raises(DatasetError, match=r"none of its first 4 images .* training/\d+ \(the CRC"):
        open_pairs(tmp_path)


def test_downloads_are_looked_for_by_the_numbers_of_their_lines(tmp_path):
    lines = [f"first\t{ADDRESSES[0]}", "no address", f"picture 2\t{ADDRESSES[2]}"]
    (tmp_path / "gcc.tsv").write_text("\n".join(lines))
    (tmp_path / f"2_{zlib.crc32(ADDRESSES[2].encode())}").write_bytes(picture(2))
    good, bad = loaded(open_pairs(tmp_path / "gcc.tsv"))
    assert good == [(picture(2), "picture 2")] and len(bad) == 2


def test_several_tables_in_a_folder_are_not_chosen_from(tmp_path):
    for name in ("a.csv", "b.jsonl", "c.json"):
        shutil.copy(folder(tmp_path / name[0], 1) / "captions.csv", tmp_path / name)
    with pytest.raises(DatasetError, match=r"several files of captions, a\.csv, b\.jsonl \.\.\."):
        open_pairs(tmp_path)
