"""The benchmarks, one row each: classes, background threshold, where files lie, what masks mean.

Class names are tuples in the order of the label numbers. Those of VOC, Context and COCO-Object are
the words that the published evaluation put into its prompts (VOC: table, motorbike, plant, monitor
for diningtable, motorbike, pottedplant, tvmonitor; Context: airplane, plant, monitor). Those of
ADE20K, Cityscapes and COCO-Stuff, which it does not cover, are mmsegmentation's.

A label map is an array (256) from the number in a mask file to the label: ``IGNORED`` where a pixel
does not count, ``UNKNOWN`` for numbers that a file must not hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tf_groupvit.segmentation.class_names import BACKGROUND

IGNORED = 255  # pixels that do not count, in every dataset's own files and here
UNKNOWN = -1


def ignored_of(count: int) -> int:
    """The label of pixels that do not count beside ``count`` classes: 255, or above that 65535."""
    return IGNORED if count <= IGNORED else 65535


# COCO-Stuff numbers 182 categories from 0, of which 11 were never drawn.
COCO_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
COCO_DRAWN = tuple(number for number in range(182) if number not in COCO_GAPS)  # by train id
COCO_THINGS = 80  # the first of them; the rest is stuff
# Cityscapes' own ids, 0..33, in the order of the train ids; the other ids are void.
CITYSCAPES_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


VOC = _names("""
aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, motorbike,
person, plant, sheep, sofa, train, monitor
""")

CONTEXT = _names("""
airplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet,
car, cat, ceiling, chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower,
food, grass, ground, horse, keyboard, light, motorbike, mountain, mouse, person, plate, platform,
plant, road, rock, sheep, shelves, sidewalk, sign, sky, snow, sofa, table, track, train, tree,
truck, monitor, wall, water, window, wood
""")

COCO_OBJECT = _names("""
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra,
giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
""")

# The 80 things, then the 91 kinds of stuff.
COCO_STUFF = COCO_OBJECT + _names("""
banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet,
ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt,
door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog,
food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat,
metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other,
plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand,
sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other,
table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other,
wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other,
wood
""")

ADE20K = _names("""
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf,
house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub,
railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper,
fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door,
stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel,
bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver,
airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster,
stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool,
barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase,
traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower,
radiator, glass, clock, flag
""")

CITYSCAPES = _names("""
road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain,
sky, person, rider, car, truck, bus, train, motorcycle, bicycle
""")


def map_of(labels: Mapping[int, int]) -> np.ndarray:
    """The label map (256) int16 of {number: label}; 255 is ignored unless it is among them."""
    table = np.full(256, UNKNOWN, np.int16)
    table[IGNORED] = IGNORED
    for number, label in labels.items():
        table[number] = label
    return table


def plain(count: int) -> np.ndarray:
    """The label map (256) of files that hold the labels themselves, 0..count-1."""
    return map_of({number: number for number in range(count)})


def zero_ignored(count: int) -> np.ndarray:
    """The label map (256) of files that count from 1, where 0 is no class (reduce_zero_label)."""
    return map_of({0: IGNORED, **{label + 1: label for label in range(count)}})


COCO_STUFF_RAW = map_of({number: label for label, number in enumerate(COCO_DRAWN)})


def _object_of(train_id: int) -> int:
    return train_id + 1 if train_id < COCO_THINGS else 0


# Parity: the published conversion of COCO-Stuff to COCO-Object takes every number over 90 as
# background, also 255.
COCO_OBJECT_RAW = map_of(
    {IGNORED: 0, **{number: _object_of(label) for label, number in enumerate(COCO_DRAWN)}}
)
COCO_OBJECT_FROM_TRAIN_IDS = map_of(
    {IGNORED: 0, **{label: _object_of(label) for label in range(len(COCO_DRAWN))}}
)

CITYSCAPES_RAW = map_of(
    dict.fromkeys(range(34), IGNORED)
    | {number: label for label, number in enumerate(CITYSCAPES_TRAINED)}
)


@dataclass(frozen=True)
class Layout:
    """Where the files of a benchmark lie below a root that the user names.

    Attributes:
        homes: folders below the root that may hold the dataset, of which the first that does is
            taken; "" is the root itself.
        folders: pairs of folders below home, of images and of masks; the first pair whose images
            exist is taken.
        mask_suffixes: what follows a picture's name in its mask file, with the label map of these
            files; the first that exists is taken.
        split: a file below home with a picture's name on each line; None: every file of the images
            folder.
        image_suffix: what follows a picture's name in its image file, before the extension.
    """

    homes: tuple[str, ...]
    folders: tuple[tuple[str, str], ...]
    mask_suffixes: tuple[tuple[str, np.ndarray], ...]
    split: str | None = None
    image_suffix: str = ""


@dataclass(frozen=True)
class Benchmark:
    """What is fixed about a benchmark.

    Attributes:
        prompts: its classes without the background.
        layout: where its files lie.
        background: the threshold of the published evaluation's configuration (the paper's text
            names others); None where the dataset has no background.
        published: mIoU in percent that the authors report for nvidia/groupvit-gcc-yfcc, if any.
    """

    prompts: tuple[str, ...]
    layout: Layout
    background: float | None = None
    published: float | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K classes in the order of the labels; "background" is first where there is one."""
        return self.prompts if self.background is None else (BACKGROUND, *self.prompts)


