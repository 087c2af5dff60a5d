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

    def again():
        while True:
            yield (batch,)

    history = training.fit(again(), epochs=steps, steps_per_epoch=1, verbose=0, shuffle=False)
    return history.history["loss"]


def test_fit_makes_every_loss_smaller():
    training = TrainingModel(tiny_model(), EVERY_LOSS)
    training.compile(adamw(training, 1e-2))
    batch = some_batch(6)
    before = {name: float(value) for name, value in training(batch, training=True).items()}
    losses = fitted(training, batch, 15)
    after = {name: float(value) for name, value in training(batch, training=True).items()}
    assert list(before) == list(EVERY_LOSS) and losses[-1] < losses[0]
    assert all(after[name] < before[name] for name in EVERY_LOSS), (before, after)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    training = TrainingModel(tiny_model(), {"caption": 0.5, "vocabulary": 2.0})
    parts = {"caption": np.float32(3.0), "vocabulary": np.float32(0.25)}
    assert float(training.compute_loss(y_pred=parts)) == 2.0


def test_without_weights_the_loss_is_that_of_the_model_itself():
    model, batch = tiny_model(), some_batch(4)
    own = model(
        batch["input_ids"],
        batch["pixel_values"],
        batch["attention_mask"],
        return_loss=True,
        training=False,
    )
    assert np.isclose(
        TrainingModel(model)(batch, training=False)["caption"], own["loss"], rtol=1e-5
    )


@pytest.mark.slow
def test_accumulated_steps_change_the_weights_once():
    training = TrainingModel(tiny_model())
    training.compile(adamw(training, 1e-2, accumulation=3))
    kernel = training.model.visual_projection.outer.kernel
    batch, start = some_batch(4), kernel.numpy()
    fitted(training, batch, 2)
    assert np.array_equal(kernel, start)
    fitted(training, batch, 1)
    assert not np.array_equal(kernel, start)


def test_logit_scales_stay_below_100():
    training = TrainingModel(tiny_model(), EVERY_LOSS)
    training.compile(keras.optimizers.SGD(0.0))
    scales = (
        training.model.logit_scale,
        training.multi_label_logit_scale,
        training.group_logit_scale,
    )
    for scale in scales:
        scale.assign(9.0)
    fitted(training, some_batch(3), 1)
    assert np.allclose([np.exp(scale) for scale in scales], 100)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_float32_weights(policy):
    training = TrainingModel(tiny_model(policy), EVERY_LOSS)
    training.compile(adamw(training, 1e-2))
    losses = fitted(training, some_batch(4), 12)
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
