"""Numbers in mask files and class lists: facts of the benchmarks, checked one by one."""

import numpy as np
import pytest

from tf_groupvit.evaluation import benchmarks
from tf_groupvit.evaluation.benchmarks import IGNORED, UNKNOWN
from tf_groupvit.evaluation.datasets import BENCHMARKS

# name -> (classes, background threshold); the counts that the benchmarks are known by.
SIZES = {
    "voc": (21, 0.95),
    "voc20": (20, None),
    "context": (60, 0.35),
    "context59": (59, None),
    "coco-object": (81, 0.95),
    "coco-stuff": (171, None),
    "ade20k": (150, None),
    "cityscapes": (19, None),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_benchmark_has_its_classes_and_its_published_threshold(name):
    benchmark, (count, threshold) = BENCHMARKS[name], SIZES[name]
    assert len(benchmark.class_names) == len(set(benchmark.class_names)) == count
    assert benchmark.background == threshold
    assert ("background" in benchmark.class_names) == (threshold is not None)
    assert "background" not in benchmark.prompts


@pytest.mark.parametrize("name", SIZES)
def test_every_map_of_a_benchmark_reaches_every_class_and_no_other_label(name):
    for _, table in BENCHMARKS[name].layout.mask_suffixes:
        assert set(table.tolist()) - {IGNORED, UNKNOWN} == set(range(SIZES[name][0]))


def test_voc_and_context_carry_the_renamings_of_the_published_evaluation():
    voc, context = benchmarks.VOC, benchmarks.CONTEXT
    assert [voc[k] for k in (0, 10, 13, 15, 19)] == [
        "aeroplane",
        "table",
        "motorbike",
        "plant",
        "monitor",
    ]
    assert [context[k] for k in (0, 33, 39, 54, 58)] == [
        "airplane",
        "motorbike",
        "plant",
        "monitor",
        "wood",
    ]


@pytest.mark.parametrize(
    ("number", "stuff", "thing"),
    [
        (0, "person", "person"),
        (12, "stop sign", "stop sign"),  # 11, street sign, was never drawn
        (89, "toothbrush", "toothbrush"),
        (91, "banner", "background"),
        (181, "wood", "background"),
    ],
)
def test_a_number_of_coco_stuff_is_this_class(number, stuff, thing):
    assert benchmarks.COCO_STUFF[benchmarks.COCO_STUFF_RAW[number]] == stuff
    assert BENCHMARKS["coco-object"].class_names[benchmarks.COCO_OBJECT_RAW[number]] == thing


def test_unlabelled_pixels_of_coco_are_left_out_of_stuff_and_background_of_objects():
    assert benchmarks.COCO_STUFF_RAW[255] == IGNORED
    assert benchmarks.COCO_OBJECT_RAW[255] == 0
    assert benchmarks.COCO_OBJECT_FROM_TRAIN_IDS[255] == 0


def test_objects_come_out_the_same_from_raw_numbers_and_from_train_ids():
    raw = benchmarks.COCO_STUFF_RAW
    known = np.flatnonzero(raw != UNKNOWN)
    assert (
        benchmarks.COCO_OBJECT_RAW[known] == benchmarks.COCO_OBJECT_FROM_TRAIN_IDS[raw[known]]
    ).all()


@pytest.mark.parametrize(("number", "name"), [(7, "road"), (24, "person"), (33, "bicycle")])
def test_a_number_of_cityscapes_is_this_class(number, name):
    assert benchmarks.CITYSCAPES[benchmarks.CITYSCAPES_RAW[number]] == name


@pytest.mark.parametrize("void", [0, 6, 9, 18, 29, 30, 255])
def test_void_numbers_of_cityscapes_are_left_out(void):
    assert benchmarks.CITYSCAPES_RAW[void] == IGNORED


def test_ade_counts_from_one_and_zero_is_no_class():
    table = benchmarks.zero_ignored(150)
    assert table[[0, 1, 150, 255]].tolist() == [IGNORED, 0, 149, IGNORED]
    assert table[151] == UNKNOWN
