"""The model folded for inference answers as the one that it was made from did when it was made."""

import keras
import numpy as np
import pytest
from tiny_models import (
    inputs_of,
    joint_config,
    make,
    numbers,
    randomise,
    some_ids,
    some_pixels,
    text_config,
    tiny,
    vision_config,
)

from tf_groupvit.errors import InputError

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="folding is TensorFlow's"
)


def same(one, other) -> None:
    """The same tensors by name, each within 1e-4 of its largest value; assignments exactly."""
    assert one.keys() == other.keys()
    for name, expected in other.items():
        if isinstance(expected, dict):
            same(one[name], expected)
        elif name == "attentions":
            for mine, theirs in zip(one[name], expected, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)
                np.testing.assert_array_equal(numbers(mine).argmax(1), numbers(theirs).argmax(1))
        else:
            mine, theirs = numbers(one[name]), numbers(expected)
            np.testing.assert_allclose(
                mine, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name
            )


def test_the_joint_model_answers_as_the_plain_one(case, runtime):
    plain, folded = case.model, case.model.optimized(runtime)
    same(
        folded(case.inputs, output_segmentation=True), plain(case.inputs, output_segmentation=True)
    )


def test_the_vision_tower_gives_the_same_assignments_at_other_sizes_too(case, runtime):
    folded, patch = case.model.optimized(runtime), case.config.vision_config.patch_height_width
    for rows, columns in ((3, 5), (7, 2)):
        pixels = (
            np.random.default_rng(0)
            .normal(size=(2, 3, rows * patch[0], columns * patch[1]))
            .astype("float32")
        )
        same(
            folded.vision_model(pixels, output_attentions=True),
            case.model.vision_model(pixels, output_attentions=True),
        )


def test_texts_are_encoded_the_same_with_and_without_padding(case):
    folded = case.model.optimized()
    for mask in (None, case.mask):
        expected = numbers(case.model.get_text_features(case.ids, mask))
        found = numbers(folded.get_text_features(case.ids, mask))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_attentions_of_texts_are_those_of_the_plain_model(case):
    found, expected = (
        model(case.inputs, output_attentions=True).text_model_output.attentions
        for model in (case.model.optimized(), case.model)
    )
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)


def test_positions_of_ones_own_are_used():
    positions = np.array([[2, 0, 1, 4, 3]], "int32")
    expected = tiny().get_text_features(some_ids(), position_ids=positions)
    np.testing.assert_allclose(
        tiny().optimized().get_text_features(some_ids(), position_ids=positions),
        expected,
        atol=1e-4,
    )


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "quick_gelu"])
def test_other_activations_are_computed_too(activation):
    config = joint_config(text_config(hidden_act=activation), vision_config(hidden_act=activation))
    model = make(config=config)
    same(
        model.optimized()(inputs_of("joint"), output_segmentation=True),
        model(inputs_of("joint"), output_segmentation=True),
    )


def test_a_graph_of_every_size_gives_what_eager_gives(runtime):
    import tensorflow as tf

    folded = tiny().optimized(runtime)
    traced = tf.function(
        folded.vision_model, input_signature=[tf.TensorSpec((None, 3, None, None))], autograph=False
    )
    for pixels in (some_pixels(), some_pixels(3, 12, 8)):
        same(traced(pixels), tiny().vision_model(pixels))
    assert traced.experimental_get_tracing_count() == 1


def test_predict_and_fixed_texts_work_as_with_the_plain_model(runtime):
    texts = np.eye(2, 6, dtype="float32")
    plain, folded = (model.with_text_embeds(texts) for model in (tiny(), tiny().optimized(runtime)))
    expected = plain.predict(some_pixels(3), verbose=0)
    found = folded.predict(some_pixels(3), verbose=0)
    np.testing.assert_allclose(
        found["logits_per_image"], expected["logits_per_image"], rtol=1e-4, atol=1e-4
    )


def test_it_holds_its_weights_once_and_fewer_than_the_plain_model(case):
    def size(model):
        return sum(int(keras.ops.size(variable)) for variable in model.weights)

    assert size(case.model.optimized()) <= size(case.model)


@pytest.mark.parametrize(
    ("ask", "word"),
    [
        (lambda model: model(inputs_of("joint"), output_hidden_states=True), "no hidden states"),
        (lambda model: model.text_model(some_ids(), training=True), "no training"),
        (lambda model: model.text_model(some_ids(), output_hidden_states=True), "no hidden states"),
        (lambda model: model.vision_model(some_pixels(), training=True), "no training"),
        (
            lambda model: tiny().optimized("xla"),
            "runtime is 'xla': expected one of 'graph', 'lite', 'lite_int8', 'openvino'",
        ),
        (lambda model: model.fit(inputs_of("joint")), "cannot be trained"),
        (lambda model: model.save_pretrained("folder"), "is not saved"),
        (lambda model: model.get_config(), "is not saved"),
        (lambda model: model.optimized(), "can be optimized"),
    ],
)
def test_what_folded_weights_cannot_do_is_refused(ask, word):
    with pytest.raises(InputError, match=word):
        ask(tiny().optimized())


@pytest.mark.parametrize("kind", ["half", "lora"])
def test_models_of_another_kind_are_refused(kind):
    model = make(dtype="mixed_bfloat16" if kind == "half" else None)
    if kind == "lora":
        model.vision_model.stages[0].blocks[0].mlp.fc1.enable_lora(2)
    with pytest.raises(InputError, match="can be optimized"):
        model.optimized()


def test_it_keeps_the_weights_that_it_was_made_of_and_another_has_the_new_ones():
    model = make()
    before, snapshot = numbers(model(inputs_of("joint"))["logits_per_image"]), model.optimized()
    randomise(model, seed=1)
    np.testing.assert_allclose(snapshot(inputs_of("joint"))["logits_per_image"], before, rtol=1e-4)
    same(model.optimized()(inputs_of("joint")), model(inputs_of("joint")))
