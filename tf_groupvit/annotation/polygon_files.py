"""Polygons for tools that people label with: LabelMe, CVAT, YOLO and Label Studio."""

import json
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from tf_groupvit.annotation.format_parts import (
    REGIONS,
    Description,
    JsonItems,
    Pictures,
    named,
    put_picture,
    to_json,
)
from tf_groupvit.annotation.polygons import Region, bridged, component_map
from tf_groupvit.annotation.records import Record
from tf_groupvit.storage import Output

IGNORED = "__ignore__"  # LabelMe's label of pixels that do not count


def write_labelme(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """A JSON file a picture, which belongs beside the picture. Holes are bridged."""
    for record, name in named(records):
        file = put_picture(output, "", record, name, pictures)
        shapes = [
            {
                "label": IGNORED
                if region.label == about.ignore
                else about.class_names[region.label],
                "points": bridged(region.rings).round(2).tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for region in about.regions(record)
            if region.label in about.drawn or region.label == about.ignore
        ]
        content: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": file.rpartition("/")[2],
            "imageData": None,
            "imageHeight": record.height,
            "imageWidth": record.width,
        }
        output.write(f"{name}.json", to_json(content) + b"\n")


def write_cvat(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """``annotations.xml`` (CVAT for images 1.1): polygons, and regions with holes as masks."""
    with output.stream("annotations.xml") as file:
        file.write(_cvat_head(about).encode())
        for number, (record, _) in enumerate(named(records)):
            file.write(
                f"  <image id={_quoted(number)} name={_quoted(record.id)}"
                f" width={_quoted(record.width)} height={_quoted(record.height)}>\n".encode()
            )
            file.writelines(f"    {shape}\n".encode() for shape in _cvat_shapes(record, about))
            file.write(b"  </image>\n")
        file.write(b"</annotations>\n")


def _cvat_head(about: Description) -> str:
    labels = "".join(
        f"<label><name>{_quoted(about.class_names[number])[1:-1]}</name>"
        f"<color>#{bytes(about.colors[number]).hex()}</color><type>any</type>"
        "<attributes></attributes></label>"
        for number in about.drawn
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <!-- {REGIONS} -->\n  <meta><task><labels>{labels}</labels></task></meta>\n"
    )


def _cvat_shapes(record: Record, about: Description) -> Iterator[str]:
    regions = about.regions(record)
    if any(region.holes for region in regions):
        numbers, _ = component_map(about.labels(record))
    for region in regions:
        if region.label not in about.drawn:
            continue
        same = f'label={_quoted(about.class_names[region.label])} source="auto" occluded="0"'
        if region.holes:
            left, top, width, height = region.box
            pixels = numbers[top : top + height, left : left + width] == region.number
            rle = ", ".join(map(str, _row_runs(pixels)))
            yield (
                f'<mask {same} rle="{rle}" left="{left}" top="{top}" width="{width}"'
                f' height="{height}" z_order="0"></mask>'
            )
        else:
            points = ";".join(f"{x:g},{y:g}" for x, y in region.outer.tolist())
            yield f'<polygon {same} points="{points}" z_order="0"></polygon>'


def _row_runs(mask: np.ndarray) -> list[int]:
    """CVAT's run lengths: in reading order, beginning with what is not covered."""
    changes = np.flatnonzero(np.diff(mask.ravel().astype(np.int8), prepend=0))
    return np.diff(changes, prepend=0, append=mask.size).tolist()


def _quoted(value: object) -> str:
    return quoteattr(str(value), {'"': "&quot;"})


def write_yolo(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """``data.yaml``, and in ``labels`` a text file for each picture of ``images``.

    A region is a line: class, then x and y as fractions of the sides. Holes are bridged. A class
    "background" is left out, and the other classes are counted from 0.
    """
    names = "".join(
        f"  {number}: {json.dumps(about.class_names[of], ensure_ascii=False)}\n"
        for number, of in enumerate(about.drawn)
    )
    output.write("data.yaml", f"# {REGIONS}\ntrain: images\nval: images\nnames:\n{names}")
    number_of = {of: number for number, of in enumerate(about.drawn)}
    for record, name in named(records):
        put_picture(output, "images", record, name, pictures)
        size = np.array([record.width, record.height])
        lines = [
            " ".join([str(number_of[region.label]), *(f"{value:.6f}" for value in points)])
            for region in about.regions(record)
            if region.label in number_of
            for points in [(bridged(region.rings) / size).ravel()]
        ]
        output.write(f"labels/{name}.txt", "".join(f"{line}\n" for line in lines))


def write_label_studio(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """``tasks.json``, pre-annotations to import, and ``label_config.xml`` of their project.

    Holes are bridged.
    """
    labels = "".join(
        f"    <Label value={_quoted(about.class_names[number])}"
        f' background="#{bytes(about.colors[number]).hex()}"/>\n'
        for number in about.drawn
    )
    output.write(
        "label_config.xml",
        f'<View>\n  <!-- {REGIONS} -->\n  <Image name="image" value="$image"/>\n'
        f'  <PolygonLabels name="label" toName="image">\n{labels}  </PolygonLabels>\n</View>\n',
    )
    with output.stream("tasks.json") as file:
        file.write(b"[")
        tasks = JsonItems(file)
        for record, _ in named(records):
            result = [
                {
                    "id": f"region-{number}",
                    "type": "polygonlabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": record.width,
                    "original_height": record.height,
                    "image_rotation": 0,
                    "value": {
                        "points": _percent(region, record),
                        "closed": True,
                        "polygonlabels": [about.class_names[region.label]],
                    },
                }
                for number, region in enumerate(about.regions(record))
                if region.label in about.drawn
            ]
            prediction: dict[str, Any] = {"model_version": about.model, "result": result}
            if record.confidence is not None and isfinite(record.confidence):
                prediction["score"] = record.confidence
            image = about.picture_url + quote(record.id)
            tasks.add({"data": {"image": image}, "predictions": [prediction]})
        file.write(b"\n]\n")


def _percent(region: Region, record: Record) -> list[list[float]]:
    """Corners in percent of the sides, as Label Studio counts."""
    points = 100 * bridged(region.rings) / (record.width, record.height)
    return points.round(4).tolist()
