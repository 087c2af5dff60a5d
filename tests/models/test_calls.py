"""Every way to call the three models comes to the same; every wrong way is refused in one line."""

from typing import Any

import keras
import numpy as np
import pytest
from tiny_models import (
    END,
    EVERYTHING,
    equal,
    inputs_of,
    joint_config,
    make,
    numbers,
    some_ids,
    some_pixels,
    text_config,
    tiny,
)

from tf_groupvit.errors import ConfigError, GroupViTError, InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.layers import Block
from tf_groupvit.models.text import TFGroupViTTextModel
from tf_groupvit.models.vision import TFGroupViTVisionModel

pytestmark = pytest.mark.models

IDS, PIXELS = some_ids(), some_pixels()
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], "int32")
POSITIONS = np.arange(5)[None] + 1


def test_inputs_by_position_by_name_and_as_a_dict_give_the_same():
    model = tiny()
    named = {
        "input_ids": IDS,
        "pixel_values": PIXELS,
        "attention_mask": MASK,
        "position_ids": POSITIONS,
    }
    expected = model(**named)
    equal(model(IDS, PIXELS, MASK, POSITIONS), expected)
    equal(model(named), expected)
    equal(
        model({"input_ids": IDS, "pixel_values": PIXELS}, None, MASK, position_ids=POSITIONS),
        expected,
    )
    equal(model({**named, "text_embeds": None}), expected)


def test_flags_may_stand_in_their_place():
    """transformers' order: ids, pixels, mask, positions, return_loss, attentions, hidden states,
    segmentation.
    """
    ids, mask = IDS[:2], MASK[:2]
    by_place = tiny()(ids, PIXELS, mask, None, True, True, True, True, True, False)
    by_name = tiny()(
        input_ids=ids,
        pixel_values=PIXELS,
        attention_mask=mask,
        return_loss=True,
        output_segmentation=True,
        **EVERYTHING,
    )
    equal(by_place, by_name)
    assert (
        set(by_place) == {*type(by_place).fields}
        and by_place.vision_model_output.hidden_states is not None
    )
    text = tiny("text")(IDS, MASK, POSITIONS, True, True, True, False)
    equal(text, tiny("text")(IDS, MASK, POSITIONS, **EVERYTHING))
    assert [*text] == [*text.fields]
    equal(tiny("vision")(PIXELS, True, True, True, False), tiny("vision")(PIXELS, **EVERYTHING))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_ids_of_any_integer_type_are_taken(dtype):
    equal(tiny("text")(IDS.astype(dtype)), tiny("text")(IDS))


@pytest.mark.parametrize("dtype", ["bool", "float32", "int64", "uint8"])
def test_masks_of_any_type_are_taken(dtype):
    equal(tiny("text")(IDS, MASK.astype(dtype)), tiny("text")(IDS, MASK))


def test_nested_lists_and_tensors_are_taken():
    equal(tiny()(IDS.tolist(), PIXELS.tolist(), MASK.tolist()), tiny()(IDS, PIXELS, MASK))
    equal(tiny()({"input_ids": IDS.tolist(), "pixel_values": list(PIXELS)}), tiny()(IDS, PIXELS))
    tensors = keras.ops.convert_to_tensor(IDS), keras.ops.convert_to_tensor(PIXELS)
    equal(tiny()(*tensors), tiny()(IDS, PIXELS))
    equal(
        tiny()(pixel_values=PIXELS, text_embeds=[[1] + [0] * 5]),
        tiny()(pixel_values=PIXELS, text_embeds=np.eye(1, 6)),
    )


def test_float64_and_float16_pixels_are_taken():
    for dtype, tolerance in (("float64", 1e-5), ("float16", 1e-2)):
        equal(tiny("vision")(PIXELS.astype(dtype)), tiny("vision")(PIXELS), tolerance)


def test_one_text_may_come_without_its_dimension():
    equal(tiny("text")(IDS[1], MASK[1]), tiny("text")(IDS[1:2], MASK[1:2]))


def test_a_mask_of_one_row_serves_all_texts():
    equal(tiny("text")(IDS, np.ones((1, 5), "int32")), tiny("text")(IDS))


def test_no_texts_and_no_images_give_empty_results():
    result = tiny()(IDS[:0], PIXELS[:0], output_segmentation=True)
    assert tuple(result.logits_per_image.shape) == (0, 0)
    assert tuple(result.segmentation_logits.shape) == (0, 0, 8, 8)
    assert tuple(tiny()(IDS, PIXELS[:0]).logits_per_text.shape) == (3, 0)


def test_features_take_what_the_call_takes():
    features = tiny().get_text_features(IDS, MASK)
    equal(tiny().get_text_features({"input_ids": IDS, "attention_mask": MASK}), features)
    equal(
        tiny().get_text_features(IDS.tolist(), attention_mask=MASK.tolist(), return_dict=True),
        features,
    )
    equal(
        tiny().get_image_features({"pixel_values": PIXELS}),
        tiny().get_image_features(pixel_values=PIXELS),
    )


