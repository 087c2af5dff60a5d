"""What runs a segmenter's model: as it is for some images, then compiled; or another runtime, if it is asked for."""

import numpy as np
import pytest
from pictures import noise

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.scenes import CLASSES, scene
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


def segmenter_with(runtime: str, make, how: str, **choices) -> Segmenter:
    """Both ways to have a runtime: by name, and by a model that it runs already."""
    if how == "runtime":
        return make(runtime=runtime, **choices)
    plain = make(**choices)
    parts = plain.tokenizer, plain.processor, plain.classes
    return Segmenter(plain.model.optimized(runtime), *parts, normalize="imagenet", **choices)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["runtime", "model"])
@pytest.mark.parametrize("mode", ["whole", "window"])
def test_another_runtime_gives_the_same_labels(make, mode, how, monkeypatch, other_runtime):
    monkeypatch.setattr(inference, "CALLS_BEFORE", 1)  # one call as it is, one from inside a graph of every size
    plain, other = make(mode=mode), segmenter_with(other_runtime, make, how, mode=mode)
    for image in (noise(50, 60, 0), noise(60, 90, 1)):
        assert (other(image).labels == plain(image).labels).mean() > 0.999


@pytest.mark.slow
def test_another_runtime_answers_whatever_else_is_asked(make, other_runtime):
    image, plain, other = noise(50, 60), make(), make(runtime=other_runtime)
    np.testing.assert_allclose(other.classify(image), plain.classify(image), atol=1e-5)
    np.testing.assert_allclose(other(image).group_scores, plain(image).group_scores, atol=1e-5)
    np.testing.assert_array_equal(other.predict(image[None]), plain.predict(image[None]))
    one, other = (list(each.labels_by_threshold(image, (0.2, 0.4))) for each in (other, plain))
    assert (np.array(one) == np.array(other)).mean() > 0.999


@pytest.fixture(scope="module")
def demo():
    """The trained demo model: the other one's weights are too few to be rounded to 8 bits."""
    from tf_groupvit.hub import demo_checkpoint

    return Segmenter.from_pretrained(demo_checkpoint(), classes=CLASSES)


@pytest.mark.slow
def test_in_8_bits_labels_are_nearly_the_same(demo):
    quick = Segmenter(demo.model, demo.tokenizer, demo.processor, demo.classes, runtime="lite_int8")
    for number in range(4):
        picture = scene(1, number).image
        plain, found = demo(picture), quick(picture)
        assert (found.labels == plain.labels).mean() > 0.97
        np.testing.assert_allclose(found.group_embeds, plain.group_embeds, atol=0.1)


@pytest.mark.slow
def test_in_8_bits_weights_are_rounded_and_the_program_is_small(demo):
    towers = [demo.model.optimized(runtime).vision_model for runtime in ("lite", "lite_int8")]
    pixels = np.random.default_rng(0).normal(size=(1, 3, 60, 60)).astype("float32")
    exact, rounded = (np.asarray(tower(pixels).last_hidden_state) for tower in towers)
    assert 1e-4 < np.abs(rounded - exact).max() / np.abs(exact).max() < 0.2
    whole, small = (len(next(iter(tower.look._sizes.values())).content) for tower in towers)
    assert small < 0.4 * whole  # all of it but the weights stays as large


def test_another_runtime_runs_from_the_first_image_on_and_follows_the_weights(make, monkeypatch):
    from tf_groupvit.models.programs import ProgramFunction

    ran = []
    run = ProgramFunction.run
    monkeypatch.setattr(ProgramFunction, "run", lambda self, pixels: ran.append(self) or run(self, pixels))
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