def _voc(year: str, kind: str, table: np.ndarray) -> Layout:
    """VOC2012, and VOC2010 with masks of another kind, "Context"."""
    return Layout(
        homes=("", *(f"{above}{year}" for above in _ABOVE_VOC)),
        folders=(("JPEGImages", f"SegmentationClass{kind}"),),
        mask_suffixes=((".png", table),),
        split=f"ImageSets/Segmentation{kind}/val.txt",
    )


def _coco(*mask_suffixes: tuple[str, np.ndarray]) -> Layout:
    return Layout(_COCO_HOMES, _COCO_FOLDERS, mask_suffixes)


# The last ones are those of the published evaluation.
_ABOVE_VOC = ("", "VOCdevkit/", "data/VOCdevkit/", "local_data/VOCdevkit/")
_COCO_HOMES = ("", "coco_stuff164k", "data/coco_stuff164k", "coco", "data/coco", "local_data/coco")
_COCO_FOLDERS = (
    ("images/val2017", "annotations/val2017"),
    ("val2017", "stuffthingmaps/val2017"),
)
_ADE = "ADEChallengeData2016"

_OBJECT_MASKS = (
    ("_instanceTrainIds.png", plain(81)),
    (".png", COCO_OBJECT_RAW),
    ("_labelTrainIds.png", COCO_OBJECT_FROM_TRAIN_IDS),
)
_STUFF_MASKS = (("_labelTrainIds.png", plain(171)), (".png", COCO_STUFF_RAW))
_ADE_LAYOUT = Layout(
    homes=("", _ADE, f"ade/{_ADE}", f"data/ade/{_ADE}"),
    folders=(("images/validation", "annotations/validation"),),
    mask_suffixes=((".png", zero_ignored(150)),),
)
_CITYSCAPES_LAYOUT = Layout(
    homes=("", "cityscapes", "data/cityscapes"),
    folders=(("leftImg8bit/val", "gtFine/val"),),
    mask_suffixes=(
        ("_gtFine_labelTrainIds.png", plain(19)),
        ("_gtFine_labelIds.png", CITYSCAPES_RAW),
    ),
    image_suffix="_leftImg8bit",
)

# To add a dataset, add a row. Layouts are those of mmsegmentation and of the datasets' archives.
BENCHMARKS = {
    "voc": Benchmark(VOC, _voc("VOC2012", "", plain(21)), background=0.95, published=52.3),
    "voc20": Benchmark(VOC, _voc("VOC2012", "", zero_ignored(20))),
    "context": Benchmark(CONTEXT, _voc("VOC2010", "Context", plain(60)), 0.35, published=22.4),
    "context59": Benchmark(CONTEXT, _voc("VOC2010", "Context", zero_ignored(59))),
    "coco-object": Benchmark(COCO_OBJECT, _coco(*_OBJECT_MASKS), 0.95, published=24.3),
    "coco-stuff": Benchmark(COCO_STUFF, _coco(*_STUFF_MASKS)),
    "ade20k": Benchmark(ADE20K, _ADE_LAYOUT),
    "cityscapes": Benchmark(CITYSCAPES, _CITYSCAPES_LAYOUT),
}
