"""Recipes that can be read, and those that are refused."""

import pytest

from tf_groupvit.errors import ConfigError
from tf_groupvit.training.recipe import read_recipe, recipe_of


def test_the_demo_recipe_can_be_read_and_others_name_what_is_wrong(tmp_path):
    assert read_recipe("demo").name == "demo" and "multi_label" not in read_recipe("demo").losses
    (tmp_path / "mine.toml").write_text("step = 5\n")
    with pytest.raises(ConfigError, match="no key 'step': did you mean 'steps'"):
        read_recipe(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text("steps = 5\n[optimizer]\nrate = 0.5\n")
    assert read_recipe(tmp_path / "mine.toml", steps=7).steps == 7
    with pytest.raises(ConfigError, match="expected one of demo"):
        read_recipe("demos")
    with pytest.raises(ConfigError, match="whole number"):
        read_recipe("demo", steps=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"data": {"sourse": "x"}}, "no key 'sourse': did you mean 'source'"),
        ({"data": {"augmentation": "some"}}, "expected one of none, published"),
        ({"data": {"source": ""}}, "--data"),
        ({"data": {"source": "x", "shuffle": "no"}}, r"shuffle is 'no': expected one like 10000"),
        ({"precision": "float8"}, "expected one of float32, mixed_bfloat16"),
        ({"trains": "head"}, "expected one of all, group tokens"),
        ({"steps": 5, "epochs": 1, "data": {"source": "x"}}, "5 steps and 1 epochs"),
        ({"epochs": 1}, "Scenes have no end"),
        ({"keep": "best", "data": {"source": "x"}}, "need held-out captions"),
        ({"losses": {"multi_label": 1.0}, "data": {"source": "x"}}, "go together"),
        (
            {"losses": {"group_word": 1.0}, "data": {"source": "x"}},
            r"group_word needs \[vocabulary\] words",
        ),
        ({"vocabulary": {"words": ["dog", " "]}}, "none of them empty"),
        ({"data": {"source": "x", "validation_share": 1.0}}, "0 or more, below 1"),
        ({"data": {"source": "x", "validation": "y", "validation_share": 0.1}}, "two ways"),
        ({"data": {"validation_share": 0.1}}, "for captions of your own"),
        ({"losses": {"caption": "much"}}, "caption is 'much'"),
        ({"losses": {"captions": 1.0}}, "no loss 'captions'"),
        ({"start": {"checkpoint": "x"}, "model": {"text": {}}}, "keep one of them"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(content, words):
    with pytest.raises(ConfigError, match=words):
        recipe_of(content)


def test_keys_of_0_1_are_read_with_a_warning():
    with pytest.warns(DeprecationWarning, match="initialisation is now initialization"):
        recipe = recipe_of({"initialisation": {"assign_gain": 2.0}})
    assert recipe.initialization.assign_gain == 2.0
    with pytest.warns(DeprecationWarning, match="rematerialise is now rematerialize"):
        assert recipe_of({"rematerialise": True}).rematerialize


def test_the_published_recipe_has_what_is_known_of_the_published_run():
    """Paper: section 4.1 and the settings that its authors released; sizes are the defaults."""
    recipe = read_recipe("published", data={"source": "shards"})
    pairs = 2_891_445 + 11_156_203 + 14_615_499
    chosen = recipe.optimizer
    assert (recipe.epochs, recipe.batch_size, recipe.drop_path) == (30, 4096, 0.1)
    assert (chosen.rate, chosen.start, chosen.floor) == (1.6e-3, 4e-6, 4e-5)
    assert (chosen.weight_decay, chosen.clip, chosen.accumulation) == (0.05, 5.0, 1)
    assert chosen.warm_up_epochs == 2 and chosen.warm_up == 2 * pairs // 4096
    assert recipe.losses == {"caption": 1.0, "multi_label": 1.0} and recipe.data.word_count == 3
    assert recipe.data.words == "tagger" and recipe.vocabulary.text_length == 77
    assert not recipe.model and not recipe.start.checkpoint
    assert recipe.initialization.assign_gain == pytest.approx(0.02 * 384**0.5, rel=1e-5)
    assert read_recipe("published", data={"source": "x"}, steps=20).epochs == 0
    with pytest.raises(ConfigError, match="source is empty"):
        read_recipe("published")


def test_a_warm_up_in_epochs_follows_the_data_and_leaves_other_recipes_as_they_are():
    assert "warm_up_epochs" not in read_recipe("demo").to_dict()["optimizer"]
    for epochs in (30, -1):
        with pytest.raises(ConfigError, match="warm_up_epochs is"):
            read_recipe("published", data={"source": "x"}, optimizer={"warm_up_epochs": epochs})
