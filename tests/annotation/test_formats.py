"""Formats: what pycocotools, Pillow, TensorFlow and plain parsers read is what the records hold."""

import io
import json
import re
import tracemalloc
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import yaml
from annotated import NAMES, drawn_records, exact, expected, record, scene_records
from drawn import blobs, filled, iou, outline
from PIL import Image
from pycocotools.coco import COCO

from tf_groupvit.annotation.format_parts import Description, named
from tf_groupvit.annotation.formats import FORMATS, check_format, write_format
from tf_groupvit.annotation.polygon_files import brush_runs
from tf_groupvit.annotation.records import Record
from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.datasets import OwnMaskDataset
from tf_groupvit.storage import Output

INSTANCES = "annotations/instances_default.json"
SCENE_NAMES = ["apple", "star", "grass", "sky"]


@pytest.fixture
def written(tmp_path):
    """written(name, records, about, pictures): the folder of a format's files."""

    def write(name, records, about=None, pictures=None) -> Path:
        about = Description(NAMES) if about is None else about
        write_format(name, iter(records), about, Output(tmp_path), pictures)
        return tmp_path / name

    return write


def opened(file: Path) -> COCO:
    found = COCO()
    found.dataset = json.loads(file.read_text(encoding="utf-8"))
    found.createIndex()
    return found


def maps_of(found: COCO) -> dict[str, np.ndarray]:
    """The class number of each pixel, by the file's own categories; 255 where there is none."""
    maps = {}
    for image in found.dataset["images"]:
        labels = np.full((image["height"], image["width"]), 255, np.uint8)
        for one in found.loadAnns(found.getAnnIds(imgIds=[image["id"]])):
            labels[found.annToMask(one).astype(bool)] = one["category_id"] - 1
        maps[image["file_name"]] = labels
    return maps


def same(maps, others):
    assert maps.keys() == others.keys()
    return all(np.array_equal(maps[name], others[name]) for name in maps)


def test_coco_run_lengths_are_the_labels(written, capsys):
    records = drawn_records()
    found = opened(written("coco", records) / INSTANCES)
    assert same(maps_of(found), expected(records))
    assert [one["name"] for one in found.dataset["categories"]] == NAMES
    for one in found.dataset["annotations"]:
        mask = found.annToMask(one)
        y, x = np.nonzero(mask)
        assert one["area"] == mask.sum()
        assert one["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
    assert len({one["id"] for one in found.dataset["annotations"]}) == len(found.anns)
    assert "not an object" in found.dataset["info"]["description"]


def test_coco_run_lengths_are_the_labels_of_real_results(written, segmenter):
    records = scene_records(segmenter)
    found = opened(written("coco", records, Description(SCENE_NAMES)) / INSTANCES)
    assert same(maps_of(found), expected(records, SCENE_NAMES))


def test_each_coco_annotation_is_one_connected_region(written):
    found = opened(written("coco", [record("x", np.eye(5, dtype=int))]) / INSTANCES)
    ones = [one for one in found.dataset["annotations"] if one["category_id"] == 2]
    assert [one["area"] for one in ones] == [1] * 5


def test_coco_polygons_without_tolerance_are_the_labels(written):
    records = drawn_records()
    folder = written("coco-polygons", records, exact())
    assert same(maps_of(opened(folder / INSTANCES)), expected(records))


def test_coco_polygons_are_near_the_labels(written, segmenter):
    large = [record(f"{n}.jpg", blobs(n, 200, 220, 3, 60), SCENE_NAMES) for n in range(2)]
    records = [*scene_records(segmenter), *large]
    about = Description(SCENE_NAMES)
    near = opened(written("coco-polygons", records, about) / INSTANCES)
    true = opened(written("coco", records, about) / INSTANCES)
    regions = {_key(one): true.annToMask(one).astype(bool) for one in true.dataset["annotations"]}
    measured = 0
    for one in near.dataset["annotations"]:
        mask = regions[_key(one)]
        if one["area"] > 4 * outline(mask):
            measured += 1
            assert iou(near.annToMask(one).astype(bool), mask) > 0.98
    assert measured > 10


def _key(annotation):
    return *annotation["bbox"], annotation["image_id"], annotation["category_id"]


def test_panoptic_pictures_are_the_labels(written):
    records = drawn_records()
    folder = written("coco-panoptic", records)
    content = json.loads((folder / "annotations/panoptic_default.json").read_text())
    names = {one["id"]: one["file_name"] for one in content["images"]}
    assert {one["isthing"] for one in content["categories"]} == {0}
    maps = {}
    for one in content["annotations"]:
        rgb = np.asarray(
            Image.open(folder / "annotations/panoptic_default" / one["file_name"])
        ).astype(int)
        ids = rgb @ [1, 256, 65536]
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in one["segments_info"]}
        labels = np.full(ids.shape, 255, np.uint8)
        for segment in one["segments_info"]:
            assert segment["area"] == (ids == segment["id"]).sum()
            labels[ids == segment["id"]] = segment["category_id"] - 1
        maps[names[one["image_id"]]] = labels
    assert same(maps, expected(records))


