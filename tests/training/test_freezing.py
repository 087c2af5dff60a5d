"""Fine-tuning: what is frozen does not move, what is not does, and the loss goes down."""

import keras
import numpy as np
import pytest
from small import batch, fresh, weights_of, without_groups

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.mask_model import MaskTrainingModel, mask_loss
from tf_groupvit.training.model_setup import train_lora, train_only

UNSEEN = "k_proj/bias"  # a softmax over keys cannot see it: it has no gradient


def fit(training, data, steps=6, rate=0.02):
    """The losses of a few steps on one batch."""
    training.compile(
        optimizer=keras.optimizers.Adam(rate), run_eagerly=True
    )  # tracing takes longer than the steps
    return [float(training.train_on_batch(data, return_dict=True)["loss"]) for _ in range(steps)]


def moved(model, before):
    after = weights_of(model)
    return {path for path, value in before.items() if not np.array_equal(after[path], value)}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["group tokens", "projections", "all"])
def test_a_part_alone_learns_and_the_rest_stays_to_the_bit(part):
    model = fresh()
    learning = set(train_only(model, part))
    before = weights_of(model)
    losses = fit(TrainingModel(model), batch(0))
    assert np.mean(losses[-3:]) < losses[0]
    assert {path for path in learning if not path.endswith(UNSEEN)} <= moved(model, before)
    statistics = {path for path in before if "moving" in path}
    free = set() if part == "group tokens" else statistics
    noise = {path for path in before if "seed" in path}
    assert moved(model, before) <= learning | free | noise


def test_the_parts_are_what_they_are_called_and_can_be_chosen_anew():
    model = fresh()
    everything = [variable.path for variable in model.trainable_variables]
    parts = {
        part: train_only(model, part) for part in ("group tokens", "projections", "vision", "all")
    }
    assert [path.rpartition("/")[2] for path in parts["group tokens"]] == ["group_token"] * 2
    assert len(parts["projections"]) == 12 and all(
        "_projection." in path for path in parts["projections"]
    )
    assert not [
        path for path in parts["vision"] if path.startswith("text") or path.endswith("logit_scale")
    ]
    assert parts["all"] == everything


@pytest.mark.slow
def test_lora_moves_its_factors_alone_and_is_saved_as_one_with_its_layers(tmp_path):
    model = fresh()
    paths = train_lora(model, rank=2)
    assert len(paths) == 2 * len(
        [p for p in weights_of(model) if p.endswith(("q_proj/kernel", "v_proj/kernel"))]
    )
    before = weights_of(model)
    losses = fit(TrainingModel(model), batch(0))
    assert np.mean(losses[-3:]) < losses[0]
    assert moved(model, before) - {path for path in before if "seed" in path} == set(paths)
    model.save_pretrained(tmp_path)
    again = TFGroupViTModel.from_pretrained(tmp_path)
    pixels, ids = batch(1)["pixel_values"], batch(1)["input_ids"]
    np.testing.assert_allclose(
        again(ids, pixels).logits_per_image,
        model(ids, pixels).logits_per_image,
        rtol=1e-4,
        atol=1e-4,
    )


def test_impossible_wishes_are_refused():
    model = fresh()
    for wish, words in (
        (lambda: train_only(model, "head"), "expected one of 'all', 'group tokens'"),
        (lambda: train_lora(model, rank=0), "1 or more"),
        (lambda: train_lora(model, layers=("dense",)), "No layers"),
    ):
        with pytest.raises(InputError, match=words):
            wish()
    train_lora(model)
    with pytest.raises(InputError, match="already"):
        train_lora(model)
    with pytest.raises(InputError, match="has no group tokens"):
        train_only(fresh(without_groups()), "group tokens")


def test_the_loss_of_masks_by_hand():
    """Two classes with logits 0 and ln 3: shares of 1/4 and 3/4; a pixel that is ignored does not
    count.
    """
    logits = np.zeros((1, 2, 1, 3), "float32")
    logits[:, 1] = np.log(3)
    for labels, expected in (([0, 1, 255], (np.log(4) + np.log(4 / 3)) / 2), ([255] * 3, 0.0)):
        assert np.isclose(
            float(mask_loss(logits, np.array([[labels]], "uint8"))), expected, atol=1e-6
        )


def masks(rows=4):
    """The left half of each picture is dark and of class 0, the right half bright and of class 1;
    row 0 is ignored.
    """
    labels = np.tile(np.repeat([0, 1], 4), (rows, 8, 1)).astype("int32")
    pixels = (
        np.random.default_rng(0).normal(0, 0.2, (rows, 3, 8, 8))
        + np.where(labels, 1.5, -1.5)[:, None]
    )
    labels[:, 0] = 255
    return {"pixel_values": pixels.astype("float32"), "labels": labels}


def texts():
    return np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0][:3].astype("float32")


@pytest.mark.slow
def test_masks_teach_the_vision_tower_and_leave_the_texts():
    model = fresh()
    before = weights_of(model)
    losses = fit(MaskTrainingModel(model, texts()), masks(), steps=10, rate=0.03)
    assert np.mean(losses[-3:]) < losses[0]
    changed = moved(model, before)
    assert any("downsample.assign.q_proj" in path for path in changed)
    assert not any(path.startswith("text") for path in changed)


@pytest.mark.slow
def test_masks_teach_what_is_not_frozen():
    model = fresh()
    train_only(model, "group tokens")
    before = weights_of(model)
    losses = fit(MaskTrainingModel(model, texts()), masks(), steps=8, rate=0.1)
    assert np.mean(losses[-3:]) < losses[0]
    assert {path.rpartition("/")[2] for path in moved(model, before) if "seed" not in path} == {
        "group_token"
    }


def test_without_the_way_through_the_maps_the_logits_are_the_same_and_their_gradients_others():
    import tensorflow as tf

    logits, gradients = [], []
    for through in (True, False):
        model = fresh()
        training = MaskTrainingModel(model, texts(), through_maps=through)
        query = model.vision_model.stages[0].downsample.assign.q_proj.kernel.value
        with tf.GradientTape() as tape:
            logits.append(training.logits(masks()["pixel_values"]))
            loss = mask_loss(logits[-1], masks()["labels"])
        gradients.append(tape.gradient(loss, query).numpy())
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)
    assert not np.allclose(*gradients, rtol=0.1)


def test_logits_are_transformers_own_but_for_the_second_scale():
    model = fresh()
    pixels = masks()["pixel_values"]
    expected = model(
        pixel_values=pixels, text_embeds=texts(), output_segmentation=True
    ).segmentation_logits
    ours = MaskTrainingModel(model, texts()).logits(pixels) * np.exp(float(model.logit_scale))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-3)


def test_embeddings_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"expected \(K, 8\)"):
        MaskTrainingModel(fresh(), np.ones((3, 7)))
