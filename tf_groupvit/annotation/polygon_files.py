"""Polygons for tools that people label with: LabelMe, CVAT, YOLO and Label Studio."""

import json
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from tf_groupvit.annotation.format_parts import (
    CLASSES,
    REGIONS,
    Description,
    JsonItems,
    Pictures,
    named,
    put_picture,
    to_json,
)
from tf_groupvit.annotation.polygons import Region, bridged, component_map
from tf_groupvit.annotation.records import Record, masks_of
from tf_groupvit.storage import Output

IGNORED = "__ignore__"  # LabelMe's label of pixels that do not count


def write_labelme(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """A JSON file a picture, which belongs beside the picture. Holes are bridged."""
    for record, name in named(records, ".json", pictures is not None):
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
    for record, name in named(records, ".txt", pictures is not None):
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

    A region is a polygon. Holes are bridged.
    """

    def polygons(record: Record) -> Iterator[tuple[int, dict[str, Any]]]:
        for region in about.regions(record):
            yield region.label, {"points": _percent(region, record), "closed": True}

    _write_label_studio(records, about, output, REGIONS, "PolygonLabels", polygons)


def write_label_studio_brush(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """As ``write_label_studio``, but a class is what a brush has painted, exactly."""

    def brushes(record: Record) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, mask in masks_of(record):
            yield number, {"format": "rle", "rle": brush_runs(mask)}

    _write_label_studio(records, about, output, CLASSES, "BrushLabels", brushes)


def _write_label_studio(
    records: Iterable[Record],
    about: Description,
    output: Output,
    said: str,
    tag: str,
    values_of: Callable[[Record], Iterable[tuple[int, dict[str, Any]]]],
) -> None:
    labels = "".join(
        f"    <Label value={_quoted(about.class_names[number])}"
        f' background="#{bytes(about.colors[number]).hex()}"/>\n'
        for number in about.drawn
    )
    output.write(
        "label_config.xml",
        f'<View>\n  <!-- {said} -->\n  <Image name="image" value="$image"/>\n'
        f'  <{tag} name="label" toName="image">\n{labels}  </{tag}>\n</View>\n',
    )
    kind = tag.lower()
    is_web = about.picture_url.startswith(("/", "http"))  # addresses of storages have no escapes
    with output.stream("tasks.json") as file:
        file.write(b"[")
        tasks = JsonItems(file)
        for record, _ in named(records):
            result = [
                {
                    "id": f"region-{number}",
                    "type": kind,
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": record.width,
                    "original_height": record.height,
                    "image_rotation": 0,
                    "value": {**value, kind: [about.class_names[label]]},
                }
                for number, (label, value) in enumerate(values_of(record))
                if label in about.drawn
            ]
            prediction: dict[str, Any] = {"model_version": about.model, "result": result}
            if record.confidence is not None and isfinite(record.confidence):
                prediction["score"] = record.confidence
            image = about.picture_url + (quote(record.id) if is_web else record.id)
            tasks.add({"data": {"image": image}, "predictions": [prediction]})
        file.write(b"\n]\n")


def _percent(region: Region, record: Record) -> list[list[float]]:
    """Corners in percent of the sides, as Label Studio counts."""
    points = 100 * bridged(region.rings) / (record.width, record.height)
    return points.round(4).tolist()


def brush_runs(mask: np.ndarray) -> list[int]:
    """Label Studio's run lengths of a mask, bool (H, W): bytes, as label-studio-converter has them.

    The format is rle-pack of thi.ng/umbrella: the count of values, their bits, four sizes of
    lengths, then for each run a 1, which size, the length less one, and the value. A pixel is four
    values, 255 where it is covered.
    """
    sizes = (3, 4, 8, 16)  # bits
    bits = [f"{4 * mask.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in sizes)]
    for number, pixels in enumerate(_row_runs(mask)):
        left, value = 4 * pixels, number % 2 * 255
        which = next((k for k, size in enumerate(sizes) if left <= 1 << size), len(sizes) - 1)
        while left:
            length = min(left, 1 << sizes[which])
            bits.append(f"1{which:02b}{length - 1:0{sizes[which]}b}{value:08b}")
            left -= length
    text = "".join(bits)
    count = len(text) // 8 + 1
    return list(int(text.ljust(8 * count, "0"), 2).to_bytes(count, "big"))