@pytest.mark.parametrize(("count", "kind"), [(255, np.uint8), (256, np.uint16), (300, np.uint16)])
def test_png_reads_as_numbers_in_pillow_and_tensorflow(written, count, kind):
    import tensorflow as tf

    names = [f"class {number}" for number in range(count)]
    labels = np.arange(600).reshape(20, 30) % count
    ignored = labels == 7
    folder = written("png", [record("a.jpg", labels, names, ignored)], Description(names))
    wanted = np.where(ignored, np.iinfo(kind).max, labels)
    content = (folder / "masks" / "a.png").read_bytes()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), wanted)
    read = tf.io.decode_png(content, channels=1, dtype=tf.as_dtype(kind))
    assert np.array_equal(read[..., 0], wanted)
    table = json.loads((folder / "classes.json").read_text())
    assert table["ignore"] == np.iinfo(kind).max
    assert [one["name"] for one in table["classes"]] == names


def test_voc_has_class_numbers_as_palette_entries_and_255_as_void(written):
    names = ["grass", "ein Tier", "空", "sky"]
    records = drawn_records(names)
    folder = written("voc", records, Description(names))
    listed = (folder / "ImageSets/Segmentation/train.txt").read_text(encoding="utf-8").splitlines()
    pictures = [Image.open(folder / "SegmentationClass" / f"{name}.png") for name in listed]
    assert {picture.mode for picture in pictures} == {"P"}
    maps = dict(zip(expected(records, names), map(np.asarray, pictures), strict=True))
    assert same(maps, expected(records, names))
    lines = (folder / "labelmap.txt").read_text(encoding="utf-8").splitlines()
    palette = np.reshape(pictures[0].getpalette(), (-1, 3))
    assert lines == [
        f"{name}:{','.join(map(str, color))}::"
        for name, color in zip([*names, "ignored"], [*palette[:4], palette[255]], strict=True)
    ]
    assert palette[255].tolist() == [224, 224, 192]


def test_labelme_shapes_without_tolerance_are_the_labels(written):
    records = drawn_records()
    folder = written("labelme", records, exact())
    for (item_id, labels), file in zip(
        expected(records).items(), sorted(folder.rglob("*.json")), strict=True
    ):
        content = json.loads(file.read_text(encoding="utf-8"))
        assert (content["imageHeight"], content["imageWidth"]) == labels.shape
        assert content["imagePath"] == item_id.rpartition("/")[2] and content["imageData"] is None
        found = np.zeros_like(labels)
        for shape in content["shapes"]:
            number = {"__ignore__": 255}.get(shape["label"])
            number = NAMES.index(shape["label"]) if number is None else number
            found[filled([np.array(shape["points"])], *labels.shape)] = number
        assert np.array_equal(found, labels)


