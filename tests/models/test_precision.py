"""Half floats: nothing overflows, and groups are chosen as in float32."""

import keras
import numpy as np
import pytest
from tiny_models import (
    CLASSES,
    EVERYTHING,
    inputs_of,
    numbers,
    randomise,
    some_ids,
    some_pixels,
    tiny,
)

from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.text import TFGroupViTTextModel

POLICIES = ["float16", "mixed_float16", "bfloat16", "mixed_bfloat16"]

pytestmark = pytest.mark.models


def finite(tree) -> bool:
    return all(np.isfinite(numbers(x).astype("float32")).all() for x in keras.tree.flatten(tree))


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_overflows_at_the_largest_logit_scale(policy):
    model = TFGroupViTModel(CLASSES["joint"][1](), dtype=policy)
    randomise(model)
    model.logit_scale.assign(4.6)
    result = model(inputs_of("joint"), output_segmentation=True, return_loss=True, **EVERYTHING)
    assert finite(result) and np.abs(numbers(result.logits_per_image)).max() <= 100.5
    compute = keras.dtype_policies.get(policy).compute_dtype
    assert (
        keras.backend.standardize_dtype(result.text_model_output.last_hidden_state.dtype) == compute
    )
    for name in ("loss", "logits_per_image", "segmentation_logits", "text_embeds", "image_embeds"):
        assert keras.backend.standardize_dtype(result[name].dtype) == "float32"


@pytest.mark.parametrize("policy", ["float32", *POLICIES])
def test_rows_that_see_nothing_stay_finite(policy):
    model = tiny("text", policy)
    result = model(some_ids(), np.zeros((3, 5), "int32"), **EVERYTHING)
    assert finite(result)
    np.testing.assert_allclose(
        numbers(result.attentions[0]).astype("float32").sum(-1), 1, rtol=1e-2
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_attention_is_not_overwhelmed_by_large_weights(policy):
    """Queries and keys of several hundred: their products leave what float16 can hold."""
    model = TFGroupViTTextModel(CLASSES["text"][1](), dtype=policy)
    randomise(model)
    for variable in model.weights:
        if "q_proj/kernel" in variable.path or "k_proj/kernel" in variable.path:
            variable.assign(numbers(variable).astype("float32") * 300)
    assert finite(model(some_ids(), **EVERYTHING))


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_assignments_and_labels_agree_with_float32(case, policy):
    """Over nine tenths of the patches: half floats carry three digits, and sums of them decide
    close calls.
    """
    half = TFGroupViTModel.from_pretrained(case.folder, dtype=policy)
    for soft, exact in zip(
        half.vision_model(case.pixels, output_attentions=True).attentions,
        case.model.vision_model(case.pixels, output_attentions=True).attentions,
        strict=True,
    ):
        assert (numbers(soft).argmax(1) == numbers(exact).argmax(1)).mean() > 0.9
    labels, expected = (
        numbers(model(case.inputs, output_segmentation=True).segmentation_logits).argmax(1)
        for model in (half, case.model)
    )
    assert (labels == expected).mean() > 0.9


def test_a_policy_changes_what_the_variables_are():
    for policy, dtype in (("float16", "float16"), ("mixed_float16", "float32"), (None, "float32")):
        assert {variable.dtype for variable in tiny("text", policy).weights} == {dtype}


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has no float64 unless its process is told so"
)
def test_float64_is_carried_through():
    model = TFGroupViTModel(CLASSES["joint"][1](), dtype="float64")
    assert finite(model(some_ids(2), some_pixels(2), output_segmentation=True))
