"""Grouping: hard in inference, to the first best group, with gradients straight through; noisy in
training.
"""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from tiny_models import (
    equal,
    inputs_of,
    joint_config,
    make,
    numbers,
    some_pixels,
    tiny,
    vision_config,
)

from tf_groupvit.models.grouping import AssignAttention
from tf_groupvit.models.operations import first_argmax, group_maps, one_hot_max, times_transposed

pytestmark = pytest.mark.models


def assigner(width: int = 2, eps: float = 1.0, dtype: str = "float32") -> AssignAttention:
    """Every projection is the identity, so that answers can be computed by hand."""
    config = vision_config(hidden_size=width, num_attention_heads=1, assign_eps=eps)
    layer = AssignAttention(config, "assign", keras.dtype_policies.get(dtype))
    for part in (layer.q_proj, layer.k_proj, layer.v_proj, layer.proj):
        part.kernel.assign(np.eye(width))
    return layer


def assign(layer, groups, tokens, **arguments):
    """groups (B, G, C), tokens (B, P, C) -> means (B, G, C), soft (B, G, P)."""
    groups, tokens = np.asarray(groups, "float32"), np.asarray(tokens, "float32")
    (B, G, C), P = groups.shape, tokens.shape[1]
    rows = (ops.convert_to_tensor(x.reshape(-1, C)) for x in (groups, tokens))
    means, soft = layer(*rows, num_groups=G, num_tokens=P, **arguments)
    return ops.reshape(means, (B, G, C)), soft


# Argmax


def test_the_first_of_several_best_wins():
    scores = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert numbers(first_argmax(ops.convert_to_tensor(scores), 1)).tolist() == [[1], [0]]
    assert numbers(one_hot_max(ops.convert_to_tensor(scores), 1)).tolist() == [
        [0, 1, 0, 0],
        [1, 0, 0, 0],
    ]
    assert numbers(first_argmax(ops.convert_to_tensor(scores), 0)).tolist() == [[0, 0, 0, 0]]


def test_integers_and_empty_batches_have_a_first_best_too():
    ids = np.array([[-5, -2, -2]], "int32")
    assert numbers(first_argmax(ops.convert_to_tensor(ids), 1)).tolist() == [[1]]
    assert tuple(one_hot_max(ops.zeros((0, 3, 4)), 1).shape) == (0, 3, 4)


# Assignment


def test_rows_are_multiplied_with_rows_image_by_image():
    queries = ops.convert_to_tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    keys = ops.convert_to_tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, 0.0]]])
    assert numbers(times_transposed(queries, keys)).tolist() == [[[1.0, 2.0]], [[7.0, 6.0]]]


def test_each_group_gets_the_mean_of_its_tokens_over_their_number_and_eps():
    """Two groups along the axes; three tokens belong to the first, one to the second: sums over 3 +
    1 and 1 + 1.
    """
    tokens = [[[1, 0], [3, 1], [4, 2], [0, 6]]]
    means, soft = assign(assigner(), [[[1, 0], [0, 1]]], tokens)
    np.testing.assert_allclose(numbers(means), [[[8 / 4, 3 / 4], [0.0, 6 / 2]]], rtol=1e-6)
    logits = np.array([[1, 3, 4, 0], [0, 1, 2, 6]]) / 2**0.5  # over the root of the width
    np.testing.assert_allclose(numbers(soft)[0], np.exp(logits) / np.exp(logits).sum(0), rtol=1e-6)


def test_a_small_eps_gives_the_plain_mean():
    means, _ = assign(assigner(eps=1e-9), [[[1, 0], [0, 1]]], [[[1, 0], [3, 1], [0, 6]]])
    np.testing.assert_allclose(numbers(means), [[[2.0, 0.5], [0.0, 6.0]]], rtol=1e-6)


def test_an_empty_group_stays_finite_and_zero():
    means, _ = assign(assigner(), [[[1, 0], [0, 1]]], [[[5, 0], [7, 0]]])
    np.testing.assert_allclose(numbers(means), [[[4, 0], [0, 0]]], rtol=1e-6)


