"""Keras' own ways to save: a model that comes back has every weight and answers alike."""

import copy
import gc
import pickle

import keras
import numpy as np
import pytest
from tiny_models import CLASSES, equal, inputs_of, joint_config, make, numbers, randomise, tiny

from tf_groupvit.checkpoints.names import checkpoint_name
from tf_groupvit.errors import CheckpointError, InputError
from tf_groupvit.models.zero_shot import FixedTextModel

pytestmark = pytest.mark.models

KINDS = ["joint", "text", "vision", "images against texts"]


def model_of(kind):
    return make().with_text_embeds(np.eye(3, 6)) if kind == "images against texts" else make(kind)


def answers(model, kind):
    inputs = inputs_of("vision" if kind == "images against texts" else kind)
    return {name: value for name, value in model(inputs).items() if not isinstance(value, dict)}


def same(again, model, kind):
    assert type(again) is type(model)
    assert [checkpoint_name(v.path) for v in again.weights] == [
        checkpoint_name(v.path) for v in model.weights
    ]
    for one, other in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(numbers(one), numbers(other), err_msg=one.path)
    equal(answers(again, kind), answers(model, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_keras_file_brings_the_model_back(kind, tmp_path):
    model = model_of(kind)
    model.save(tmp_path / "model.keras")
    same(keras.saving.load_model(tmp_path / "model.keras"), model, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_into_another_model_of_the_config(kind, tmp_path):
    model, other = model_of(kind), model_of(kind)
    randomise(other, seed=5)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    same(other, model, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_of_keras_makes_a_model_of_the_same_shape(kind):
    model = model_of(kind)
    again = type(model).from_config(model.get_config())
    assert again.name == model.name and again.dtype_policy == model.dtype_policy
    again.set_weights(model.get_weights())
    same(again, model, kind)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_is_copied_with_its_weights(again):
    model = make("text")
    same(again(model), model, "text")


@pytest.mark.filterwarnings(
    "ignore:Layer .* does not have a `quantize` method", "ignore:Invalid quantization mode"
)
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        pytest.param("int8", "joint", marks=pytest.mark.slow),
        ("int8", "text"),
        ("int4", "text"),
        ("float8", "text"),
    ],
)
def test_a_quantized_model_is_saved_and_loaded(mode, kind, tmp_path):
    model = make(kind)
    try:
        model.quantize(mode)
    except ValueError as error:  # int4 is younger than the lowest Keras
        pytest.skip(f"Keras {keras.__version__}: {error}")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert {str(v.dtype) for v in again.weights} == {str(v.dtype) for v in model.weights}
    same(again, model, kind)
    same(copy.deepcopy(model), model, kind)
    with pytest.raises(CheckpointError, match="a checkpoint holds floats"):
        model.save_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_quantizing_a_model_looks_through_no_older_objects_for_garbage(nothing_frozen):
    model, frozen = make("text"), []

    def look(phase, _):
        frozen.append(gc.get_freeze_count())

    gc.callbacks.append(look)
    try:
        model.quantize("int8")
        type(model).from_config(model.get_config())
    finally:
        gc.callbacks.remove(look)
    assert any(frozen) and not gc.get_freeze_count()


def test_layers_quantized_one_by_one_and_lora_are_saved_too(tmp_path):
    model = make("vision")
    block = model.vision_model.stages[0].blocks[0]
    block.mlp.fc1.quantize("int8")
    block.mlp.fc2.enable_lora(2)
    block.mlp.fc2.lora_kernel_b.assign(np.ones((2, 8)))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    other = again.vision_model.stages[0].blocks[0]
    assert (
        other.mlp.fc1.quantization_mode == "int8"
        and other.self_attn.q_proj.quantization_mode is None
    )
    equal(answers(again, "vision"), answers(model, "vision"))


def test_a_policy_survives_saving(tmp_path):
    model = make("text", dtype="mixed_float16")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.dtype_policy.name == "mixed_float16" and again.config == model.config
    same(again, model, "text")


def test_keys_that_we_do_not_know_survive_saving(tmp_path):
    with pytest.warns(UserWarning, match="note"):
        model = make(config=joint_config().from_dict({**joint_config().to_dict(), "note": [1]}))
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.config.extra["note"] == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_has_its_weights_before_it_is_called(kind):
    model = model_of(kind)
    assert model.built and model.count_params() > 100
    lines: list[str] = []
    model.summary(print_fn=lambda text, **_: lines.append(text))
    assert f"{model.count_params():,}" in "".join(lines)


def test_images_against_texts_keep_the_texts(tmp_path):
    texts = np.arange(12, dtype="float32").reshape(2, 6)
    model = make().with_text_embeds(texts, output_segmentation=False)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numbers(again.text_embeds), texts)
    assert type(again) is FixedTextModel and not again.output_segmentation


@pytest.mark.parametrize(
    "texts", [np.ones(6), np.ones((2, 5)), "cat", [["cat"]], np.ones((1, 2, 6))]
)
def test_texts_of_another_shape_are_refused(texts):
    with pytest.raises(InputError, match="text_embeds"):
        tiny().with_text_embeds(texts)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_name_of_ones_own_changes_no_name_of_a_weight(kind):
    from tf_groupvit.models.weights import expected_shapes

    model_class, config = CLASSES[kind]
    assert expected_shapes(model_class(config(), name="mine")) == expected_shapes(tiny(kind))