def test_cvat_shapes_without_tolerance_are_the_labels(written):
    records = drawn_records()
    root = ElementTree.parse(written("cvat", records, exact()) / "annotations.xml").getroot()
    assert [one.text for one in root.iter("name")] == NAMES
    maps, masks = {}, 0
    for image in root.iter("image"):
        found = np.full((int(image.get("height")), int(image.get("width"))), 255, np.uint8)
        for shape in image:
            number = NAMES.index(shape.get("label"))
            if shape.tag == "polygon":
                points = [p.split(",") for p in shape.get("points").split(";")]
                found[filled([np.array(points, float)], *found.shape)] = number
            else:
                masks += 1
                left, top, width, height = (
                    int(shape.get(key)) for key in ("left", "top", "width", "height")
                )
                counts = [int(count) for count in shape.get("rle").split(",")]
                runs = np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width)
                found[top : top + height, left : left + width][runs == 1] = number
        maps[image.get("name")] = found
    assert same(maps, expected(records)) and masks > 2


def test_yolo_lines_without_tolerance_are_the_labels(written):
    records = drawn_records()
    folder = written("yolo", records, exact())
    names = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))["names"]
    assert list(names.values()) == NAMES
    for item_id, labels in expected(records).items():
        found = np.full_like(labels, 255)
        file = folder / "labels" / Path(item_id).with_suffix(".txt")
        for line in file.read_text().splitlines():
            number, *flat = line.split()
            points = np.reshape(np.array(flat, float), (-1, 2)) * labels.shape[::-1]
            found[filled([points.round(3)], *labels.shape)] = int(number)
        assert np.array_equal(found, labels)


def test_label_studio_polygons_without_tolerance_are_the_labels(written):
    records = drawn_records()
    folder = written("label-studio", records, exact())
    config = ElementTree.parse(folder / "label_config.xml").getroot()
    assert [one.get("value") for one in config.iter("Label")] == NAMES
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    assert tasks[-1]["data"] == {"image": "/data/local-files/?d=b/%C3%A4%200.jpg"}
    for task, labels in zip(tasks, expected(records).values(), strict=True):
        found = np.full_like(labels, 255)
        (prediction,) = task["predictions"]
        assert prediction["score"] == pytest.approx(1, abs=1)
        for one in prediction["result"]:
            height, width = one["original_height"], one["original_width"]
            points = np.array(one["value"]["points"]) * (width, height) / 100
            (name,) = one["value"]["polygonlabels"]
            found[filled([points.round(3)], height, width)] = NAMES.index(name)
        assert np.array_equal(found, labels)


