"""Window mode of pictures that are resized, each stage apart, against PyTorch:
scripts/make_golden/windows.py.
"""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_groupvit.preprocessing.image_arrays import STATISTICS, normalize
from tf_groupvit.preprocessing.image_graph import resize_bilinear
from tf_groupvit.segmentation.prompts import ClassEmbeddings
from tf_groupvit.segmentation.protocol import paper_scores
from tf_groupvit.segmentation.sliding_window import corners_of, resized

RENDERED = np.load(Path(__file__).resolve().parents[1] / "golden" / "protocol" / "windows.npz")
PICTURES = sorted({key.split(".")[0] for key in RENDERED.files})


@pytest.fixture(params=PICTURES)
def stage(request):
    """stage(name): what PyTorch found there."""
    return lambda name: RENDERED[f"{request.param}.{name}"]


@pytest.fixture
def windows(make, rendered):
    """A segmenter in mode window, with the classes of the rendering."""
    classes = ClassEmbeddings(tuple(map(str, rendered["classes"])), rendered["subset"])
    return lambda background=None: make(classes, mode="window", background=background)


def test_pixels_are_resized_bilinearly_without_antialiasing(stage):
    height, width = resized(*stage("picture").shape[:2], 32, (8, 8))
    small = resize_bilinear(tf.constant(stage("picture")), height, width).numpy()
    expected = stage("resized")
    assert small.shape == expected.shape
    apart = np.abs(small.astype(int) - expected)
    assert apart.max() <= 1  # float32 places here, float64 there: halves fall to either side
    assert (apart == 0).mean() > 0.999


def test_pixels_are_within_one_level_of_opencvs(stage):
    sides = stage("opencv").shape[:2]
    small = resize_bilinear(tf.constant(stage("picture")), *sides).numpy()
    assert np.abs(small.astype(int) - stage("opencv")).max() <= 1


def test_windows_begin_where_the_published_ones_do(stage):
    height, width = stage("resized").shape[:2]
    np.testing.assert_array_equal(corners_of(height, width, 64), stage("corners"))


def test_each_window_is_scored_by_paper_scores(stage, segmenter, rendered):
    small, expected = stage("resized"), stage("windows")  # (n, K, tall, wide)
    cut = np.stack([small[y : y + 64, x : x + 64] for y, x in stage("corners")])
    pixel_values = normalize(cut, *STATISTICS["imagenet"])
    scores = np.asarray(paper_scores(segmenter.model, pixel_values, rendered["subset"]))
    # A pixel between two groups may fall to either by rounding; the others have the same scores.
    assert (np.abs(scores - expected).max(axis=1) < 1e-4).mean() >= 0.999


def test_scores_of_overlapping_windows_are_averaged(stage, windows):
    one = windows()
    (found,) = one.pipeline.find([stage("picture")], one.text_embeds)
    average = np.asarray(found.scores.rows).transpose(2, 0, 1)
    assert average.shape == stage("average").shape
    # Some pixels are a grey level off here (see above), which these scores feel in the fourth
    # digit.
    assert (np.abs(average - stage("average")).max(axis=0) < 1e-3).mean() >= 0.999


def test_labels_are_those_of_the_published_way_with_and_without_background(stage, windows):
    for name, background in (("labels", None), ("background", float(stage("threshold")))):
        labels = windows(background)(stage("picture")).labels
        assert len(np.unique(stage(name))) > 1
        assert (labels == stage(name)).mean() >= 0.999
