"""Training from masks: the loss by hand, and what it teaches."""

import numpy as np
import pytest
from small import fit, fresh, moved, weights_of

from tf_groupvit.errors import InputError
from tf_groupvit.training.mask_model import MaskTrainingModel, mask_loss
from tf_groupvit.training.model_setup import train_only


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
    losses = fit(MaskTrainingModel(model, texts()), masks(), rate=0.03)
    assert np.mean(losses[-3:]) < losses[0]
    changed = moved(model, before)
    assert any("downsample.assign.q_proj" in path for path in changed)
    assert not any(path.startswith("text") for path in changed)


@pytest.mark.slow
def test_masks_teach_what_is_not_frozen():
    model = fresh()
    train_only(model, "group tokens")
    before = weights_of(model)
    losses = fit(MaskTrainingModel(model, texts()), masks(), rate=0.1)
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
