"""What transformers 4.57 showed of its TensorFlow classes, written anew: only the imports and the
processor change.

Its pages show an example for each of the three classes, for the features and for a configuration.
What a user of these would have typed is here, with ``return_tensors`` gone and the paths of this
test's folder.
"""

import numpy as np
import pytest


@pytest.fixture
def place(workplace, monkeypatch):
    monkeypatch.chdir(workplace)


TEXTS = ["a photo of a cat", "a photo of a dog"]


def probabilities(logits):
    import keras

    return keras.ops.convert_to_numpy(keras.ops.softmax(logits, axis=-1))


def test_the_joint_model_scores_an_image_against_texts(place):
    from PIL import Image

    from tf_groupvit import ImageProcessor, TFGroupViTModel, Tokenizer

    model = TFGroupViTModel.from_pretrained("checkpoint")
    tokenizer, processor = (
        Tokenizer.from_pretrained("checkpoint"),
        ImageProcessor.from_pretrained("checkpoint"),
    )
    image = Image.open("photo.jpg")

    inputs = {**tokenizer(TEXTS, padding="longest"), **processor([image])}
    outputs = model(**inputs)
    logits_per_image = outputs.logits_per_image  # this is the image-text similarity score
    probs = probabilities(logits_per_image)
    assert probs.shape == (1, 2)
    assert probs.sum() == pytest.approx(1)


def test_the_text_model_gives_hidden_states_and_a_pooled_state(place):
    from tf_groupvit import TFGroupViTTextModel, Tokenizer

    tokenizer = Tokenizer.from_pretrained("checkpoint")
    model = TFGroupViTTextModel.from_pretrained("checkpoint")
    inputs = tokenizer(TEXTS, padding="longest")
    outputs = model(**inputs)
    last_hidden_state = outputs.last_hidden_state
    pooled_output = outputs.pooler_output  # pooled (EOS token) states
    assert last_hidden_state.shape == (*inputs["input_ids"].shape, model.config.hidden_size)
    assert pooled_output.shape == (2, model.config.hidden_size)
    assert np.array_equal(outputs[0], last_hidden_state)
    assert np.array_equal(outputs[1], pooled_output)


def test_the_vision_model_gives_hidden_states_and_a_pooled_state(place):
    from PIL import Image

    from tf_groupvit import ImageProcessor, TFGroupViTVisionModel

    processor = ImageProcessor.from_pretrained("checkpoint")
    model = TFGroupViTVisionModel.from_pretrained("checkpoint")
    outputs = model(**processor([Image.open("photo.jpg")]))
    groups = model.config.num_output_groups[-1]
    assert outputs.last_hidden_state.shape == (1, groups, model.config.hidden_size)
    assert outputs.pooler_output.shape == (1, model.config.hidden_size)


def test_text_features_are_projected(place):
    from tf_groupvit import TFGroupViTModel, Tokenizer

    model = TFGroupViTModel.from_pretrained("checkpoint")
    inputs = Tokenizer.from_pretrained("checkpoint")(TEXTS, padding="longest")
    text_features = model.get_text_features(**inputs)
    assert text_features.shape == (2, model.config.projection_dim)


def test_image_features_are_projected(place):
    from tf_groupvit import ImageProcessor, TFGroupViTModel

    model = TFGroupViTModel.from_pretrained("checkpoint")
    inputs = ImageProcessor.from_pretrained("checkpoint")("photo.jpg")
    image_features = model.get_image_features(**inputs)
    assert image_features.shape == (1, model.config.projection_dim)


def test_a_model_is_made_from_a_configuration():
    from tf_groupvit import GroupViTConfig, GroupViTTextConfig, GroupViTVisionConfig

    config = GroupViTConfig.from_text_vision_configs(GroupViTTextConfig(), GroupViTVisionConfig())
    assert config.text_config.hidden_size == 256
    assert tuple(config.vision_config.depths) == (6, 3, 3)


def test_the_call_takes_its_arguments_by_position_or_as_one_dict(place):
    from tf_groupvit import ImageProcessor, TFGroupViTModel, Tokenizer

    model = TFGroupViTModel.from_pretrained("checkpoint", from_pt=True)
    texts = Tokenizer.from_pretrained("checkpoint")(TEXTS)
    pixel_values = ImageProcessor.from_pretrained("checkpoint")("photo.jpg")["pixel_values"]
    by_name = model(pixel_values=pixel_values, **texts).logits_per_text
    by_position = model(texts["input_ids"], pixel_values, texts["attention_mask"]).logits_per_text
    as_dict = model({**texts, "pixel_values": pixel_values}).logits_per_text
    assert np.array_equal(by_name, by_position)
    assert np.array_equal(by_name, as_dict)


def test_loss_attentions_hidden_states_and_segmentation_are_asked_for_by_the_same_flags(place):
    from tf_groupvit import ImageProcessor, TFGroupViTModel, Tokenizer

    model = TFGroupViTModel.from_pretrained("checkpoint")
    inputs = {
        **Tokenizer.from_pretrained("checkpoint")(TEXTS, padding="longest"),
        **ImageProcessor.from_pretrained("checkpoint")(["photo.jpg", "photo.jpg"]),
    }
    outputs = model(
        **inputs,
        return_loss=True,
        output_attentions=True,
        output_hidden_states=True,
        output_segmentation=True,
    )
    height, width = inputs["pixel_values"].shape[2:]
    assert outputs.loss.shape == ()
    assert outputs.segmentation_logits.shape == (2, 2, height, width)
    assert len(outputs.vision_model_output.attentions) == 2
    assert len(outputs.vision_model_output.hidden_states) == 4
    assert len(outputs.text_model_output.attentions) == model.config.text_config.num_hidden_layers
    assert list(outputs) == [
        "loss", "logits_per_image", "logits_per_text", "segmentation_logits",
        "text_embeds", "image_embeds", "text_model_output", "vision_model_output",
    ]  # fmt: skip


def test_a_saved_model_comes_back(place, tmp_path):
    from tf_groupvit import TFGroupViTModel, Tokenizer

    model = TFGroupViTModel.from_pretrained("checkpoint")
    inputs = Tokenizer.from_pretrained("checkpoint")(TEXTS)
    model.save_pretrained(tmp_path / "saved")
    again = TFGroupViTModel.from_pretrained(tmp_path / "saved")
    assert np.array_equal(model.get_text_features(**inputs), again.get_text_features(**inputs))
