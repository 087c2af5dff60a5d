"""The text tower: where a text ends, what it may look at, and that padding changes nothing."""

import numpy as np
import pytest
from keras import ops
from tiny_models import END, EVERYTHING, equal, make, numbers, some_ids, text_config, tiny

pytestmark = pytest.mark.models


def pooled_at(model, ids) -> list[int]:
    """Which position each row was pooled at."""
    result = model(np.asarray(ids, "int32"))
    states, pooled = numbers(result.last_hidden_state), numbers(result.pooler_output)
    return [
        int(np.abs(rows - row).sum(axis=1).argmin())
        for rows, row in zip(states, pooled, strict=True)
    ]


def test_a_text_ends_at_its_first_end_token():
    assert pooled_at(tiny("text"), [[1, END, 3, END], [END, 2, 3, 4], [1, 2, 11, END]]) == [1, 0, 3]


def test_under_the_legacy_rule_a_text_ends_at_its_first_highest_id():
    model = make("text", text_config(eos_token_id=2))
    assert pooled_at(model, [[1, 5, 3, 5], [7, 2, 3, 4], [0, 0, 0, 0], [2, 2, 3, 11]]) == [
        1,
        0,
        0,
        3,
    ]


def test_any_of_several_end_tokens_ends_a_text():
    model = make("text", text_config(eos_token_id=(4, 7)))
    assert pooled_at(model, [[1, 7, 4], [1, 2, 4], [4, 7, 7]]) == [1, 2, 0]


def test_without_an_end_token_in_the_config_every_row_is_refused():
    from tf_groupvit.errors import InputError

    with pytest.raises(InputError, match="Row 0"):
        make("text", text_config(eos_token_id=None))(some_ids())


def test_a_token_sees_itself_and_what_came_before():
    attention = numbers(tiny("text")(some_ids(), **EVERYTHING).attentions[0])
    assert (attention[..., np.triu_indices(5, 1)[0], np.triu_indices(5, 1)[1]] == 0).all()
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)


def test_nobody_looks_at_padding():
    mask = np.array([[1, 1, 1, 0, 0]] * 3)
    attention = numbers(tiny("text")(some_ids(), mask, **EVERYTHING).attentions[0])
    assert (attention[..., 3:] == 0).all()


def test_padding_on_the_right_changes_nothing():
    """At the end token and before: the tower is causal, with a mask and without."""
    ids = np.array([[1, 4, END], [6, 3, END]])
    padded = np.concatenate([ids, np.full((2, 3), END)], axis=1)
    mask = np.array([[1, 1, 1, 0, 0, 0]] * 2)
    short = tiny("text")(ids)
    for long in (tiny("text")(padded), tiny("text")(padded, mask)):
        equal(long.pooler_output, short.pooler_output)
        equal(long.last_hidden_state[:, :3], short.last_hidden_state)


def test_padding_on_the_left_changes_nothing_where_positions_are_given():
    ids = np.array([[1, 4, END], [6, 3, END]])
    padded = np.concatenate([np.zeros((2, 2), int), ids], axis=1)
    mask = np.array([[0, 0, 1, 1, 1]] * 2)
    long = tiny("text")(padded, mask, np.array([[0, 0, 0, 1, 2]]))
    equal(long.pooler_output, tiny("text")(ids).pooler_output)
    assert np.isfinite(numbers(long.last_hidden_state)).all(), "rows that see nothing stay finite"


def test_the_full_length_comes_back():
    result = tiny("text")(some_ids(2, 7), np.zeros((2, 7)))
    assert (
        tuple(result.last_hidden_state.shape) == (2, 7, 8)
        and np.isfinite(numbers(result.pooler_output)).all()
    )


def test_a_text_does_not_depend_on_its_neighbours(case):
    """One at a time as together, and in any order."""
    together = numbers(case.model.text_model(case.ids, case.mask).pooler_output)
    for i in range(len(case.ids)):
        alone = case.model.text_model(case.ids[i : i + 1], case.mask[i : i + 1]).pooler_output
        equal(alone, together[i : i + 1])
    turned = case.model.text_model(case.ids[::-1].copy(), case.mask[::-1].copy()).pooler_output
    equal(turned, together[::-1])


@pytest.mark.parametrize(
    ("activation", "at_one"),
    [
        ("gelu", 0.841345),
        ("gelu_new", 0.841192),
        ("quick_gelu", 0.845795),
        ("relu", 1.0),
        ("selu", 1.050701),
    ],
)
def test_activations_are_those_that_their_names_say(activation, at_one):
    from tf_groupvit.models.layers import ACTIVATION

    x = np.array([1.0, 0.0], "float32")
    np.testing.assert_allclose(
        numbers(ACTIVATION[activation](ops.convert_to_tensor(x))), [at_one, 0], atol=1e-6
    )
    assert np.isfinite(
        numbers(make("text", text_config(hidden_act=activation))(some_ids()).pooler_output)
    ).all()
