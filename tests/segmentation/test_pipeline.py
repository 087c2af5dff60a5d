"""The one way from pixels to labels: the same answers in Python, in a graph, and under every
backend.
"""

import copy

import numpy as np
import pytest
import tensorflow as tf
from pictures import noise

from tf_groupvit.segmentation import pipeline
from tf_groupvit.segmentation.pipeline import class_areas
from tf_groupvit.segmentation.settings import REFINEMENTS
from tf_groupvit.segmentation.upsampling import LowResScores, pixel_rows

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("band", [1, 100, 10**6])
def test_areas_are_counted_by_bands(monkeypatch, band):
    monkeypatch.setattr(pipeline, "BAND", band)
    labels = np.random.default_rng(0).integers(0, 4, (6, 37), np.uint8)
    areas = class_areas(tf.constant(labels), tf.constant(5)).numpy()
    np.testing.assert_allclose(areas, np.bincount(labels.ravel(), minlength=5) / 222, rtol=1e-6)


@pytest.mark.models
@pytest.mark.parametrize("mode", ["whole", "window"])
@pytest.mark.parametrize(("protocol", "background"), [("paper", 0.3), ("hf", None)])
def test_every_backend_finds_what_plain_arithmetic_finds(make, mode, protocol, background):
    """The scores are those of the model's own operations, and the labels their arg max."""
    segmenter, picture = make(mode=mode, protocol=protocol, background=background), noise(32, 64)
    result = segmenter(picture)
    assert (result.scores.argmax(0) == result.labels).all() and len(np.unique(result.labels)) > 1
    with pipeline.untraced():
        eager = segmenter(picture)
    np.testing.assert_array_equal(eager.labels, result.labels)
    np.testing.assert_allclose(
        eager.scores, result.scores, rtol=1e-4, atol=2e-3 if protocol == "hf" else 1e-4
    )


@pytest.mark.parametrize("mode", ["whole", "window"])
def test_what_refines_scores_is_between_scores_and_labels_everywhere(make, mode, monkeypatch):
    """Here it turns all scores round: what was best is worst, in every answer."""
    seen = []

    def turned(scores, small, _):
        seen.append((scores, small))
        return scores._replace(rows=-scores.rows)

    picture, segmenter = noise(40, 70), copy.deepcopy(make(mode=mode))  # traced by nobody yet
    with pipeline.untraced():
        plain = segmenter(picture)
        monkeypatch.setattr(pipeline, "refine", turned)
        result = segmenter(picture)
    _, small = seen[0]
    sides = (32, 32) if mode == "whole" else (64, 112)
    assert len(seen) == 1 and tuple(small.shape) == (1, *sides, 3)
    assert (result.scores <= 0).all() and (plain.scores >= 0).all()
    assert list(result.class_scores.values()) == pytest.approx(result.scores.max((1, 2)).tolist())
    labels = segmenter.predict(picture[None], verbose=0)[0]
    assert len(seen) == 2 and (labels == result.labels).mean() > 0.98


@pytest.mark.parametrize("name", REFINEMENTS)
def test_refining_groups_is_refining_the_scores_of_their_pixels(make, name):
    settings, small = make(refine=name).settings, noise(32, 32)[None]
    scores = LowResScores(
        RNG.random((1, 3, 5), dtype=np.float32), RNG.integers(0, 3, (1, 32, 32), dtype=np.int32)
    )
    rows = pixel_rows(scores.of_image(0))[None]
    found = pipeline.refine(scores, small, settings)
    wanted = pipeline.refine(LowResScores(rows), small, settings)
    np.testing.assert_allclose(pixel_rows(found.of_image(0)), wanted.rows[0], atol=1e-4)
    assert found.owner is None and found.size is None


@pytest.mark.parametrize("choices", [{}, {"mode": "window"}, {"protocol": "hf"}], ids=str)
def test_refined_everywhere_alike(make, choices):
    picture = noise(40, 70)
    plain, segmenter = make(**choices), make(**choices, refine="pamr")
    result = segmenter(picture)
    assert (result.scores != plain(picture).scores).any()
    assert (result.scores.argmax(0) == result.labels).mean() > 0.99
    assert list(result.class_scores.values()) == pytest.approx(
        result.scores.max((1, 2)).tolist(), abs=1e-4
    )
    with pipeline.untraced():
        assert (segmenter(picture).labels == result.labels).mean() > 0.99
    labels = segmenter.predict(np.stack([picture] * 2), verbose=0)
    assert (labels == result.labels).mean() > 0.98
