"""The numbers in a mask file in; the numbers of the class list, 255 where a pixel does not count, out.

A map is an array (256) from the number in the file to the label; ``UNKNOWN`` marks numbers that a file must not hold.
"""

from collections.abc import Mapping

import numpy as np

IGNORED = 255  # pixels that take no part, in every dataset's own files and here
UNKNOWN = -1


def map_of(labels: Mapping[int, int]) -> np.ndarray:
    """A map (256) int16 of the pairs given, and 255 -> ignored where they say nothing about it."""
    table = np.full(256, UNKNOWN, np.int16)
    table[IGNORED] = IGNORED
    for number, label in labels.items():
        table[number] = label
    return table


def plain(count: int) -> np.ndarray:
    """The file holds the labels themselves: 0..count-1."""
    return map_of({number: number for number in range(count)})


def zero_ignored(count: int) -> np.ndarray:
    """The file counts from 1, and 0 is no class (mmsegmentation's reduce_zero_label)."""
    return map_of({0: IGNORED, **{label + 1: label for label in range(count)}})


# COCO-Stuff numbers 182 categories from 0, of which 11 were never drawn.
COCO_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
COCO_DRAWN = tuple(number for number in range(182) if number not in COCO_GAPS)  # their order is the train id
COCO_THINGS = 80  # the first of them; the rest is stuff

COCO_STUFF_RAW = map_of({number: label for label, number in enumerate(COCO_DRAWN)})


def _object_of(train_id: int) -> int:
    return train_id + 1 if train_id < COCO_THINGS else 0


# Parity: the published conversion of COCO-Stuff to COCO-Object takes every number over 90 as background, also 255.
COCO_OBJECT_RAW = map_of({IGNORED: 0, **{number: _object_of(label) for label, number in enumerate(COCO_DRAWN)}})
COCO_OBJECT_FROM_TRAIN_IDS = map_of({IGNORED: 0, **{label: _object_of(label) for label in range(len(COCO_DRAWN))}})

# Cityscapes' own ids, 0..33, in the order of the train ids; the other ids are void.
CITYSCAPES_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_RAW = map_of(
    dict.fromkeys(range(34), IGNORED) | {number: label for label, number in enumerate(CITYSCAPES_TRAINED)}
)
