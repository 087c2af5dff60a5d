"""The training model: which losses it computes, what it learns from, what it keeps in bounds."""

import keras
import numpy as np
import pytest
from tiny_recipe import EVERY_LOSS, some_batch, tiny_model

from tf_groupvit.errors import InputError
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.model_setup import adamw


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def fitted(training, batch, steps):
    """Losses of so many steps on one batch."""
    return [float(training.train_on_batch(batch, return_dict=True)["loss"]) for _ in range(steps)]


@pytest.mark.slow
def test_training_makes_every_loss_smaller_and_keeps_logit_scales_below_100():
    training = TrainingModel(tiny_model(), EVERY_LOSS)
    training.compile(adamw(training, 1e-2))
    batch = some_batch(6)
    before = {name: float(value) for name, value in training(batch, training=True).items()}
    losses = fitted(training, batch, 15)
    after = {name: float(value) for name, value in training(batch, training=True).items()}
    assert list(before) == list(EVERY_LOSS) and losses[-1] < losses[0]
    assert all(after[name] < before[name] for name in EVERY_LOSS), (before, after)
    own = training.multi_label_logit_scale, training.group_logit_scale
    for scale in (training.model.logit_scale, *own):
        scale.assign(9.0)
    fitted(training, batch, 1)
    assert np.allclose([np.exp(scale) for scale in (training.model.logit_scale, *own)], 100)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    training = TrainingModel(tiny_model(), {"caption": 0.5, "vocabulary": 2.0})
    parts = {"caption": np.float32(3.0), "vocabulary": np.float32(0.25)}
    assert float(training.compute_loss(y_pred=parts)) == 2.0


def test_without_weights_the_loss_is_that_of_the_model_itself():
    model, batch = tiny_model(), some_batch(4)
    inputs = batch["input_ids"], batch["pixel_values"], batch["attention_mask"]
    own = model(*inputs, return_loss=True, training=False)
    ours = TrainingModel(model)(batch, training=False)["caption"]
    assert np.isclose(ours, own["loss"], rtol=1e-5)


@pytest.mark.slow
def test_accumulated_steps_change_the_weights_once():
    training = TrainingModel(tiny_model())
    training.compile(adamw(training, 1e-2, accumulation=3), run_eagerly=True)
    kernel = training.model.visual_projection.outer.kernel
    batch, start = some_batch(2), kernel.numpy()
    fitted(training, batch, 2)
    assert np.array_equal(kernel, start)
    fitted(training, batch, 1)
    assert not np.array_equal(kernel, start)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_float32_weights(policy):
    training = TrainingModel(tiny_model(policy), EVERY_LOSS)
    training.compile(adamw(training, 1e-2), run_eagerly=True)
    losses = fitted(training, some_batch(4), 4)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert {v.dtype for v in training.trainable_variables} == {"float32"}


@pytest.mark.parametrize(
    "weights, said",
    [
        ({"captions": 1}, "no loss 'captions'"),
        ({"caption": -1}, "-1"),
        ({"caption": 0}, "weight 0"),
    ],
)
def test_losses_that_cannot_be_are_refused(weights, said):
    with pytest.raises(InputError, match=said):
        TrainingModel(tiny_model(), weights)
