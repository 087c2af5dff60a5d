"""Results are dicts that are also read by attribute, by position and by slice; only what was asked
for is there.
"""

import copy
import pickle

import keras
import numpy as np
import pytest
from tiny_models import EVERYTHING, equal, some_ids, some_pixels, tiny

from tf_groupvit.models.outputs import GroupViTOutput, TowerOutput

pytestmark = pytest.mark.models

TOWER = ("last_hidden_state", "pooler_output", "hidden_states", "attentions")
JOINT: tuple[str, ...] = ("loss", "logits_per_image", "logits_per_text", "segmentation_logits")
JOINT += ("text_embeds", "image_embeds", "text_model_output", "vision_model_output")


def test_the_fields_are_those_of_transformers_in_its_order():
    assert (TowerOutput.fields, GroupViTOutput.fields) == (TOWER, JOINT)


def test_entries_are_read_by_key_attribute_position_and_slice():
    output = TowerOutput.of(attentions=(3,), last_hidden_state=1, pooler_output=2)
    assert list(output) == ["last_hidden_state", "pooler_output", "attentions"]
    assert output["pooler_output"] == output.pooler_output == output[1] == output[-2] == 2
    assert output[:2] == (1, 2) and output[2] == (3,) and output.to_tuple() == (1, 2, (3,))
    assert "attentions" in output and len(output) == 3


def test_what_was_not_asked_for_is_none_by_attribute_and_missing_as_a_key():
    output = TowerOutput.of(last_hidden_state=1)
    assert output.hidden_states is None and "hidden_states" not in output
    with pytest.raises(KeyError):
        output["hidden_states"]
    with pytest.raises(IndexError):
        output[1]


def test_a_field_that_there_is_not_names_those_that_there_are():
    with pytest.raises(AttributeError, match=r"no field 'logits': it has .*pooler_output"):
        _ = TowerOutput().logits
    assert not hasattr(TowerOutput(), "__array__")


def test_only_what_was_asked_for_comes():
    ids, pixels = some_ids(2), some_pixels(2)
    plain = ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")
    result = tiny()(ids, pixels)
    assert (*result,) == (*plain, "text_model_output", "vision_model_output")
    assert (*result.text_model_output,) == (*result.vision_model_output,) == TOWER[:2]
    everything = tiny()(ids, pixels, return_loss=True, output_segmentation=True, **EVERYTHING)
    assert (*everything,) == JOINT and (*everything.text_model_output,) == (
        *everything.vision_model_output,
    ) == TOWER
    segmented = tiny()(ids, pixels, output_segmentation=True)
    assert segmented.vision_model_output.attentions is None, "used inside, but not asked for"
    assert "text_model_output" not in tiny()(pixel_values=pixels, text_embeds=np.eye(6))


def test_shapes_are_those_that_the_docstrings_promise():
    N, B, T, C, D, H, W = 3, 2, 5, 8, 6, 8, 8
    result = tiny()(some_ids(N, T), some_pixels(B, H, W), output_segmentation=True, **EVERYTHING)
    expected: dict[str, tuple[int, ...]] = {
        "logits_per_image": (B, N),
        "logits_per_text": (N, B),
        "text_embeds": (N, D),
        "image_embeds": (B, D),
    }
    expected |= {"segmentation_logits": (B, N, H, W)}
    for name, shape in expected.items():
        assert tuple(result[name].shape) == shape
    text, vision = result.text_model_output, result.vision_model_output
    assert tuple(text.last_hidden_state.shape) == (N, T, C) and tuple(text.pooler_output.shape) == (
        N,
        C,
    )
    assert [tuple(x.shape) for x in text.hidden_states] == [(N, T, C)] * 2
    assert [tuple(x.shape) for x in text.attentions] == [(N, 2, T, T)]
    assert [tuple(x.shape) for x in vision.hidden_states] == [(B, 4, C), (B, 3, C), (B, 2, C)]
    assert [tuple(x.shape) for x in vision.attentions] == [(B, 3, 4), (B, 2, 3)]
    assert tuple(vision.last_hidden_state.shape) == (B, 2, C) and tuple(
        vision.pooler_output.shape
    ) == (B, C)


def test_results_are_float32():
    result = tiny()(some_ids(2), some_pixels(2), output_segmentation=True, return_loss=True)
    assert {
        str(keras.backend.standardize_dtype(value.dtype)) for value in result.to_tuple()[:6]
    } == {"float32"}


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda output: pickle.loads(pickle.dumps(output))]
)
def test_results_survive_copying_and_pickling(again):
    output = GroupViTOutput.of(
        logits_per_image=np.eye(2), text_model_output=TowerOutput.of(pooler_output=np.ones(3))
    )
    copied = again(output)
    assert type(copied) is GroupViTOutput and type(copied.text_model_output) is TowerOutput
    equal(copied, output)
    assert copied.loss is None and list(copied) == list(output)


def test_results_are_trees_to_keras():
    output = GroupViTOutput.of(
        logits_per_image=2, vision_model_output=TowerOutput.of(attentions=(3, 4))
    )
    doubled = keras.tree.map_structure(lambda x: 2 * x, output)
    assert type(doubled) is GroupViTOutput and doubled.vision_model_output.attentions == (6, 8)
    assert keras.tree.flatten(output) == [2, 3, 4]
