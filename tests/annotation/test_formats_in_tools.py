"""What tools of annotation read from the files is what the records hold.

The tools hold pandas back: ``scripts/test --formats`` runs this in an environment of its own, and
elsewhere it is skipped.
"""

import io
import json

import numpy as np
import pytest
from annotated import NAMES, drawn_records, exact, expected, record, scene_records
from drawn import blobs, filled, iou
from PIL import Image

from tf_groupvit.annotation.format_parts import Description
from tf_groupvit.annotation.formats import write_format
from tf_groupvit.storage import Output

for module in ("datumaro", "supervision", "labelme", "label_studio_converter", "cv2"):
    pytest.importorskip(module, reason=f"{module} is not installed: scripts/test --formats")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the tools

SCENE_NAMES = ["apple", "star", "grass", "sky"]
PLAIN = ["grass", "ein roter Wagen", "空", "sky"]  # what every tool takes for a name


@pytest.fixture
def written(tmp_path):
    """The folder of a format's files, and a folder "images" in it, where most tools look."""

    def write(name, records, about):
        pictures = {}
        for one in records:
            content = io.BytesIO()
            Image.new("RGB", (one.width or 1, one.height or 1)).save(content, "PNG")
            pictures[one.id] = content.getvalue()
        write_format(name, records, about, Output(tmp_path), pictures.__getitem__)
        for item_id, picture in pictures.items():
            Output(tmp_path / name).write(f"images/{item_id}", picture)
        return tmp_path / name

    return write


@pytest.fixture(params=["drawn", "scenes"])
def some(request):
    """Records, and their class names."""
    if request.param == "drawn":
        return drawn_records(PLAIN), PLAIN
    return scene_records(request.getfixturevalue("segmenter")), SCENE_NAMES


def painted(annotations, size, number_of):
    """The class number of each pixel of datumaro's masks and polygons; 255 where there is none."""
    labels = np.full(size, 255, np.uint8)
    for one in annotations:
        if one.label not in number_of or one.type.name == "bbox":
            continue  # VOC's name for pixels of no class, or a box around a mask
        if one.type.name == "polygon":
            mask = filled([np.reshape(one.points, (-1, 2))], *size)
        else:
            mask = np.asarray(one.image).astype(bool)
        labels[mask] = number_of[one.label]
    return labels


def read_by_datumaro(path, kind, names):
    """The label map of each picture, by id without a suffix."""
    from datumaro import Dataset

    found = Dataset.import_from(str(path), kind)
    listed = [one.name for one in found.categories()[_label_kind()].items]
    number_of = {place: names.index(name) for place, name in enumerate(listed) if name in names}
    assert set(number_of.values()) == set(range(len(names)))
    return {
        item.id: painted(
            item.annotations, item.media.size or item.annotations[0].image.shape, number_of
        )
        for item in found
    }


def _label_kind():
    from datumaro import AnnotationType

    return AnnotationType.label


def stems(maps):
    return {name.rpartition(".")[0]: labels for name, labels in maps.items()}


def same(maps, others):
    assert maps.keys() == others.keys()
    return all(np.array_equal(maps[name], others[name]) for name in maps)


def test_datumaro_reads_coco_run_lengths(written, some):
    records, names = some
    file = written("coco", records, Description(names)) / "annotations/instances_default.json"
    assert same(read_by_datumaro(file, "coco_instances", names), stems(expected(records, names)))


def test_datumaro_reads_coco_polygons(written, some):
    records, names = some
    file = written("coco-polygons", records, exact(names)) / "annotations/instances_default.json"
    assert same(read_by_datumaro(file, "coco_instances", names), stems(expected(records, names)))


def test_datumaro_reads_panoptic_pictures(written, some):
    records, names = some
    file = (
        written("coco-panoptic", records, Description(names)) / "annotations/panoptic_default.json"
    )
    assert same(read_by_datumaro(file, "coco_panoptic", names), stems(expected(records, names)))


def test_datumaro_reads_voc(written, some):
    records, names = some
    folder = written("voc", records, Description(names))
    assert same(
        read_by_datumaro(folder, "voc_segmentation", names), stems(expected(records, names))
    )


def test_datumaro_reads_cvat(written, some):
    records, names = some
    file = written("cvat", records, exact(names)) / "annotations.xml"
    assert same(read_by_datumaro(file, "cvat", names), stems(expected(records, names)))


