"""Each loss against values worked out by hand, and its gradients against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from tf_groupvit.training.losses import (
    contrastive_loss,
    group_word_loss,
    multi_label_loss,
    vocabulary_loss,
)

E1, E2 = [1.0, 0.0], [0.0, 1.0]
LN = np.log


def numbers(value):
    return np.asarray(value, np.float32)


def unit(*shape, seed=0):
    rows = np.random.default_rng(seed).normal(size=shape)
    return numbers(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


EACH_A_PATCH = numbers([[[1, 0], [0, 1]]])  # (B, G, P): each of two groups has one
SHARED = numbers(
    np.random.default_rng(5).dirichlet(np.ones(4), size=(3, 6)).transpose(0, 2, 1)
)  # one in sum over G


def test_two_pairs_at_right_angles_lose_ln_of_one_and_a_share():
    # every row of the logits is (2, 0) or (0, 2): -ln(e^2 / (e^2 + 1))
    pairs = numbers([E1, E2])
    assert np.isclose(contrastive_loss(pairs, pairs, 2.0), LN(1 + np.exp(-2.0)))


def test_all_alike_lose_ln_of_the_batch():
    same = numbers([E1, E1, E1])
    assert np.isclose(contrastive_loss(same, same, 7.0), LN(3))


def test_replicas_mean_is_the_loss_of_the_whole_batch():
    images, texts = unit(6, 4), unit(6, 4, seed=1)
    parts = [
        contrastive_loss(
            images[i : i + 3], texts[i : i + 3], 5.0, all_images=images, all_texts=texts, offset=i
        )
        for i in (0, 3)
    ]
    assert np.isclose(np.mean(parts), contrastive_loss(images, texts, 5.0), rtol=1e-5)


def test_multi_label_targets_are_shared_over_an_images_own_prompts():
    # Image 1 sees its prompts at (1, 0) and the other's at (0, 0): z = ln(e + 3), the target's mean
    # logit is 1/2. From prompts: e1 finds its image among (1, 0), and 0 = e3 sees both images
    # alike.
    images = numbers([[1, 0, 0], [0, 1, 0]])
    labels = numbers([[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1]]])
    to_text = LN(np.e + 3) - 0.5
    to_image = (LN(1 + np.exp(-1)) + LN(2)) / 2
    assert np.isclose(multi_label_loss(images, labels, 1.0), (to_text + to_image) / 2)


def test_multi_label_replicas_mean_is_the_loss_of_the_whole_batch():
    images, labels = unit(4, 5), unit(4, 3, 5, seed=1)
    parts = [
        multi_label_loss(
            images[i : i + 2],
            labels[i : i + 2],
            5.0,
            all_images=images,
            all_labels=labels,
            offset=i,
        )
        for i in (0, 2)
    ]
    assert np.isclose(np.mean(parts), multi_label_loss(images, labels, 5.0), rtol=1e-5)


def test_a_word_of_two_captions_is_right_for_both():
    # Two images alike, one word: to the words there is no choice, and to the images both are right
    # at 1/2 each.
    assert np.isclose(
        vocabulary_loss(numbers([E1, E1]), numbers([E1]), numbers([[1], [1]]), 3.0), LN(2) / 2
    )


def test_a_caption_without_words_takes_no_part():
    features, words, none = unit(2, 4), unit(3, 4, seed=1), np.zeros((2, 3), "float32")
    assert np.isfinite(vocabulary_loss(features, words, numbers([[1, 0, 1], [0, 0, 0]]), 1.0))
    assert float(vocabulary_loss(features, words, none, 1.0)) == 0
    groups = unit(
        2, 3, 4
    )  # their demands are one image's own, where the vocabulary's compare images
    alone = group_word_loss(groups[:1], words, numbers([[1, 0, 1]]), 1.0, SHARED[:1, :3])
    both = group_word_loss(groups, words, numbers([[1, 0, 1], [0, 0, 0]]), 1.0, SHARED[:2, :3])
    assert np.isclose(alone, both, rtol=1e-5)
    assert float(group_word_loss(groups, words, none, 1.0, SHARED[:2, :3])) == 0


def test_groups_that_say_the_captions_words_and_no_other_lose_nothing():
    groups, words = numbers([[E1, E2]]), numbers([E1, E2])
    assert float(group_word_loss(groups, words, numbers([[1, 1]]), 100.0, EACH_A_PATCH)) < 1e-6


def test_a_group_that_says_an_absent_word_is_charged_for_it():
    # The first group finds the word for ln(1 + 1/e); both groups are asked: ln(1 + 1/e) and ln(1 +
    # e).
    groups, words = numbers([[E1, E2]]), numbers([E1, E2])
    expected = LN(1 + np.exp(-1)) + (LN(1 + np.exp(-1)) + LN(1 + np.e)) / 2
    assert np.isclose(
        group_word_loss(groups, words, numbers([[1, 0]]), 1.0, EACH_A_PATCH), expected
    )


def test_a_group_without_a_patch_finds_no_word_and_is_not_asked():
    # All patches are the second group's, which says the other word: ln(1 + e) twice, whatever the
    # first one says.
    groups, words, second = (
        numbers([[E1, E2]]),
        numbers([E1, E2]),
        numbers([[[0, 0, 0], [1, 1, 1]]]),
    )
    assert np.isclose(
        group_word_loss(groups, words, numbers([[1, 0]]), 1.0, second), 2 * LN(1 + np.e)
    )


def test_groups_are_asked_by_the_share_of_the_patches_that_they_have():
    groups, words, shares = (
        numbers([[E1, E2]]),
        numbers([E1, E2]),
        numbers([[[0.9, 0.6, 0.0], [0.1, 0.4, 1.0]]]),
    )
    expected = LN(1 + np.exp(-1)) + (1.5 * LN(1 + np.exp(-1)) + 1.5 * LN(1 + np.e)) / 3
    assert np.isclose(group_word_loss(groups, words, numbers([[1, 0]]), 1.0, shares), expected)


PRESENT = numbers([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]])
CASES = {
    "contrastive": (lambda x: contrastive_loss(x, unit(3, 5, seed=1), 2.0), (3, 5)),
    "multi_label": (lambda x: multi_label_loss(x, unit(3, 2, 5, seed=1), 2.0), (3, 5)),
    "vocabulary": (lambda x: vocabulary_loss(x, unit(4, 5, seed=1), PRESENT, 2.0), (3, 5)),
    "group_word": (
        lambda x: group_word_loss(x, unit(4, 5, seed=1), PRESENT, 2.0, SHARED),
        (3, 4, 5),
    ),
    "group_word by its assignment": (
        lambda x: group_word_loss(unit(3, 4, 5, seed=2), unit(4, 5, seed=1), PRESENT, 2.0, x),
        (3, 4, 6),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_finite_differences(name):
    loss, shape = CASES[name]
    x, step = unit(*shape, seed=2), 1e-2
    point = tf.Variable(x)
    with tf.GradientTape() as tape:
        value = loss(point)
    gradient = tape.gradient(value, point).numpy()
    for place in np.ndindex(*shape):
        aside = np.zeros(shape, np.float32)
        aside[place] = step
        slope = (float(loss(x + aside)) - float(loss(x - aside))) / (2 * step)
        assert abs(gradient[place] - slope) < 2e-3, (
            place
        )  # float32 leaves 1e-7 / 1e-2, curvature 1e-4
