"""Label maps as PNG: plain class numbers, and Pascal VOC's palette pictures."""

import json
from collections.abc import Iterable

import numpy as np
from PIL import Image

from tf_groupvit.annotation.format_parts import Description, Pictures, named, put_picture
from tf_groupvit.annotation.records import Record
from tf_groupvit.segmentation.image_encoding import png
from tf_groupvit.storage import Output

# What pixels without a class are called in VOC, and their color; their number is 255.
IGNORED, VOID = "ignored", (224, 224, 192)


def write_png(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """``masks``: a gray PNG of class numbers a picture; ``classes.json``: their names.

    One byte a pixel up to 255 classes, two beyond.
    """
    classes = [
        {"number": number, "name": name, "color": color}
        for number, (name, color) in enumerate(zip(about.class_names, about.colors, strict=True))
    ]
    table = {"ignore": about.ignore, "classes": classes}
    output.write("classes.json", json.dumps(table, ensure_ascii=False, indent=2) + "\n")
    for record, name in named(records):
        output.write(f"masks/{name}.png", png(Image.fromarray(about.labels(record))))


def write_voc(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """``SegmentationClass``, the list of its names, ``labelmap.txt``, and ``JPEGImages``.

    Palette entries are class numbers, 255 is void.
    """
    lines = [
        f"{name}:{','.join(map(str, color))}::"
        for name, color in zip([*about.class_names, IGNORED], [*about.colors, VOID], strict=True)
    ]
    output.write("labelmap.txt", "\n".join(lines) + "\n")
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(about.colors)] = about.colors
    palette[255] = VOID
    with output.stream("ImageSets/Segmentation/train.txt") as names:
        for record, name in named(records, with_pictures=pictures is not None):
            picture = Image.fromarray(about.labels(record))
            picture.putpalette(palette.tobytes())
            output.write(f"SegmentationClass/{name}.png", png(picture))
            put_picture(output, "JPEGImages", record, name, pictures)
            names.write(f"{name}\n".encode())
