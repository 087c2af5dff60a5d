"""One step of training: what moves, what stays, what only training does."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny_models import (
    equal,
    inputs_of,
    joint_config,
    make,
    numbers,
    some_ids,
    some_pixels,
    text_config,
    vision_config,
)

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel

pytestmark = pytest.mark.models


def fresh(**changes) -> TFGroupViTModel:
    keras.utils.set_random_seed(0)
    return TFGroupViTModel(joint_config(**changes))


def weights_of(model) -> dict[str, np.ndarray]:
    return {variable.path: numbers(variable).copy() for variable in model.weights}


@pytest.mark.slow
def test_fit_moves_every_weight_and_lowers_the_loss():
    """All but the key biases, which a softmax over keys cannot see, and what only one of the two
    towers reads.
    """
    model, inputs = fresh(), inputs_of("joint", 6)
    before = weights_of(model)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), jit_compile=False)
    history = model.fit(inputs, batch_size=6, epochs=12, verbose=0).history["loss"]
    assert np.isfinite(history).all() and min(history[-3:]) < history[0]
    unused = ("k_proj/bias",)
    still = [
        path for path, value in weights_of(model).items() if np.array_equal(value, before[path])
    ]
    assert [path for path in still if not path.endswith(unused)] == []


def test_evaluate_gives_the_contrastive_loss():
    model, inputs = make(), inputs_of("joint", 4)
    model.compile(jit_compile=False)
    expected = float(numbers(model(inputs, return_loss=True).loss))
    np.testing.assert_allclose(model.evaluate(inputs, batch_size=4, verbose=0), expected, rtol=1e-5)


def test_a_loss_of_ones_own_takes_the_place_of_the_contrastive_one():
    model, pixels = make("vision"), some_pixels(4)
    model.compile(
        "sgd",
        loss={"pooler_output": lambda y, found: ops.mean(ops.square(y - found))},
        jit_compile=False,
    )
    target = {"pooler_output": np.zeros((4, 8), "float32")}
    found = model.evaluate(pixels, target, batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        found["loss"], np.square(numbers(model(pixels).pooler_output)).mean(), rtol=1e-5
    )


def test_pairs_that_are_none_are_refused_in_fit_too():
    model = make()
    model.compile(optimizer="sgd", jit_compile=False)
    with pytest.raises(InputError, match="rows differ"):
        model.fit({"input_ids": some_ids(3), "pixel_values": some_pixels(2)}, verbose=0)


def test_statistics_move_in_training_only():
    """Momentum 0.9: the new mean is nine tenths of the old one and a tenth of the batch's."""
    model, inputs = make(), inputs_of("joint", 4)
    norm = model.text_projection.norm
    before = numbers(norm.moving_mean).copy()
    model(inputs)
    np.testing.assert_array_equal(numbers(norm.moving_mean), before)
    pooled = model.text_model(
        inputs["input_ids"], attention_mask=inputs["attention_mask"]
    ).pooler_output
    mean = numbers(model.text_projection.inner(pooled)).mean(axis=0)
    model(inputs, training=True)
    np.testing.assert_allclose(
        numbers(norm.moving_mean), 0.9 * before + 0.1 * mean, rtol=1e-4, atol=1e-5
    )


def test_features_in_training_use_the_statistics_of_the_batch():
    model, ids = make(), some_ids(4)
    plain = numbers(model.get_text_features(ids))
    assert np.abs(numbers(model.get_text_features(ids, training=True)) - plain).max() > 1e-3


@pytest.mark.parametrize("field", ["dropout", "attention_dropout"])
def test_dropout_changes_training_only(field):
    keras.utils.set_random_seed(0)
    config = vision_config(
        num_group_tokens=(0, 0), num_output_groups=(0, 0), depths=(2, 1), **{field: 0.5}
    )
    model, without = make("vision", config), make("vision", config.replace(**{field: 0.0}))
    pixels = some_pixels()
    equal(model(pixels), without(pixels))
    equal(without(pixels, training=True), without(pixels))
    one, other = (numbers(model(pixels, training=True).last_hidden_state) for _ in range(2))
    assert np.abs(one - other).max() > 1e-3


def test_dropout_of_attention_in_the_text_tower_changes_training_only():
    model, ids = make("text", text_config(attention_dropout=0.5)), some_ids()
    equal(model(ids), make("text")(ids))
    one, other = (numbers(model(ids, training=True).last_hidden_state) for _ in range(2))
    assert np.abs(one - other).max() > 1e-3


def test_new_weights_are_drawn_as_the_config_says():
    """Embeddings N(0, 0.02 f), attention and MLP by their widths; norms and biases at 1 and 0."""
    keras.utils.set_random_seed(0)
    text = text_config(vocab_size=400, hidden_size=32, intermediate_size=64, initializer_factor=2.0)
    model = TFGroupViTModel(joint_config(text=text))
    weights = {
        path.replace("-", "."): value for path, value in weights_of(model).items()
    }  # PyTorch's have no dots
    assert abs(weights["text_model.embeddings.token_embedding/embeddings"].std() - 0.04) < 0.002
    layer = "text_model.encoder.layers.0"
    assert abs(weights[f"{layer}.self_attn.out_proj/kernel"].std() - 2 * 32**-0.5) < 0.04
    assert abs(weights[f"{layer}.self_attn.q_proj/kernel"].std() - 2 * 64**-0.5) < 0.03
    assert abs(weights[f"{layer}.mlp.fc1/kernel"].std() - 2 * 64**-0.5) < 0.03
    for path, value in weights.items():
        if path.endswith(("/bias", "/beta")):
            assert not value.any(), path
        if path.endswith("/gamma"):
            assert (value == 1).all(), path


def test_the_scale_starts_where_the_config_says():
    assert abs(float(numbers(fresh(logit_scale_init_value=1.25).logit_scale)) - 1.25) < 1e-6
