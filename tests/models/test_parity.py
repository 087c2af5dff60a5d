"""Outputs, hidden states, attentions, features and gradients equal those of transformers' PyTorch
class.
"""

import keras
import numpy as np
import pytest

from tf_groupvit.models.text import TFGroupViTTextModel
from tf_groupvit.models.vision import TFGroupViTVisionModel

pytestmark = pytest.mark.models

ALL = {"output_segmentation": True, "output_hidden_states": True, "output_attentions": True}
JOINT = ("logits_per_image", "segmentation_logits", "text_embeds", "image_embeds")
KINDS = ("hidden_states", "attentions")


def test_the_joint_model_gives_what_pytorch_gives(case, close):
    result = case.model(case.inputs, **ALL)
    for name in JOINT:
        close(result[name], case.expected[name])
    close(result["logits_per_text"], case.expected["logits_per_image"].T)


def check_tower(output, expected, tower, close):
    close(output["last_hidden_state"], expected[f"{tower}.last_hidden_state"])
    close(output["pooler_output"], expected[f"{tower}.pooler_output"])
    for kind in KINDS:
        assert f"{tower}.{kind}.{len(output[kind])}" not in expected
        for i, value in enumerate(output[kind]):
            close(value, expected[f"{tower}.{kind}.{i}"])


def test_the_towers_inside_the_joint_model_give_what_pytorch_gives(case, close):
    result = case.model(case.inputs, **ALL)
    check_tower(result.text_model_output, case.expected, "text", close)
    check_tower(result.vision_model_output, case.expected, "vision", close)


def test_the_towers_alone_load_from_the_joint_checkpoint(case, close):
    flags = {"output_hidden_states": True, "output_attentions": True}
    text = TFGroupViTTextModel.from_pretrained(case.folder)
    vision = TFGroupViTVisionModel.from_pretrained(case.folder)
    check_tower(text(case.ids, case.mask, **flags), case.expected, "text", close)
    check_tower(vision(case.pixels, **flags), case.expected, "vision", close)


def test_assignments_are_identical(case):
    result = case.model.vision_model(case.pixels, output_attentions=True)
    for i, soft in enumerate(result.attentions):
        expected = case.expected[f"vision.attentions.{i}"]
        chosen = keras.ops.convert_to_numpy(soft).argmax(axis=1)
        np.testing.assert_array_equal(chosen, expected.argmax(axis=1))
        assert len(np.unique(chosen)) > 1


def test_features_are_projected_and_not_normalised(case, close):
    close(case.model.get_text_features(case.ids, case.mask), case.expected["text_features"])
    close(case.model.get_image_features(case.pixels), case.expected["image_features"])


def test_mask_and_positions_may_be_left_out_or_given(case, close):
    plain = case.model(case.ids, case.pixels)
    close(plain.logits_per_image, case.expected["unmasked.logits_per_image"])
    flipped = case.model(case.inputs, position_ids=np.arange(9)[::-1][None].copy())
    close(flipped.text_embeds, case.expected["flipped_positions.text_embeds"])


def test_the_loss_equals_that_of_pytorch(case, close):
    result = case.model(case.pairs, return_loss=True)
    close(result.loss, case.expected["loss"])


@pytest.mark.parametrize("size", ["larger", "smaller"])
def test_positions_are_resized_as_pytorch_does_it(three_stages, size, close):
    pixels = three_stages.expected[f"{size}.pixel_values"]
    result = three_stages.model.vision_model(pixels, output_hidden_states=True)
    close(result.hidden_states[0], three_stages.expected[f"{size}.embeddings"])
    close(result.last_hidden_state, three_stages.expected[f"{size}.last_hidden_state"])


def gradients_of(case):
    """Variable name -> gradient of the contrastive loss, on whichever backend."""
    from tf_groupvit.models.weights import variables_by_name

    named = variables_by_name(case.model)
    trainable = {name: variable for name, variable in named.items() if variable.trainable}

    def loss():
        return case.model(case.pairs, return_loss=True, training=False).loss

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        found = tape.gradient(value, [variable.value for variable in trainable.values()])
    elif keras.backend.backend() == "jax":
        found = jax_gradients(case, list(trainable.values()))
    else:
        case.model.zero_grad()
        loss().backward()
        found = [variable.value.grad for variable in trainable.values()]
    return {
        name: (variable, gradient)
        for (name, variable), gradient in zip(trainable.items(), found, strict=True)
    }


def jax_gradients(case, variables):
    import jax

    def loss(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return case.model(case.pairs, return_loss=True, training=False).loss

    # Op by op, JAX would compile a thousand programs.
    return jax.jit(jax.grad(loss))([variable.value for variable in variables])


def test_gradients_of_the_loss_equal_those_of_pytorch(case):
    """Within 1e-3 of the largest gradient; those through the assignment pass straight through the
    choice.
    """
    from tf_groupvit.checkpoints.names import to_checkpoint_layout

    largest = max(
        np.abs(value).max() for name, value in case.expected.items() if name.startswith("gradient.")
    )
    compared = 0
    for name, (variable, gradient) in gradients_of(case).items():
        expected = case.expected.get(f"gradient.{name}")
        if expected is None:
            assert gradient is None or not np.any(dense(gradient))
            continue
        actual = to_checkpoint_layout(dense(gradient), variable.path)
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5 * largest, err_msg=name)
        compared += 1
    assert compared == sum(name.startswith("gradient.") for name in case.expected)


def dense(gradient) -> np.ndarray:
    if hasattr(gradient, "indices"):  # TensorFlow gives the rows of an embedding that were used
        import tensorflow as tf

        gradient = tf.convert_to_tensor(gradient)
    return keras.ops.convert_to_numpy(gradient)
