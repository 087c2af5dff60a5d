"""Facts of the benchmarks: their class names, as prompts, and what the numbers in their mask files
mean.

Class names are one tuple a list, in the order of the label numbers. Sources: VOC, Context and
COCO-Object carry the names that the published evaluation put into its prompts (VOC: table,
motorbike, plant and monitor for diningtable, motorbike, pottedplant and tvmonitor; Context:
airplane, plant, monitor). ADE20K, Cityscapes and COCO-Stuff, which it does not cover, carry those
of mmsegmentation.

A map is an array (256) from the number in a mask file to the label, 255 where a pixel does not
count; ``UNKNOWN`` marks numbers that a file must not hold.
"""

from collections.abc import Mapping

import numpy as np

IGNORED = 255  # pixels that take no part, in every dataset's own files and here
UNKNOWN = -1
# COCO-Stuff numbers 182 categories from 0, of which 11 were never drawn.
COCO_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
COCO_DRAWN = tuple(
    number for number in range(182) if number not in COCO_GAPS
)  # their order is the train id
COCO_THINGS = 80  # the first of them; the rest is stuff
# Cityscapes' own ids, 0..33, in the order of the train ids; the other ids are void.
CITYSCAPES_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def _names(text: str) -> tuple[str, ...]:
    """Names between commas, over any number of lines."""
    return tuple(" ".join(name.split()) for name in text.split(","))


VOC = _names("""
aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, motorbike, person, plant, sheep,
sofa, train, monitor
""")

CONTEXT = _names("""
airplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet, car, cat, ceiling,
chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, food, grass, ground, horse, keyboard,
light, motorbike, mountain, mouse, person, plate, platform, plant, road, rock, sheep, shelves, sidewalk, sign, sky,
snow, sofa, table, track, train, tree, truck, monitor, wall, water, window, wood
""")

COCO_OBJECT = _names("""
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
""")

# The 80 things, then the 91 kinds of stuff.
COCO_STUFF = COCO_OBJECT + _names("""
banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile,
cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other,
hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow,
plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf,
sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel,
tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other,
waterdrops, window-blind, window-other, wood
""")

ADE20K = _names("""
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat,
fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter,
sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land, bannister,
escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
""")

CITYSCAPES = _names("""
road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider, car,
truck, bus, train, motorcycle, bicycle
""")


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
