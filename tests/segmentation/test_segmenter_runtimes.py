"""What runs a segmenter's model: live, by default, so that answers are those of the weights as they
are; or another runtime, if it is asked for, with the weights as they were.
"""

import copy
import re

import keras
import numpy as np
import pytest
from pictures import noise

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.image_arrays import normalize
from tf_groupvit.scenes.scene import CLASSES, scene
from tf_groupvit.segmentation import pipeline
from tf_groupvit.segmentation.protocol import paper_scores
from tf_groupvit.segmentation.segmenter import Segmenter


@pytest.fixture
def fresh(folder, make):
    """A segmenter of a model of its own, whose weights a test may change."""
    return Segmenter.from_pretrained(folder, make().classes, normalize="imagenet")


def scores_now(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """Scores (h, w, K) of the small picture, worked out without a graph: from the weights as they
    are.
    """
    pixels = normalize(
        segmenter.pipeline.square(image)[None], segmenter.settings.mean, segmenter.settings.std
    )
    return np.asarray(paper_scores(segmenter.model, pixels, segmenter.text_embeds))[0].transpose(
        1, 2, 0
    )


def held_scores(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    (found,) = segmenter.pipeline.find([image], segmenter.text_embeds)
    return found.scores.enlarged(*segmenter.settings.size).transpose(1, 2, 0)


def one_element(values: np.ndarray) -> np.ndarray:
    """Another number in the last place, which is in row 0 of nothing that has rows."""
    changed = values.copy()
    changed[(-1,) * values.ndim] += 0.7
    return changed


def columns_swapped(values: np.ndarray) -> np.ndarray:
    return np.roll(values, 1, axis=-1) if values.ndim else values * 1.5


def rows_zeroed(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[:1], values[1:] * 0]) if values.ndim > 1 else values * 0.5


CHANGES = [one_element, columns_swapped, rows_zeroed]


@pytest.mark.parametrize(
    "turn", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_change_of_any_weight_is_in_the_next_answer(fresh, turn):
    """Of each variable in turn another part is changed, long after the segmenter was first asked."""
    image = noise(50, 60)
    for _ in range(4):
        before = held_scores(fresh, image)
    unmoved = []
    variables = [v for v in fresh.model.weights if "text" not in v.path and "float" in v.dtype]
    for number, variable in enumerate(variables):
        kept = np.asarray(variable)
        variable.assign(CHANGES[(number + turn) % 3](kept))
        found = held_scores(fresh, image)
        np.testing.assert_allclose(
            found, scores_now(fresh, image), rtol=1e-4, atol=2e-5, err_msg=variable.path
        )
        unmoved += [variable.path] if np.abs(found - before).max() < 1e-6 else []
        variable.assign(kept)
    assert len(variables) > 100 and len(unmoved) < len(variables) / 2, unmoved
    np.testing.assert_array_equal(held_scores(fresh, image), before)


def test_whatever_is_asked_however_often_the_answer_is_that_of_the_weights(fresh):
    image = noise(50, 60)

    def everything(segmenter):
        result = segmenter(image)
        trials = list(segmenter.labels_by_threshold(image, (0.2, 0.4)))
        parts = [
            result.labels,
            result.scores,
            result.final_group,
            result.group_embeds,
            result.group_scores,
            trials,
        ]
        return [
            *map(np.array, parts),
            segmenter.classify(image),
            segmenter.predict(image[None], verbose=0),
        ]

    with_background = fresh.with_background(0.3)
    before = everything(fresh)
    for variable in fresh.model.vision_model.weights:
        kept = np.asarray(variable)
        if kept.ndim > 1:
            variable.assign(
                np.concatenate([kept[:1], kept[:0:-1]])
            )  # all rows but the first turned round
    calls = [fresh(image) for _ in range(5)]
    found = everything(fresh)
    other = copy.deepcopy(fresh)  # of a model of its own, which is traced anew
    for mine, theirs, old in zip(found, everything(other), before, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
        assert np.abs(mine.astype("float64") - old).max() > 0
    for number in (0, 1, 4):
        np.testing.assert_array_equal(calls[number].labels, found[0])
        np.testing.assert_allclose(calls[number].scores, found[1], atol=1e-6)
    assert (with_background(image).labels > 0).any()
    np.testing.assert_allclose(held_scores(fresh, image), scores_now(fresh, image), atol=1e-5)


@pytest.mark.slow
def test_while_a_model_is_trained_a_held_segmenter_answers_as_it_is_then(fresh):
    image, model, seen = noise(50, 60), fresh.model, []

    def look(batch, logs):
        found = held_scores(fresh, image)
        np.testing.assert_allclose(found, scores_now(fresh, image), atol=1e-5)
        seen.append(found)

    tokens = fresh.tokenizer(["a dog", "the sky"])
    pixels = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32")
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    model.fit(
        {**tokens, "pixel_values": pixels}, batch_size=2, epochs=3, verbose=0, callbacks=[watch]
    )
    assert (
        len(seen) == 3 and min(np.abs(seen[0] - seen[1]).max(), np.abs(seen[1] - seen[2]).max()) > 0
    )


@pytest.mark.parametrize("kind", ["lora", pytest.param("int8", marks=pytest.mark.slow)])
def test_weights_of_another_kind_are_seen_too(fresh, kind):
    image = noise(50, 60)
    before = held_scores(fresh, image)
    predicted = fresh.predict(image[None], verbose=0) if kind == "lora" else None
    layer = fresh.model.vision_model.stages[0].blocks[0].mlp.fc1
    if kind == "lora":
        layer.enable_lora(2)
        layer.lora_kernel_a.assign(np.ones(layer.lora_kernel_a.shape))
        layer.lora_kernel_b.assign(
            np.arange(np.prod(layer.lora_kernel_b.shape)).reshape(layer.lora_kernel_b.shape)
        )
    else:
        for part in fresh.model.vision_model._flatten_layers():
            if re.search(r"(fc1|fc2|[qkv]_proj)$", part.name) and isinstance(
                part, keras.layers.Dense
            ):
                part.quantize("int8")
    found = held_scores(fresh, image)
    np.testing.assert_allclose(found, scores_now(fresh, image), atol=1e-5)
    assert np.abs(found - before).max() > 1e-4
    if kind == "lora":  # in 8 bits rounding decides, and predict resizes in the graph
        again = fresh.predict(image[None], verbose=0)
        assert (again != predicted).any()
        np.testing.assert_array_equal(again[0], fresh(image).labels)


def test_a_model_is_traced_once_for_every_size_and_for_all_who_use_it(fresh, monkeypatch):
    traced = []
    read = pipeline.encode_image
    monkeypatch.setattr(
        pipeline, "encode_image", lambda *given: traced.append(given) or read(*given)
    )
    for size in ((50, 60), (90, 40), (33, 200), (32, 32)):
        fresh(noise(*size))
        assert len(traced) == 1  # at the first photo, and not again
    fresh([noise(40, 50), noise(50, 40)])
    fresh.classify(noise(20, 20))
    fresh.with_background(0.3)(noise(70, 60))
    fresh.with_choices(mode="window")(noise(70, 110))
    assert len(traced) == 1


def test_an_image_that_is_alone_is_answered_without_a_graph(fresh, monkeypatch):
    eager = []
    read = pipeline.encode_image
    monkeypatch.setattr(
        pipeline, "encode_image", lambda *given: eager.append(given) or read(*given)
    )
    image = noise(50, 60)
    with pipeline.untraced():
        one, two = fresh(image), fresh(image)
    assert len(eager) == 2
    np.testing.assert_array_equal(fresh(image).labels, one.labels)
    np.testing.assert_allclose(fresh(image).scores, two.scores, atol=1e-5)


def test_refresh_encodes_the_classes_with_the_weights_as_they_are(folder):
    words = ["dog|puppy", "grass"]
    segmenter = Segmenter.from_pretrained(folder, words, templates=["{}", "a {}."])
    derived, given = (
        segmenter.with_background(0.3),
        Segmenter(segmenter.model, None, segmenter.processor, segmenter.classes),
    )
    before = segmenter.text_embeds
    weight = segmenter.model.text_model.token_embedding.embeddings
    weight.assign(columns_swapped(np.asarray(weight)))
    np.testing.assert_array_equal(segmenter.text_embeds, before)  # encoded once
    expected = segmenter.with_classes(words, ["{}", "a {}."]).text_embeds
    for each in (segmenter, derived, given):
        each.refresh()
    np.testing.assert_array_equal(segmenter.text_embeds, expected)
    np.testing.assert_array_equal(derived.text_embeds, expected)
    np.testing.assert_array_equal(given.text_embeds, before)
    assert np.abs(expected - before).max() > 1e-3 and derived.class_names == [
        "background",
        "dog",
        "grass",
    ]


def segmenter_with(runtime: str, make, how: str, **choices) -> Segmenter:
    """Both ways to have a runtime: by name, and by a model that it runs already."""
    if how == "runtime":
        return make(runtime=runtime, **choices)
    plain = make(**choices)
    parts = plain.tokenizer, plain.processor, plain.classes
    return Segmenter(plain.model.optimized(runtime), *parts, normalize="imagenet", **choices)


@pytest.mark.slow
@pytest.mark.lowest
@pytest.mark.parametrize("how", ["runtime", "model"])
@pytest.mark.parametrize("mode", ["whole", "window"])
def test_another_runtime_gives_the_same_labels(make, mode, how, other_runtime):
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
    whole, small = (len(next(iter(tower.run.programs.values())).content) for tower in towers)
    assert small < 0.4 * whole  # all of it but the weights stays as large


def test_another_runtime_is_a_snapshot_from_the_first_image_on_until_it_is_renewed(
    fresh, monkeypatch
):
    from tf_groupvit.runtimes.compiled import CompiledFunction

    ran, image = [], noise(50, 60)
    run = CompiledFunction.run
    monkeypatch.setattr(
        CompiledFunction, "run", lambda self, pixels: ran.append(self) or run(self, pixels)
    )
    lite = Segmenter(
        fresh.model,
        fresh.tokenizer,
        fresh.processor,
        fresh.classes,
        runtime="lite",
        normalize="imagenet",
    )
    before = lite.classify(image)
    assert len(ran) == 1
    weight = fresh.model.visual_projection.outer.kernel
    weight.assign(rows_zeroed(np.asarray(weight)))
    np.testing.assert_array_equal(lite.classify(image), before)
    np.testing.assert_array_equal(
        lite.with_background(0.3).classify(image), before
    )  # the same snapshot
    lite.refresh()
    np.testing.assert_allclose(lite.classify(image), fresh.classify(image), atol=1e-5)
    assert np.abs(lite.classify(image) - before).max() > 0.01


def test_the_runtime_goes_along_and_is_not_saved(make, tmp_path):
    lite = make(runtime="lite")
    for other in (lite.with_background(0.3), lite.with_classes("cat,bus")):
        assert other.runtime == "lite" and other.pipeline.model is lite.pipeline.model
    lite.save_pretrained(tmp_path)
    assert Segmenter.from_pretrained(tmp_path).runtime == "graph"
    assert Segmenter.from_pretrained(tmp_path, runtime="lite").runtime == "lite"


def test_a_model_that_lite_cannot_run_is_refused(folder, make):
    with pytest.raises(InputError, match=r"float32 .* bfloat16"):
        Segmenter.from_pretrained(folder, make().classes, dtype="bfloat16", runtime="lite")
