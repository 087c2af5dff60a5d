"""Keras' predict: every row as in one call, and never a pairing that its batches would make wrong
in silence.
"""

import keras
import numpy as np
import pytest
from tiny_models import (
    END,
    EVERYTHING,
    equal,
    inputs_of,
    make,
    numbers,
    some_ids,
    some_pixels,
    tiny,
)

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import PAIRWISE

pytestmark = pytest.mark.models

ROWS = 5


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_towers_predict_what_they_compute_in_batches_that_do_not_divide(kind):
    inputs = inputs_of(kind, ROWS)
    predicted = tiny(kind).predict(inputs, batch_size=2, verbose=0)
    assert type(predicted["pooler_output"]) is np.ndarray
    equal(predicted, tiny(kind)(inputs))


def test_the_vision_tower_takes_a_bare_array():
    pixels = some_pixels(3)
    equal(tiny("vision").predict(pixels, verbose=0), tiny("vision")(pixels))
    equal(tiny("text").predict(some_ids(3), verbose=0), tiny("text")(some_ids(3)))


def test_pairs_give_embeddings_for_every_row_and_no_pairwise_logits():
    inputs = inputs_of("joint", ROWS)
    predicted, computed = tiny().predict(inputs, batch_size=2, verbose=0), tiny()(inputs)
    assert not predicted.keys() & set(PAIRWISE)
    for name in predicted:
        equal(predicted[name], computed[name], where=name)
    logits = (
        predicted["image_embeds"] @ predicted["text_embeds"].T * np.exp(numbers(tiny().logit_scale))
    )
    equal(logits, computed.logits_per_image)


def test_images_against_texts_predict_logits_and_maps():
    texts = numbers(tiny()(inputs_of("joint", 3)).text_embeds)
    fixed, pixels = tiny().with_text_embeds(texts), some_pixels(ROWS)
    predicted = fixed.predict(pixels, batch_size=2, verbose=0)
    assert predicted["logits_per_image"].shape == (ROWS, 3)
    assert predicted["segmentation_logits"].shape == (ROWS, 3, 8, 8)
    whole = tiny()(pixel_values=pixels, text_embeds=texts, output_segmentation=True)
    for name in predicted:
        equal(predicted[name], whole[name], where=name)
    equal(fixed.predict({"pixel_values": pixels}, verbose=0), predicted)


def test_different_numbers_of_texts_and_images_are_refused():
    with pytest.raises(InputError, match=r"rows differ: .*with_text_embeds") as caught:
        tiny().predict({"input_ids": some_ids(3), "pixel_values": some_pixels(2)}, verbose=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("several", [list, tuple])
def test_a_list_of_inputs_is_refused(several):
    with pytest.raises(InputError, match="one dict of inputs"):
        tiny().predict(several([some_ids(2), some_pixels(2)]), verbose=0)


def test_texts_alone_are_refused_in_one_line():
    with pytest.raises(InputError, match="pixel_values are missing") as caught:
        tiny().predict({"input_ids": some_ids(2)}, verbose=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ids: np.where(ids == END, 1, ids), "has no end token 9"),
        (lambda ids: ids + 9, "vocabulary is 0 to 11"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "joint"])
def test_ids_that_cannot_be_right_are_refused_before_a_graph_takes_them(kind, change, words):
    """In a graph a text without its end gives another's embedding, and under JAX any id something."""
    inputs = inputs_of(kind)
    inputs["input_ids"] = change(np.asarray(inputs["input_ids"]))
    with pytest.raises(InputError, match=words):
        tiny(kind).predict(inputs, verbose=0)


@pytest.mark.parametrize("loop", ["predict", "evaluate"])
def test_a_loop_that_fails_leaves_the_weights_where_they_were(loop):
    model, inputs = make(), inputs_of("joint")
    model.compile()
    expected = model(inputs)
    with pytest.raises(InputError):
        getattr(model, loop)({"input_ids": inputs["input_ids"]}, verbose=0)
    equal(model(inputs)["text_embeds"], expected["text_embeds"])


def test_one_batch_may_be_predicted_by_hand():
    inputs = inputs_of("joint")
    predicted = tiny().predict_on_batch(inputs)
    assert not predicted.keys() & set(PAIRWISE)
    equal(predicted["text_embeds"], tiny()(inputs).text_embeds)


def test_attentions_and_hidden_states_come_with_the_config():
    from tiny_models import text_config

    model = make("text", text_config(output_attentions=True, output_hidden_states=True))
    ids = some_ids(ROWS)
    predicted = model.predict(ids, batch_size=2, verbose=0)
    equal(predicted, model(ids, **EVERYTHING))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data belongs to TensorFlow")
def test_datasets_of_dicts_are_predicted():
    import tensorflow as tf

    inputs = inputs_of("joint", ROWS)
    dataset = tf.data.Dataset.from_tensor_slices(inputs).batch(2)
    predicted = tiny().predict(dataset, verbose=0)
    assert predicted["image_embeds"].shape == (ROWS, 6)
    equal(predicted["text_embeds"], tiny()(inputs).text_embeds)
