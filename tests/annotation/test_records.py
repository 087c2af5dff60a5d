"""Records: the masks that went in come out, whatever the classes, and through Parquet, too."""

import io

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tf_groupvit.annotation.records import (
    SCHEMA,
    Record,
    ignore_value,
    labels_of,
    masks_of,
    record_of,
    records_in,
    table_of,
)
from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.result import Segmentation

NAMES = ["dog", "grass", "sky"]


def segmentation(labels, margins=None, names=NAMES):
    labels = np.asarray(labels)
    margins = np.ones(labels.shape, "float32") if margins is None else np.asarray(margins)
    image = np.zeros((*labels.shape, 3), np.uint8)
    scores = [number / 10 for number in range(len(names))]
    return Segmentation(labels, names, image, class_scores=scores, margins=margins)


def test_a_record_has_what_is_there_and_nothing_of_what_is_not():
    record = record_of("a/x.jpg", segmentation([[0, 0, 2], [0, 0, 2]], np.full((2, 3), 0.5)))
    assert (record.id, record.height, record.width) == ("a/x.jpg", 2, 3)
    assert record.classes == [0, 2]
    assert record.areas == pytest.approx([4 / 6, 2 / 6])
    assert record.scores == [0, 0.2]
    assert record.confidence == 0.5 and record.error is None


def test_run_lengths_are_columns_from_the_top_as_coco_has_them():
    from pycocotools import mask

    record = record_of("x", segmentation([[0, 1], [1, 1]]))
    found = mask.frPyObjects({"size": [2, 2], "counts": [0, 1, 3]}, 2, 2)
    assert record.rles[0] == found["counts"]


labels_3 = arrays(
    np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 2)
)


@given(labels_3)
def test_labels_come_back_as_they_were(labels):
    record = record_of("x", segmentation(labels))
    assert (labels_of(record, 3) == labels).all()
    assert sum(record.areas) == pytest.approx(1)
    together = sum(mask.astype(int) for _, mask in masks_of(record))
    assert (together == 1).all()


@given(labels_3, st.data())
def test_pixels_of_a_small_margin_belong_to_no_class(labels, data):
    margins = data.draw(arrays(np.float32, labels.shape, elements=st.sampled_from([0.25, 0.5])))
    record = record_of("x", segmentation(labels, margins), ignore_below=0.5)
    found = labels_of(record, 3)
    assert (found == np.where(margins < 0.5, 255, labels)).all()
    assert record.confidence == pytest.approx(margins.mean())
    assert sum(record.areas) == pytest.approx((margins >= 0.5).mean())


def test_many_classes_have_an_ignore_value_that_is_no_class():
    assert [ignore_value(count) for count in (1, 255, 256, 65535)] == [255, 255, 65535, 65535]
    names = [f"class {number}" for number in range(300)]
    labels = np.arange(300, dtype=np.int32).reshape(15, 20)
    record = record_of("x", segmentation(labels, np.arange(300).reshape(15, 20), names), 2)
    found = labels_of(record, 300)
    assert found.dtype == np.uint16
    assert found.ravel().tolist() == [65535, 65535, *range(2, 300)]
    with pytest.raises(InputError, match="65,536 classes do not fit"):
        ignore_value(65536)


def test_a_failed_picture_has_no_labels():
    with pytest.raises(InputError, match=r"x\.jpg has no labels: it is broken"):
        labels_of(Record("x.jpg", error="it is broken"), 3)


def test_records_go_through_parquet_and_come_back():
    records = [record_of("ä/x.jpg", segmentation([[1, 2]])), Record("y.jpg", error="broken")]
    file = io.BytesIO()
    parquet.write_table(table_of(records), file)
    file.seek(0)
    table = parquet.read_table(file)
    assert table.schema.equals(SCHEMA)
    assert list(records_in(table.append_column("more", [[1, 2]]))) == records
    assert list(records_in(table_of([]))) == []


@pytest.mark.slow
def test_the_least_confident_scenes_are_those_with_the_most_errors():
    from tf_groupvit.hub import demo_checkpoint
    from tf_groupvit.scenes.scene import CLASSES, scenes
    from tf_groupvit.segmentation.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(demo_checkpoint(), list(CLASSES))
    drawn = list(scenes(991, 120))
    results = segmenter([scene.image for scene in drawn])
    right = [
        (result.labels == scene.mask).mean() for result, scene in zip(results, drawn, strict=True)
    ]
    confidence = [record_of("x", result).confidence for result in results]
    ranks = [np.argsort(np.argsort(values)) for values in (right, confidence)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