def test_identical_group_tokens_send_every_token_to_the_lowest_group():
    means, soft = assign(assigner(), [[[1, 2]] * 4], [[[1, 0], [3, 1], [0, 6]]])
    np.testing.assert_allclose(numbers(soft), np.full((1, 4, 3), 0.25), rtol=1e-6)
    np.testing.assert_allclose(
        numbers(means)[0], [[1.0, 7 / 4], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], rtol=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
def test_every_token_belongs_to_exactly_one_group(seed):
    """With v = 1 and eps 0, each group's mean times its share is how many tokens it has: they sum
    up to all.
    """
    draw = np.random.default_rng(seed)
    groups, tokens = draw.normal(size=(2, 5, 4)), draw.normal(size=(2, 11, 4))
    layer = assigner(4)
    layer.v_proj.kernel.assign(np.zeros((4, 4)))
    layer.v_proj.bias.assign(np.ones(4))
    means, soft = assign(layer, groups, tokens)
    counts = np.stack(
        [np.bincount(image.argmax(0), minlength=5) for image in numbers(soft)]
    )  # (B, G)
    np.testing.assert_allclose(numbers(means)[..., 0], counts / (counts + 1), rtol=1e-6)
    assert (counts.sum(axis=1) == 11).all()


def test_soft_assignments_of_a_token_sum_to_one(case):
    for soft in case.model.vision_model(case.pixels, output_attentions=True).attentions:
        np.testing.assert_allclose(numbers(soft).sum(axis=1), 1, rtol=1e-5)


def slope(layer, groups, tokens, pick, step=1e-3):
    """Central difference of ``pick`` of the *soft* means: where the choice passes gradients as if
    it were soft.
    """

    def soft_means(x):
        logits = np.einsum("gc,pc->gp", x, tokens) * layer.scale
        soft = np.exp(logits) / np.exp(logits).sum(0)
        hard = (logits == logits.max(0)).astype(float)
        base = hard if anchor is None else anchor + soft - centre
        return (base / (base.sum(1, keepdims=True) + 1)) @ tokens, hard, soft

    anchor = centre = None
    _, anchor, centre = soft_means(groups)
    found = np.zeros_like(groups)
    for index in np.ndindex(groups.shape):
        up, down = groups.copy(), groups.copy()
        up[index] += step
        down[index] -= step
        found[index] = (pick(soft_means(up)[0]) - pick(soft_means(down)[0])) / (2 * step)
    return found


def gradient(function, x):
    x = np.asarray(x, "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = tf.Variable(x)
            result = function(value)
        return tape.gradient(result, value).numpy()
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    import torch

    value = torch.tensor(x, requires_grad=True)
    function(value).backward()
    return value.grad.numpy()


def test_gradients_pass_straight_through_the_choice():
    """They equal finite differences of hard + (soft - soft at this point), which is what
    straight-through means.
    """
    draw = np.random.default_rng(3)
    groups, tokens, weights = (
        draw.normal(size=(3, 4)),
        draw.normal(size=(6, 4)),
        draw.normal(size=(3, 4)),
    )
    layer = assigner(4)

    def weighed(x):
        seen, shares = (
            ops.convert_to_tensor(array.astype("float32")) for array in (tokens, weights)
        )
        return ops.sum(layer(x, seen, num_groups=3, num_tokens=6)[0] * shares)

    expected = slope(layer, groups, tokens, lambda means: (means * weights).sum())
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(gradient(weighed, groups), expected, atol=1e-4)


# Gumbel noise in training


def training_choices(rows: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """How many of ``repeats`` equal tokens go to each of three groups (rows, 3), and their
    probabilities (3,).
    """
    tokens = np.tile([[[1.0, 0.0]]], (rows, repeats, 1))
    layer = assigner(2)
    layer.v_proj.kernel.assign(np.zeros((2, 2)))
    layer.v_proj.bias.assign(np.ones(2))
    means, soft = assign(
        layer, np.tile([[[0, 0], [1, 0], [2, 0]]], (rows, 1, 1)), tokens, training=True
    )
    share = numbers(means)[:, :, 0].astype("float64")  # n / (n + 1)
    return share / (1 - share), numbers(soft)[0, :, 0]


def test_choices_in_training_follow_the_softmax():
    """Gumbel-max: the share of each group over 4,000 draws is its probability, within four standard
    deviations.
    """
    keras.utils.set_random_seed(1)
    counts, soft = training_choices(80, 50)
    np.testing.assert_allclose(
        counts, np.round(counts), atol=1e-3
    )  # whole tokens: the choice is hard
    np.testing.assert_allclose(counts.sum(1), 50, atol=1e-3)  # and each goes to one group
    shares = counts.sum(0) / 4000
    assert (np.abs(shares - soft) < 4 * np.sqrt(soft * (1 - soft) / 4000)).all()


def test_training_differs_by_seed_and_repeats_with_it():
    draw = np.random.default_rng(0)
    groups, tokens, found = draw.normal(size=(2, 3, 2)), draw.normal(size=(2, 20, 2)), []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        found.append(numbers(assign(assigner(), groups, tokens, training=True)[0]))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_each_step_of_training_draws_anew():
    layer, groups, tokens = assigner(), np.zeros((1, 4, 2)), np.ones((1, 50, 2))
    one, other = (numbers(assign(layer, groups, tokens, training=True)[0]) for _ in range(2))
    assert np.abs(one - other).max() > 1e-3


def test_inference_knows_no_noise():
    one, other = (numbers(tiny("vision")(some_pixels()).last_hidden_state) for _ in range(2))
    np.testing.assert_array_equal(one, other)


# Lists of stages


STAGES: dict[str, Any] = {
    "no grouping": dict(depths=(2,), num_group_tokens=(0,), num_output_groups=(0,)),
    "one grouping at the end": dict(depths=(1,), num_group_tokens=(3,), num_output_groups=(2,)),
    "more groups out than tokens in": dict(
        depths=(1, 1), num_group_tokens=(2, 3), num_output_groups=(5, 4)
    ),
    "fewer groups out than tokens in": dict(
        depths=(1, 1), num_group_tokens=(5, 4), num_output_groups=(3, 1)
    ),
    "a stage between that groups nothing": dict(
        depths=(1, 1, 1), num_group_tokens=(3, 0, 2), num_output_groups=(3, 3, 2)
    ),
    "stages without layers": dict(
        depths=(0, 0, 0), num_group_tokens=(3, 2, 0), num_output_groups=(3, 2, 2)
    ),
    "the first stage groups nothing": dict(
        depths=(1, 1), num_group_tokens=(0, 3), num_output_groups=(0, 2)
    ),
}


@pytest.mark.parametrize("stages", STAGES)
def test_lists_of_stages_of_every_kind_work(stages):
    lists = STAGES[stages]
    model = make("vision", vision_config(**lists))
    result = model(some_pixels(), output_attentions=True, output_hidden_states=True)
    groupings = [
        groups
        for tokens, groups in zip(
            lists["num_group_tokens"], lists["num_output_groups"], strict=True
        )
        if tokens
    ]
    left = groupings[-1] if groupings else 4
    assert tuple(result.last_hidden_state.shape) == (2, left, 8)
    assert [soft.shape[1] for soft in result.attentions or ()] == groupings
    assert len(result.hidden_states) == 1 + len(lists["depths"])
    assert np.isfinite(numbers(result.last_hidden_state)).all()


def test_a_model_without_grouping_compares_and_says_that_it_cannot_segment():
    from tf_groupvit.errors import InputError

    model = make(config=joint_config(vision=vision_config(**STAGES["no grouping"])))
    inputs = inputs_of("joint")
    assert tuple(model(inputs).logits_per_image.shape) == (2, 2)
    with pytest.raises(InputError, match="no grouping stage"):
        model(inputs, output_segmentation=True)


def test_maps_are_the_product_of_the_assignments():
    first = np.array([[[1.0, 0.5, 0.0, 0.0], [0.0, 0.5, 1.0, 1.0]]], "float32")  # (B, 2, P = 4)
    second = np.array([[[0.9, 0.2], [0.1, 0.8]]], "float32")  # (B, 2, 2)
    maps = numbers(group_maps((first, second), 2, 2))
    np.testing.assert_allclose(
        maps.reshape(2, 4), [[0.9, 0.55, 0.2, 0.2], [0.1, 0.45, 0.8, 0.8]], rtol=1e-6
    )
    equal(group_maps((first,), 1, 4), first.reshape(1, 2, 1, 4))
