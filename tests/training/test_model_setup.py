"""The optimizer's schedule, first weights, drop path, and what of a model learns."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import batch, fit, fresh, moved, weights_of, without_groups
from tiny_recipe import some_batch, tiny_model

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.model_setup import (
    adamw,
    decays,
    rematerialize,
    set_drop_path,
    spread_groups,
    train_lora,
    train_only,
    warm_up_then_cosine,
)


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


def gradients(model, pixels):
    """Of the vision tower, under the same noise each time."""
    for stage in model.vision_model.stages:
        stage.drops.state.assign([1, 2])
        if stage.num_group_tokens:
            stage.downsample.assign.noise.state.assign([3, 4])

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(model.vision_model(x, training=True)["pooler_output"][:, :4])
        return tape.gradient(value, model.vision_model.trainable_variables)

    return [gradient.numpy() for gradient in run(tf.constant(pixels))]


def test_gradients_are_the_same_when_activations_are_computed_again():
    keras.utils.set_random_seed(0)
    model, pixels = tiny_model(), some_batch(4)["pixel_values"]
    set_drop_path(model, 0.4)
    kept = gradients(model, pixels)
    rematerialize(model)
    again = gradients(model, pixels)
    assert any(np.abs(gradient).max() > 0.01 for gradient in kept)
    for one, other in zip(kept, again, strict=True):
        assert np.allclose(one, other, atol=1e-4)  # of values up to 10, in sums of another order


def test_drop_path_grows_with_depth_and_leaves_inference_alone():
    keras.utils.set_random_seed(0)
    model, pixels = tiny_model(), some_batch(4)["pixel_values"]
    before = model.vision_model(pixels, training=False)["pooler_output"]
    set_drop_path(model, 0.5)
    assert [stage.drop_rates for stage in model.vision_model.stages] == [(0.0, 0.5), ()]
    assert np.array_equal(before, model.vision_model(pixels, training=False)["pooler_output"])


def test_dropped_branches_are_left_out_and_the_others_scaled():
    keras.utils.set_random_seed(0)
    stage = tiny_model().vision_model.stages[0]
    kept = np.asarray(stage._draw_kept(0.25, 4000))
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(kept.mean() - 1) < 0.03  # four deviations of the mean of 8,000 draws
    block, rows = stage.blocks[1], tf.random.stateless_normal((2 * 20, 16), (0, 1))
    out, _ = block(rows, num_tokens=20, kept=tf.constant([[0.0, 1.0], [0.0, 1.0]]))
    whole, _ = block(rows, num_tokens=20)
    assert np.array_equal(out[:20], rows[:20]) and np.allclose(out[20:], whole[20:])


def test_a_rate_of_one_is_refused():
    with pytest.raises(InputError, match="less than 1"):
        set_drop_path(tiny_model(), 1.0)


UNSEEN = "k_proj/bias"  # a softmax over keys cannot see it: it has no gradient


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
