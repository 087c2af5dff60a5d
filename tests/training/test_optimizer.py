"""The schedule by hand, what decays, and first weights from which groups emerge."""

import keras
import numpy as np
import pytest
from tiny_recipe import some_batch, tiny_model

from tf_groupvit.errors import InputError
from tf_groupvit.training.model_setup import adamw, decays, spread_groups, warm_up_then_cosine


def test_the_rate_climbs_in_a_line_and_falls_in_half_a_cosine():
    rate = warm_up_then_cosine(peak=1.0, warm_up=10, steps=30, start=0.1, floor=0.2)
    # half way up; the peak; half way down, between peak and floor; the floor, and on
    expected = {0: 0.1, 5: 0.55, 10: 1.0, 20: 0.6, 30: 0.2, 99: 0.2}
    assert np.allclose([rate(step) for step in expected], list(expected.values()), atol=1e-6)


@pytest.mark.parametrize("wrong", [dict(warm_up=30), dict(peak=0.0), dict(floor=2.0)])
def test_rates_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError):
        warm_up_then_cosine(**{"peak": 1.0, "warm_up": 1, "steps": 30, **wrong})


def test_matrices_decay_and_biases_norms_and_scales_do_not():
    model = tiny_model()
    optimizer = adamw(model, 0.1, weight_decay=0.5, clip=None)
    optimizer.build(model.trainable_variables)
    before = [np.array(v) for v in model.trainable_variables]
    optimizer.apply([keras.ops.zeros_like(v) for v in model.trainable_variables])
    for variable, start in zip(model.trainable_variables, before, strict=True):
        assert np.allclose(variable, start * 0.95 if decays(variable) else start, atol=1e-6), (
            variable.path
        )
    kept = {v.path.rpartition("/")[2] for v in model.trainable_variables if not decays(v)}
    assert kept == {"bias", "gamma", "beta", "logit_scale"}


def test_spread_groups_give_assignments_wider_than_the_noise():
    keras.utils.set_random_seed(0)
    model, pixels = tiny_model(), some_batch(4)["pixel_values"]

    def spread():
        soft = np.asarray(
            model.vision_model(pixels, output_attentions=True)["attentions"][0]
        )  # (B, G, P)
        return np.log(soft).std(axis=1).mean()

    narrow = spread()
    spread_groups(model, token_std=1.0, assign_gain=1.5, seed=0)
    assert narrow < 0.1 < 0.8 < spread()


def test_published_first_weights_are_not_all_alike():
    keras.utils.set_random_seed(0)
    vision = tiny_model().vision_model
    for weights in (vision.embeddings.position_embeddings, vision.stages[0].group_token):
        assert 0.01 < np.std(weights) < 0.03