def test_embeddings_are_the_features_at_length_one():
    result, features = tiny()(IDS, PIXELS), numbers(tiny().get_text_features(IDS))
    equal(result.text_embeds, features / np.linalg.norm(features, axis=-1, keepdims=True))
    features = numbers(tiny().get_image_features(PIXELS))
    equal(result.image_embeds, features / np.linalg.norm(features, axis=-1, keepdims=True))


def test_flags_come_from_the_config_unless_given():
    config = joint_config(output_attentions=True, output_segmentation=True)
    model = make(config=config)
    result = model(IDS, PIXELS)
    assert len(result.vision_model_output.attentions) == 2 and "segmentation_logits" in result
    result = model(IDS, PIXELS, output_attentions=False, output_segmentation=False)
    assert result.vision_model_output.attentions is None and result.segmentation_logits is None
    text = make("text", text_config(output_hidden_states=True))
    assert (
        len(text(IDS).hidden_states) == 2
        and text(IDS, output_hidden_states=False).hidden_states is None
    )


WRONG: dict[str, Any] = {
    "nothing": (dict(), "pixel_values are missing"),
    "no texts": (dict(pixel_values=PIXELS), "either input_ids"),
    "no images": (dict(input_ids=IDS), "pixel_values are missing"),
    "texts twice": (
        dict(input_ids=IDS, pixel_values=PIXELS, text_embeds=np.eye(6)),
        "one of them, and not both",
    ),
    "words": (dict(input_ids=["a cat", "a dog"], pixel_values=PIXELS), "token ids"),
    "a word": (dict(input_ids="a cat", pixel_values=PIXELS), "input_ids is str"),
    "an array of words": (dict(input_ids=np.array(["a cat"]), pixel_values=PIXELS), "token ids"),
    "ragged rows": (
        dict(input_ids=[[1, END], [END]], pixel_values=PIXELS),
        "input_ids is parts",
    ),
    "several in a list": (dict(input_ids=[IDS, PIXELS]), "several inputs go in as a dict"),
    "fractions": (
        dict(input_ids=IDS + 0.5, pixel_values=PIXELS),
        "input_ids is float64: expected token ids",
    ),
    "yes and no": (dict(input_ids=IDS > 3, pixel_values=PIXELS), "input_ids is bool"),
    "one number": (
        dict(input_ids=np.int32(END), pixel_values=PIXELS),
        "a single number|A single number",
    ),
    "no tokens": (dict(input_ids=IDS[:, :0], pixel_values=PIXELS), "no tokens"),
    "too many tokens": (
        dict(input_ids=np.full((1, 8), END), pixel_values=PIXELS),
        "8 tokens long: this model takes 7",
    ),
    "negative ids": (dict(input_ids=-IDS, pixel_values=PIXELS), "vocabulary is 0 to 11"),
    "ids too high": (dict(input_ids=IDS + 9, pixel_values=PIXELS), "vocabulary is 0 to 11"),
    "ids far too high": (
        dict(input_ids=IDS.astype("int64") + 2**40, pixel_values=PIXELS),
        "hold numbers up to 10995",
    ),
    "no end": (
        dict(input_ids=np.ones((2, 3), int), pixel_values=PIXELS),
        "Row 0 of input_ids has no end token 9",
    ),
    "short mask": (
        dict(input_ids=IDS, pixel_values=PIXELS, attention_mask=MASK[:, :3]),
        "attention_mask has shape",
    ),
    "mask of fewer": (
        dict(input_ids=IDS, pixel_values=PIXELS, attention_mask=MASK[:2]),
        "attention_mask has shape",
    ),
    "mask of words": (
        dict(input_ids=IDS, pixel_values=PIXELS, attention_mask="on"),
        "attention_mask is str",
    ),
    "mask and embeds": (
        dict(text_embeds=np.eye(6), pixel_values=PIXELS, attention_mask=MASK),
        "goes with input_ids",
    ),
    "far positions": (
        dict(input_ids=IDS, pixel_values=PIXELS, position_ids=POSITIONS + 7),
        "positions 0 to 6",
    ),
    "negative positions": (
        dict(input_ids=IDS, pixel_values=PIXELS, position_ids=-POSITIONS),
        "positions 0 to 6",
    ),
    "short positions": (
        dict(input_ids=IDS, pixel_values=PIXELS, position_ids=[[0, 1]]),
        "position_ids has shape",
    ),
    "channels last": (
        dict(input_ids=IDS, pixel_values=PIXELS.transpose(0, 2, 3, 1)),
        "channels first",
    ),
    "one image bare": (dict(input_ids=IDS, pixel_values=PIXELS[0]), r"expected \(B, 3, H, W\)"),
    "bytes": (
        dict(input_ids=IDS, pixel_values=np.zeros((2, 3, 8, 8), "uint8")),
        "is uint8: expected normalized",
    ),
    "a path": (dict(input_ids=IDS, pixel_values="cat.jpg"), "pixel_values is str"),
    "images of two sizes": (
        dict(input_ids=IDS, pixel_values=[PIXELS[0], PIXELS[0, :, :4]]),
        "different shapes",
    ),
    "height": (
        dict(input_ids=IDS, pixel_values=PIXELS[:, :, :7]),
        "height 7: expected a multiple of the patch size 4",
    ),
    "width": (dict(input_ids=IDS, pixel_values=PIXELS[..., :0]), "width 0: expected a multiple"),
    "narrow embeds": (dict(text_embeds=np.eye(5), pixel_values=PIXELS), r"expected \(N, 6\)"),
    "one embedding bare": (dict(text_embeds=np.ones(6), pixel_values=PIXELS), r"expected \(N, 6\)"),
    "words as embeds": (dict(text_embeds=["cat"], pixel_values=PIXELS), "text_embeds is"),
    "pairs": (dict(input_ids=IDS, pixel_values=PIXELS, return_loss=True), "3 texts and 2 images"),
    "a tuple": (dict(input_ids=IDS, pixel_values=PIXELS, return_dict=False), "to_tuple"),
    "a typo": (
        dict(input_ids={"input_idz": IDS, "pixel_values": PIXELS}),
        "did you mean 'input_ids'",
    ),
    "a typo with a list": (
        dict(input_ids={"input_idz": IDS.tolist(), "pixel_values": PIXELS}),
        "did you mean 'input_ids'",
    ),
    "a flag inside": (
        dict(input_ids={"input_ids": IDS, "return_loss": True}),
        "flags are arguments",
    ),
    "twice": (
        dict(input_ids={"input_ids": IDS, "pixel_values": PIXELS}, pixel_values=PIXELS),
        "pixel_values was given twice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_refused_in_one_line(case):
    arguments, told = WRONG[case]
    with pytest.raises(InputError, match=told) as caught:
        tiny()(**arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_the_features_refuse_what_they_do_not_know():
    for wrong in (
        lambda: tiny().get_text_features(IDS, colour=1),
        lambda: tiny().get_image_features(PIXELS, colour=1),
    ):
        with pytest.raises(InputError, match="no argument 'colour'"):
            wrong()
    for empty in (
        tiny().get_text_features,
        tiny().get_image_features,
        tiny("text"),
        tiny("vision"),
    ):
        with pytest.raises(InputError, match="are missing"):
            empty()
    with pytest.raises(InputError, match="to_tuple"):
        tiny().get_text_features(IDS, return_dict=False)


def test_too_many_arguments_and_one_given_twice_are_told():
    with pytest.raises(InputError, match="there are 11"):
        tiny()(*[None] * 12)
    with pytest.raises(InputError, match="input_ids was given twice"):
        tiny()(IDS, PIXELS, input_ids=IDS)


@pytest.mark.parametrize(
    "model_class", [TFGroupViTModel, TFGroupViTTextModel, TFGroupViTVisionModel]
)
def test_a_model_takes_its_own_config_alone(model_class):
    configs: tuple[Any, ...] = ({}, None, "config.json", model_class.config_class)
    for config in configs:
        with pytest.raises(ConfigError, match=f"takes a {model_class.config_class.__name__}"):
            model_class(config)
    wrong: Any = joint_config()
    with pytest.raises(ConfigError, match=r"takes a GroupViTTextConfig, .* give its text_config"):
        TFGroupViTTextModel(wrong)


@pytest.mark.parametrize("dtype", ["float13", "int32", "bool", "", 3])
def test_a_dtype_that_is_none_is_told(dtype):
    with pytest.raises(GroupViTError, match="float32") as caught:
        TFGroupViTTextModel(text_config(), dtype=dtype)
    assert "\n" not in str(caught.value)


def test_inputs_may_be_symbolic():
    """As in a functional Keras model of one's own around ours."""
    known = (
        keras.backend.backend() != "tensorflow"
    )  # the others cannot reason about sizes that they do not know
    pixels = keras.Input((3, 8, 8) if known else (3, None, None))
    texts = keras.Input((6,))
    logits = tiny()(pixel_values=pixels, text_embeds=texts)["logits_per_image"]
    around = keras.Model([pixels, texts], logits)
    equal(
        around([PIXELS, np.eye(6)]),
        tiny()(pixel_values=PIXELS, text_embeds=np.eye(6)).logits_per_image,
    )


def test_inputs_of_every_kind_of_model_are_taken_by_name():
    for kind in ("joint", "text", "vision"):
        inputs = inputs_of(kind)
        equal(tiny(kind)(**inputs), tiny(kind)(inputs))


def test_the_first_call_runs_each_block_once(monkeypatch):
    """Keras runs layers that are not built once more, to find their variables."""
    model, runs = make(), []
    call = Block.call

    def counted(block, *arguments, **keywords):
        runs.append(block.name)
        return call(block, *arguments, **keywords)

    monkeypatch.setattr(Block, "call", counted)
    model(inputs_of("joint"))
    stages = model.vision_model.stages
    blocks = [*model.text_model.blocks, *(block for stage in stages for block in stage.blocks)]
    assert sorted(runs) == sorted(block.name for block in blocks)
