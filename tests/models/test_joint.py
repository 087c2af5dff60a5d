"""Laws of the joint model: what one image or text gets does not depend on the others, and
segmentation adds up.
"""

import numpy as np
import pytest
from keras import ops
from tiny_models import (
    equal,
    joint_config,
    make,
    numbers,
    some_ids,
    some_pixels,
    tiny,
    vision_config,
)

from tf_groupvit.models.operations import contrastive_loss, normalize, resize_maps

pytestmark = pytest.mark.models


def test_one_image_gets_what_it_gets_among_others(case):
    together = case.model(case.inputs, output_segmentation=True)
    # Segmentation logits are cosines times the square of the scale: what the last bits of a product
    # of another shape change in a cosine, they show several hundred times as large.
    tolerances = {"logits_per_image": 1e-5, "image_embeds": 1e-5, "segmentation_logits": 1e-4}
    for i in range(len(case.pixels)):
        alone = case.model(
            {**case.inputs, "pixel_values": case.pixels[i : i + 1]}, output_segmentation=True
        )
        for name, relative in tolerances.items():
            equal(alone[name], together[name][i : i + 1], relative, where=name)


def test_texts_in_another_order_give_logits_in_that_order(case):
    order = [2, 0, 1]
    plain = case.model(case.inputs, output_segmentation=True)
    turned = {
        **case.inputs,
        **{name: case.inputs[name][order] for name in ("input_ids", "attention_mask")},
    }
    turned = case.model(turned, output_segmentation=True)
    equal(turned.logits_per_image, numbers(plain.logits_per_image)[:, order])
    equal(turned.segmentation_logits, numbers(plain.segmentation_logits)[:, order])
    equal(turned.image_embeds, plain.image_embeds)


def test_text_embeds_take_the_place_of_texts(case):
    plain = case.model(case.inputs, output_segmentation=True)
    again = case.model(
        pixel_values=case.pixels, text_embeds=plain.text_embeds, output_segmentation=True
    )
    assert again.text_model_output is None
    for name in again.keys() - {"vision_model_output"}:
        equal(again[name], plain[name], where=name)


def test_logits_are_cosines_times_the_scale(case):
    result = case.model(case.inputs)
    for embeds in (result.text_embeds, result.image_embeds):
        np.testing.assert_allclose(np.linalg.norm(numbers(embeds), axis=-1), 1, rtol=1e-5)
    cosines = numbers(result.image_embeds) @ numbers(result.text_embeds).T
    equal(result.logits_per_image, cosines * np.exp(numbers(case.model.logit_scale)))
    equal(result.logits_per_text, numbers(result.logits_per_image).T)


def naive_segmentation_logits(model, pixels, text_embeds):
    """Group by group and pixel by pixel, as the definition reads: (B, N, H, W)."""
    vision = model.vision_model(pixels, output_attentions=True)
    B, _, H, W = pixels.shape
    rows, columns = (
        size // patch
        for size, patch in zip((H, W), model.config.vision_config.patch_height_width, strict=True)
    )
    maps = numbers(vision.attentions[0])
    for assignment in vision.attentions[1:]:
        maps = np.einsum("bgp,bpq->bgq", numbers(assignment), maps)
    maps = numbers(resize_maps(ops.convert_to_tensor(maps.reshape(B, -1, rows, columns)), H, W))
    groups = numbers(normalize(model.visual_projection(vision.last_hidden_state)))
    scale = np.exp(numbers(model.logit_scale))
    logits = np.zeros((B, len(text_embeds), H, W))
    for b, n in np.ndindex(B, len(text_embeds)):
        for g in range(groups.shape[1]):
            logits[b, n] += (groups[b, g] @ text_embeds[n]) * scale * maps[b, g] * scale
    return logits


def test_segmentation_logits_are_what_their_definition_says(case):
    result = case.model(case.inputs, output_segmentation=True)
    equal(
        result.segmentation_logits,
        naive_segmentation_logits(case.model, case.pixels, numbers(result.text_embeds)),
    )


def test_segmentation_has_the_size_of_the_pixels_square_or_not():
    pixels = some_pixels(2, 12, 28)
    result = tiny()(some_ids(), pixels, output_segmentation=True)
    equal(
        result.segmentation_logits,
        naive_segmentation_logits(tiny(), pixels, numbers(result.text_embeds)),
    )


def test_a_model_with_one_stage_segments_too():
    vision = vision_config(depths=(1,), num_group_tokens=(3,), num_output_groups=(3,))
    model = make(config=joint_config(vision=vision))
    result = model(some_ids(), some_pixels(), output_segmentation=True)
    equal(
        result.segmentation_logits,
        naive_segmentation_logits(model, some_pixels(), numbers(result.text_embeds)),
    )


def test_the_loss_of_two_pairs_by_hand():
    """Rows and columns of logits, each a choice between two: mean of the four cross-entropies."""
    logits = np.array([[2.0, 1.0], [0.0, 3.0]], "float32")
    choices = [(2, 1), (3, 0), (2, 0), (3, 1)]  # right and wrong, texts first
    expected = np.mean([np.log(1 + np.exp(wrong - right)) for right, wrong in choices])
    np.testing.assert_allclose(
        numbers(contrastive_loss(ops.convert_to_tensor(logits))), expected, rtol=1e-6
    )


def test_the_loss_of_one_pair_is_zero_and_of_equal_logits_the_logarithm_of_their_number():
    assert abs(float(numbers(contrastive_loss(ops.ones((1, 1)))))) < 1e-6
    np.testing.assert_allclose(numbers(contrastive_loss(ops.ones((5, 5)))), np.log(5), rtol=1e-6)


def test_images_against_texts_is_the_joint_model_with_the_texts_fixed(case):
    plain = case.model(case.inputs, output_segmentation=True)
    fixed = case.model.with_text_embeds(plain.text_embeds)
    result = fixed(case.pixels)
    assert set(result) == {"logits_per_image", "segmentation_logits", "image_embeds"}
    for name, value in result.items():
        equal(value, plain[name], where=name)
    assert set(
        case.model.with_text_embeds(plain.text_embeds, output_segmentation=False)(case.pixels)
    ) == {
        "logits_per_image",
        "image_embeds",
    }