def unpacked(rle: list[int]) -> list[int]:
    """The values of rle-pack, as its page says: https://thi.ng/umbrella, packages/rle-pack."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    assert bits[32:37] == f"{7:05b}"  # 8 bits a value
    sizes = [int(bits[place : place + 4], 2) + 1 for place in range(37, 53, 4)]
    values, at = [], 53
    while len(values) < int(bits[:32], 2):
        size = sizes[int(bits[at + 1 : at + 3], 2)]
        assert bits[at] == "1"
        length = int(bits[at + 3 : at + 3 + size], 2) + 1
        at += 3 + size
        values += length * [int(bits[at : at + 8], 2)]
        at += 8
    assert not int(bits[at:], 2)
    return values


def test_label_studio_brushes_are_the_labels(written):
    assert brush_runs(np.array([[0, 1], [1, 1]], bool)) == [
        0,
        0,
        0,
        16,
        57,
        27,
        252,
        96,
        22,
        255,
        192,
    ]
    records = [*drawn_records(), record("full.png", np.full((150, 150), 2, np.uint8))]
    folder = written("label-studio-brush", records)
    config = ElementTree.parse(folder / "label_config.xml").getroot()
    assert [one.get("value") for one in config.find("BrushLabels")] == NAMES
    assert "Each class of a picture is one region" in (folder / "label_config.xml").read_text()
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    for task, labels in zip(tasks, expected(records).values(), strict=True):
        found = np.full_like(labels, 255)
        for one in task["predictions"][0]["result"]:
            assert one["type"] == "brushlabels" and one["value"]["format"] == "rle"
            values = np.reshape(unpacked(one["value"]["rle"]), (*labels.shape, 4))
            assert set(np.unique(values)) <= {0, 255} and (values == values[..., :1]).all()
            (name,) = one["value"]["brushlabels"]
            found[values[..., 3] == 255] = NAMES.index(name)
        assert np.array_equal(found, labels)


def test_a_class_called_background_has_no_regions_but_a_number(written):
    names = ["background", "cat"]
    records = [record("x.jpg", blobs(1, 40, 40, 2, 20), names)]
    about = Description(names)
    coco = json.loads((written("coco", records, about) / INSTANCES).read_text())
    assert [(one["id"], one["name"]) for one in coco["categories"]] == [(2, "cat")]
    assert {one["category_id"] for one in coco["annotations"]} == {2}
    yolo = written("yolo", records, about)
    assert yaml.safe_load((yolo / "data.yaml").read_text())["names"] == {0: "cat"}
    assert {line[0] for line in (yolo / "labels/x.txt").read_text().splitlines()} == {"0"}
    labels = np.asarray(Image.open(written("voc", records, about) / "SegmentationClass/x.png"))
    assert set(np.unique(labels)) == {0, 1}


def test_pictures_are_copied_beside_where_formats_have_them(written):
    records, wanted = drawn_records(), {"voc": "JPEGImages", "yolo": "images", "labelme": "."}
    assert {name for name, one in FORMATS.items() if one.takes_pictures} == wanted.keys()
    names = ["a", "b", "c", "d"]
    for name, folder in wanted.items():
        made = written(name, records, Description(names), lambda item_id: item_id.encode())
        assert (made / folder / "a/3.jpg").read_bytes() == b"a/3.jpg"


def test_labelme_names_the_picture_that_is_there_or_its_copy(written):
    """Two pictures have one stem: the second file has another name than its picture."""
    records = [record(one, np.zeros((20, 20), int)) for one in ("b.jpg", "b.png")]

    def named_in(folder):
        return [
            json.loads((folder / f"{one}.json").read_text())["imagePath"] for one in ("b", "b-png")
        ]

    assert named_in(written("labelme", records)) == ["b.jpg", "b.png"]
    assert named_in(written("labelme", records, None, str.encode)) == ["b.jpg", "b-png.png"]


@pytest.mark.parametrize("name", ["coco", "coco-polygons", "label-studio"])
def test_a_score_that_is_no_number_is_left_out_or_null(written, name):
    one = record("a.jpg", np.zeros((20, 20), int))
    odd = Record(**{**vars(one), "scores": [float("nan")], "confidence": float("nan")})
    for file in written(name, [odd]).rglob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


# Names of files


def names_of(*ids):
    return [name for _, name in named(Record(one) for one in ids)]


def test_files_are_called_as_the_pictures():
    assert names_of("a/b.jpg", "b.jpg", "c", "d.tar/e.png") == ["a/b", "b", "c", "d.tar/e"]


def test_pictures_of_one_name_get_files_of_their_own():
    assert names_of("b.jpg", "b.png", "B.JPG", "b-png.jpg")[:2] == ["b", "b-png"]
    assert (
        len({name.lower() for name in names_of("b.jpg", "b.png", "B.JPG", "b-png.jpg", "b")}) == 5
    )


ODD = [
    *["../../etc/x.jpg", "/etc/x.jpg", "a/../x.jpg", "./x.jpg", "..", ".", "", "/", "a//x.jpg"],
    *[
        "C:\\x.jpg",
        "con.jpg",
        "a/NUL",
        "x\n.jpg",
        "x .jpg",
        "x. ",
        ".hidden",
        "..jpg",
        "é" * 300 + ".jpg",
    ],
    *["s3://bucket/x.jpg", "http://x/y.jpg?z=1", "-x.jpg", "x.jpg/"],
]


def test_files_of_odd_names_stay_inside_and_differ(written, tmp_path):
    labels = np.zeros((4, 4), int)
    folder = written("png", [record(one, labels) for one in ODD])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["png"]
    files = [path for path in (folder / "masks").rglob("*") if path.is_file()]
    assert len(files) == len(ODD)
    for path in files:
        parts = path.relative_to(folder).parts
        assert not any(part.startswith(".") for part in parts)
        assert all(len(part.encode()) < 200 and part.isprintable() for part in parts)


CLASHES = [["a", "a.png/q", "a.txt/q", "A.json/q", "a/q", "b/q.jpg", "b"], ["x.jpg/q", "x.jpg"]]


@pytest.mark.parametrize("name", ["png", "voc", "yolo", "labelme", "coco-panoptic"])
@pytest.mark.parametrize("ids", [ids[::step] for ids in CLASHES for step in (1, -1)])
def test_no_file_is_called_as_a_folder_is(written, name, ids):
    pictures = str.encode if FORMATS[name].takes_pictures else None
    folder = written(name, [record(one, np.zeros((4, 4), int)) for one in ids], None, pictures)
    files = [path for path in folder.rglob("*") if path.is_file()]
    if pictures is not None:
        assert {one for one in ids if one.encode() in map(Path.read_bytes, files)} == {*ids}
    assert len(files) >= len(ids)


# Refusals


@pytest.mark.parametrize(
    ("name", "names", "words"),
    [
        ("coc", NAMES, "There is no format 'coc': did you mean 'coco'?"),
        ("voc", [str(number) for number in range(256)], "at most 255 classes, and there are 256"),
        ("voc", ["a:b"], "cannot hold the name 'a:b' of class 0"),
        ("voc", ["a", "ignored"], "cannot hold the name 'ignored' of class 1"),
        ("cvat", ["a", "b\x01"], r"cannot hold the name 'b\x01' of class 1"),
        ("yolo", ["a\x7f"], r"cannot hold the name 'a\x7f' of class 0"),
        ("labelme", ["__ignore__"], "cannot hold the name '__ignore__'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_in_one_line(name, names, words):
    with pytest.raises(InputError) as refused:
        check_format(name, Description(names))
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_tolerance_below_zero_is_refused():
    with pytest.raises(InputError, match="tolerance of polygons is -1"):
        check_format("coco", Description(NAMES, tolerance=-1))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_of_nothing_and_to_other_storage(name, memory):
    output = Output(memory)
    write_format(name, iter([]), Description(["cat"]), output)
    write_format(
        name,
        iter([record("a.jpg", np.zeros((2, 2), int))]),
        Description(NAMES),
        output,
    )
    assert (output.names() == [name]) == (name != "parquet")


@pytest.mark.parametrize(
    ("name", "masks"),
    [
        ("coco", INSTANCES),
        ("coco-panoptic", "annotations/panoptic_default.json"),
        ("png", "masks"),
        ("voc", "SegmentationClass"),
    ],
)
def test_what_is_written_may_be_measured_against(written, tmp_path, name, masks):
    records = drawn_records()
    folder = written(name, records)
    for one in records:
        if one.error is None:
            place = tmp_path / "photos" / one.id
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (one.width, one.height)).save(place)
    dataset = OwnMaskDataset(tmp_path / "photos", folder / masks, NAMES)
    assert dataset.unpaired == {} and list(dataset.class_names) == NAMES
    found = {f"{called}.jpg": dataset.labels(k) for k, called in enumerate(dataset.names)}
    assert same(found, expected(records))
    if name == "voc":  # by their colors
        table = folder / "labelmap.txt"
        dataset = OwnMaskDataset(tmp_path / "photos", folder / masks, table=table)
        found = {f"{called}.jpg": dataset.labels(k) for k, called in enumerate(dataset.names)}
        assert list(dataset.class_names) == NAMES and same(found, expected(records))


def test_the_page_has_a_row_for_every_format():
    page = Path(__file__).resolve().parents[2] / "tf_groupvit/annotation/README.md"
    assert re.findall(r"^\| `([a-z-]+)` \|", page.read_text(), re.MULTILINE) == list(FORMATS)


@pytest.mark.parametrize("name", ["coco", "cvat", "label-studio"])
def test_memory_does_not_grow_with_the_number_of_pictures(written, name):
    peaks, labels = [], blobs(0, 24, 24, 4, 8)
    one = record("x", labels)
    for count in (10, 10, 120):
        tracemalloc.start()
        written(name, (Record(**{**vars(one), "id": f"{n}.jpg"}) for n in range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 120_000  # the files have 1.7 kB a picture and more
