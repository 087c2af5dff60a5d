"""COCO: regions as run lengths or polygons, and panoptic pictures.

The format is described at https://cocodataset.org/#format-data. The number of a category is that of
its class plus one, because categories begin with 1.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from tf_groupvit.annotation.format_parts import (
    CLASSES,
    REGIONS,
    Description,
    JsonItems,
    Pictures,
    named,
    scores_of,
    to_json,
)
from tf_groupvit.annotation.polygons import bridged, component_map
from tf_groupvit.annotation.records import Record, masks_of
from tf_groupvit.segmentation.image_encoding import png
from tf_groupvit.storage import Output

# Tools know what is in a file by its folder and the first part of its name.
INSTANCES = "annotations/instances_default.json"
PANOPTIC = "annotations/panoptic_default.json"


def write_coco(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """``annotations/instances_default.json``: each region as compressed run lengths, exactly."""
    _write(records, about, output, lambda record, _: _masks(record, about), about.drawn)


def write_coco_polygons(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """``annotations/instances_default.json``: each region as one polygon, holes bridged."""
    _write(records, about, output, lambda record, _: _polygons(record, about), about.drawn)


def write_coco_panoptic(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """``annotations/panoptic_default.json``, and beside it a folder with a PNG for each picture.

    Each class is one segment, as stuff. Pixels of no class are 0, COCO's void.
    """
    everything = list(range(len(about.class_names)))

    def segments(record: Record, name: str) -> Iterator[dict[str, Any]]:
        ids = np.zeros((record.height, record.width), np.uint32)
        found = []
        for number, mask in masks_of(record):
            ids[mask] = number + 1
            rle = coco.encode(np.asfortranarray(mask.view(np.uint8)))
            found.append({"id": number + 1, "category_id": number + 1, **_measures(rle)})
        colors = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        output.write(f"annotations/panoptic_default/{name}.png", png(Image.fromarray(colors)))
        yield {"file_name": f"{name}.png", "segments_info": found}

    _write(records, about, output, segments, everything, PANOPTIC)


def _write(
    records: Iterable[Record],
    about: Description,
    output: Output,
    annotations_of: Any,
    numbers: list[int],
    file_name: str = INSTANCES,
) -> None:
    head = {
        "info": {
            "description": CLASSES if file_name == PANOPTIC else REGIONS,
            "version": "1.0",
            "contributor": about.model,
            "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "licenses": [],
        "categories": [_category(about, number, file_name) for number in numbers],
    }
    # Annotations are written as they come; the shorter list of pictures waits in another file.
    with output.stream(file_name) as file, tempfile.TemporaryFile() as waiting:
        file.write(to_json(head)[:-1] + b', "annotations": [')
        annotations, images = JsonItems(file), JsonItems(waiting)
        count = 0
        for image_id, (record, name) in enumerate(named(records), 1):
            size = {"height": record.height, "width": record.width}
            images.add({"id": image_id, "file_name": record.id, **size})
            for annotation in annotations_of(record, name):
                count += 1
                own = {} if "segments_info" in annotation else {"id": count}
                annotations.add({**own, "image_id": image_id, **annotation})
        file.write(b'\n], "images": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file)
        file.write(b"\n]}\n")


def _category(about: Description, number: int, file_name: str) -> dict[str, Any]:
    category = {"id": number + 1, "name": about.class_names[number], "supercategory": ""}
    if file_name == PANOPTIC:
        category |= {"isthing": 0, "color": about.colors[number]}
    return category


def _masks(record: Record, about: Description) -> Iterator[dict[str, Any]]:
    numbers, classes = component_map(about.labels(record))
    scores = scores_of(record)
    for number, rle in zip(classes.tolist(), _run_lengths(numbers, len(classes)), strict=True):
        if number in about.drawn:
            yield {
                "category_id": number + 1,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                **_measures(rle),
                "score": scores[number],
            }


def _measures(rle: Any) -> dict[str, Any]:
    box = [int(value) for value in coco.toBbox(rle)]
    return {"area": int(coco.area(rle)), "bbox": box, "iscrowd": 0}


def _run_lengths(numbers: np.ndarray, count: int) -> Iterator[Any]:
    """COCO's compressed run lengths of the regions 0 to ``count`` - 1 of a map (H, W)."""
    height, width = numbers.shape
    flat = numbers.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    places = np.searchsorted(flat[starts][order], np.arange(count + 1))
    for first, last in pairwise(places):
        runs = order[first:last]
        changes = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        counts = np.diff(changes, prepend=0, append=flat.size).tolist()
        yield coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _polygons(record: Record, about: Description) -> Iterator[dict[str, Any]]:
    scores = scores_of(record)
    for region in about.regions(record):
        if region.label in about.drawn:
            yield {
                "category_id": region.label + 1,
                "segmentation": [bridged(region.rings).round(2).ravel().tolist()],
                "area": region.area,
                "bbox": list(region.box),
                "iscrowd": 0,
                "score": scores[region.label],
            }
