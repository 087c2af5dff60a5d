"""The formats of annotations: each is a function of the stream of records.

Memory does not grow with the number of records. What each format holds, and what reads it, is in
the page beside this file.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tf_groupvit.annotation.coco_files import (
    write_coco,
    write_coco_panoptic,
    write_coco_polygons,
)
from tf_groupvit.annotation.format_parts import Description, Pictures
from tf_groupvit.annotation.mask_files import write_png, write_voc
from tf_groupvit.annotation.polygon_files import (
    IGNORED,
    write_cvat,
    write_label_studio,
    write_label_studio_brush,
    write_labelme,
    write_yolo,
)
from tf_groupvit.annotation.records import Record
from tf_groupvit.errors import InputError, did_you_mean
from tf_groupvit.storage import Output

# XML 1.0, section 2.2, has no place for these.
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# YAML 1.2, section 5.1, has no place for these.
NOT_IN_YAML = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def write_parquet(
    records: Iterable[Record], about: Description, output: Output, pictures: Pictures | None
) -> None:
    """Nothing: records are kept as Parquet, and the manifest has the class names."""


Write = Callable[[Iterable[Record], Description, Output, Pictures | None], None]


@dataclass(frozen=True)
class Format:
    """How a format is written, and what it cannot hold.

    Attributes:
        write: writes the files.
        most: the number of classes that fit.
        unfit: matches a class name that does not fit.
        takes_pictures: whether copies of the pictures belong to its files.
    """

    write: Write
    most: int = 65535
    unfit: re.Pattern[str] | None = None
    takes_pictures: bool = False


FORMATS = {
    "coco": Format(write_coco),
    "coco-polygons": Format(write_coco_polygons),
    "coco-panoptic": Format(write_coco_panoptic),
    "png": Format(write_png),
    "voc": Format(
        write_voc, most=255, unfit=re.compile("^(#|ignored$)|[:\x00-\x1f\x7f]"), takes_pictures=True
    ),
    "labelme": Format(write_labelme, unfit=re.compile(f"^{IGNORED}$"), takes_pictures=True),
    "cvat": Format(write_cvat, unfit=NOT_IN_XML),
    "yolo": Format(write_yolo, unfit=NOT_IN_YAML, takes_pictures=True),
    "label-studio": Format(write_label_studio, unfit=NOT_IN_XML),
    "label-studio-brush": Format(write_label_studio_brush, unfit=NOT_IN_XML),
    "parquet": Format(write_parquet),
}


def check_format(name: str, about: Description) -> Format:
    """The format of a name. Raises ``InputError`` where it cannot hold the classes."""
    if name not in FORMATS:
        raise InputError(f"There is no format {name!r}: {did_you_mean(name, FORMATS)}")
    found, count = FORMATS[name], len(about.class_names)
    if count > found.most:
        raise InputError(
            f"The format {name} holds at most {found.most:,} classes, and there are {count:,}:"
            " choose another, for example coco."
        )
    for number, class_name in enumerate(about.class_names):
        if found.unfit is not None and found.unfit.search(class_name):
            raise InputError(
                f"The format {name} cannot hold the name {class_name!r} of class {number}: choose"
                " another name, or another format, for example coco."
            )
    if not about.tolerance >= 0 or not about.minimum_area >= 0:
        raise InputError(
            f"The tolerance of polygons is {about.tolerance} and their minimum area"
            f" {about.minimum_area}: expected pixels, 0 or more."
        )
    return found


def write_format(
    name: str,
    records: Iterable[Record],
    about: Description,
    output: Output,
    pictures: Pictures | None = None,
) -> None:
    """Write the files of a format into the folder of its name.

    Records of errors are left out.

    Args:
        name: one of ``FORMATS``.
        pictures: returns a picture's encoded bytes; pictures are then copied to where the format
            has them. Without, only the names of their files are written.

    Raises:
        InputError: as ``check_format``; or a file cannot be written.
    """
    chosen = check_format(name, about)
    folder = Output(f"{output.location.rstrip('/')}/{name}")
    chosen.write(records, about, folder, pictures)
