"""What runs a segmenter's model: as it is for some images, then compiled; or LiteRT, where it is asked for."""

import numpy as np
import pytest
from pictures import noise

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation import inference
from tf_groupvit.segmentation.inference import Compiled
from tf_groupvit.segmentation.segmenter import Segmenter


def test_a_function_is_compiled_once_after_some_calls():
    import tensorflow as tf

    ran = []

    def double(x):
        ran.append(tf.executing_eagerly())
        return 2 * x

    function = Compiled(double, tf.TensorSpec([None], tf.float32))
    for length in range(1, inference.CALLS_BEFORE + 4):
        assert np.asarray(function(np.ones(length, "float32"))).tolist() == [2] * length
    assert ran == [True] * inference.CALLS_BEFORE + [False]


@pytest.mark.slow
def test_compiled_and_uncompiled_calls_agree(make, monkeypatch):
    images = [noise(50, 60, seed) for seed in range(3)]
    plain = make(background=0.3)(images)
    monkeypatch.setattr(inference, "CALLS_BEFORE", 0)
    compiled = make(background=0.3)
    for image, expected in zip(images, plain, strict=True):
        found = compiled(image)
        assert (found.labels == expected.labels).mean() > 0.999
        assert found.class_scores == pytest.approx(expected.class_scores, abs=1e-5)
        assert found.group_scores == pytest.approx(expected.group_scores, abs=1e-5)
        assert compiled.classify(image) == pytest.approx(make().classify(image), abs=1e-5)


def lite_segmenter(make, how: str, **choices) -> Segmenter:
    """Both ways to have LiteRT: by name, and by a model that it runs already."""
    if how == "runtime":
        return make(runtime="lite", **choices)
    plain = make(**choices)
    parts = plain.tokenizer, plain.processor, plain.classes
    return Segmenter(plain.model.optimized("lite"), *parts, normalize="imagenet", **choices)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["runtime", "model"])
@pytest.mark.parametrize("mode", ["whole", "window"])
def test_lite_gives_the_same_labels(make, mode, how, monkeypatch):
    monkeypatch.setattr(inference, "CALLS_BEFORE", 1)  # one call as it is, one from inside a graph of every size
    plain, lite = make(mode=mode), lite_segmenter(make, how, mode=mode)
    for image in (noise(50, 60, 0), noise(60, 90, 1)):
        assert (lite(image).labels == plain(image).labels).mean() > 0.999


@pytest.mark.slow
def test_lite_answers_whatever_else_is_asked(make):
    image, plain, lite = noise(50, 60), make(), make(runtime="lite")
    np.testing.assert_allclose(lite.classify(image), plain.classify(image), atol=1e-5)
    np.testing.assert_allclose(lite(image).group_scores, plain(image).group_scores, atol=1e-5)
    np.testing.assert_array_equal(lite.predict(image[None]), plain.predict(image[None]))
    one, other = (list(each.labels_by_threshold(image, (0.2, 0.4))) for each in (lite, plain))
    assert (np.array(one) == np.array(other)).mean() > 0.999


def test_lite_runs_from_the_first_image_on_and_follows_the_weights(make, monkeypatch):
    from tf_groupvit.models.lite import LiteFunction

    ran = []
    run = LiteFunction.run
    monkeypatch.setattr(LiteFunction, "run", lambda self, pixels: ran.append(self) or run(self, pixels))
    lite, weight = make(runtime="lite"), make().model.visual_projection.outer.bias
    before = lite.classify(noise(50, 60))
    assert len(ran) == 1
    kept = np.array(weight)
    try:
        weight.assign(kept + np.arange(len(kept)))
        assert np.abs(lite.classify(noise(50, 60)) - before).max() > 0.01
    finally:
        weight.assign(kept)


def test_the_runtime_goes_along_and_is_not_saved(make, tmp_path):
    lite = make(runtime="lite")
    for other in (lite.with_background(0.3), lite.with_classes("cat,bus")):
        assert other.runtime == other.inference.runtime == "lite"
    lite.save_pretrained(tmp_path)
    assert Segmenter.from_pretrained(tmp_path).runtime == "graph"
    assert Segmenter.from_pretrained(tmp_path, runtime="lite").runtime == "lite"


def test_a_model_that_lite_cannot_run_is_refused(folder, make):
    with pytest.raises(InputError, match=r"float32 .* bfloat16"):
        Segmenter.from_pretrained(folder, make().classes, dtype="bfloat16", runtime="lite")