def test_opencv_reads_png_as_numbers(written):
    import cv2

    for count in (4, 300):
        names = [str(number) for number in range(count)]
        labels = np.arange(12 * 40).reshape(12, 40) % count
        folder = written("png", [record(f"{count}.jpg", labels, names)], Description(names))
        read = cv2.imread(str(folder / "masks" / f"{count}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(read, labels)


def near(detections, labels, number_of=lambda number: number):
    """The lowest IoU of the tool's masks, by class, with the labels; tools draw outlines, too."""
    lowest = 1.0
    for number in np.unique(detections.class_id):
        mask = detections.mask[detections.class_id == number].any(axis=0)
        lowest = min(lowest, iou(mask, labels == number_of(number)))
    return lowest


def flat_records(names):
    """Large regions, in one folder, as supervision has them."""
    return [
        record(f"{seed}.png", blobs(seed, 200, 240, len(names), 80), names) for seed in range(3)
    ]


def test_supervision_reads_coco_run_lengths(written):
    import supervision

    records = flat_records(PLAIN)
    folder = written("coco", records, Description(PLAIN))
    found = supervision.DetectionDataset.from_coco(
        str(folder / "images"), str(folder / "annotations/instances_default.json"), force_masks=True
    )
    assert found.classes == PLAIN
    for (path, _, detections), labels in zip(found, expected(records, PLAIN).values(), strict=True):
        assert near(detections, labels) == 1, path


def test_supervision_reads_yolo(written):
    import supervision

    records = flat_records(PLAIN)
    folder = written("yolo", records, Description(PLAIN))
    found = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), force_masks=True
    )
    assert found.classes == PLAIN
    for path, _, detections in found:
        labels = expected(records, PLAIN)[path.rpartition("/")[2]]
        assert near(detections, labels) > 0.93


def test_labelme_opens_its_files_and_draws_the_labels(written):
    from labelme import LabelFile
    from labelme.utils import shapes_to_label

    names = NAMES
    records = flat_records(names)
    folder = written("labelme", records, Description(names))
    for item_id, labels in expected(records, names).items():
        opened = LabelFile(str((folder / item_id).with_suffix(".json")))
        numbers = {"_background_": 0} | {name: number + 1 for number, name in enumerate(names)}
        drawn, _ = shapes_to_label(labels.shape, opened.shapes, numbers)
        assert np.mean(drawn - 1 == labels) > 0.97


def test_label_studio_converter_has_the_same_brushes(written):
    from label_studio_converter.brush import decode_rle, mask2rle

    records = drawn_records()
    folder = written("label-studio-brush", records, Description(NAMES))
    tasks = json.loads((folder / "tasks.json").read_text())
    for task, labels in zip(tasks, expected(records).values(), strict=True):
        for one in task["predictions"][0]["result"]:
            mask = labels == NAMES.index(one["value"]["brushlabels"][0])
            assert one["value"]["rle"] == mask2rle(mask.astype(np.uint8) * 255)
            values = decode_rle(one["value"]["rle"]).reshape(*labels.shape, 4)
            assert np.array_equal(values[..., 3] == 255, mask)


def test_label_studio_converter_reads_the_polygons(written):
    from label_studio_converter import Converter

    records = flat_records(NAMES)
    folder = written("label-studio", records, exact())
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks):  # as when a person accepts the prediction
        task |= {"id": number, "annotations": [{"id": number, **task["predictions"][0]}]}
    (folder / "accepted.json").write_text(json.dumps(tasks))
    converter = Converter(
        (folder / "label_config.xml").read_text(), str(folder), download_resources=False
    )
    converter.convert_to_coco(str(folder / "accepted.json"), str(folder / "out"), is_dir=False)
    coco = json.loads((folder / "out/result.json").read_text())
    listed = {one["id"]: NAMES.index(one["name"]) for one in coco["categories"]}
    maps = [np.full((200, 240), 255, np.uint8) for _ in records]
    for one in coco["annotations"]:
        points = np.reshape(one["segmentation"][0], (-1, 2)).round(3)
        maps[one["image_id"]][filled([points], 200, 240)] = listed[one["category_id"]]
    assert all(map(np.array_equal, maps, expected(records).values()))
