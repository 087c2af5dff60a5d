"""Configs: what a config.json says is read, checked and written back, and nothing of it is lost."""

import copy
import json
import pickle
import warnings
from dataclasses import FrozenInstanceError
from inspect import signature
from typing import Any

import pytest

from tf_groupvit.config import GroupViTConfig, GroupViTTextConfig, GroupViTVisionConfig
from tf_groupvit.errors import ConfigError, HubError

Text: Any = GroupViTTextConfig  # whatever a caller gives, of whichever type
Vision: Any = GroupViTVisionConfig
Joint: Any = GroupViTConfig
TOWERS = (GroupViTTextConfig, GroupViTVisionConfig)
CONFIGS: tuple[Any, ...] = (*TOWERS, GroupViTConfig)
GOLDEN = ("three_stages", "legacy_end", "fewer_outputs")

# What transformers of 2022 wrote into the config of every model, towers included, beside the
# model's own fields.
GENERATION = {
    "_name_or_path": "",
    "add_cross_attention": False,
    "architectures": None,
    "bad_words_ids": None,
    "bos_token_id": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "pad_token_id": None,
    "prefix": None,
    "problem_type": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torch_dtype": None,
    "torchscript": False,
    "transformers_version": "4.21.0.dev0",
    "typical_p": 1.0,
    "use_bfloat16": False,
}
TEXT_2022 = {
    **GENERATION,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 256,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 1024,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "groupvit_text_model",
    "num_attention_heads": 4,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "vocab_size": 49408,
}
VISION_2022 = {
    **GENERATION,
    "assign_eps": 1.0,
    "assign_mlp_ratio": [0.5, 4],
    "attention_dropout": 0.0,
    "depths": [6, 3, 3],
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 384,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-05,
    "model_type": "groupvit_vision_model",
    "num_attention_heads": 6,
    "num_channels": 3,
    "num_group_tokens": [64, 8, 0],
    "num_hidden_layers": 12,
    "num_output_groups": [64, 8, 8],
    "patch_size": 16,
}
JOINT_2022 = {
    "_commit_hash": None,
    "architectures": ["GroupViTModel"],
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "logit_scale_init_value": 2.6592,
    "model_type": "groupvit",
    "output_segmentation": False,
    "projection_dim": 256,
    "projection_intermediate_dim": 4096,
    "text_config": TEXT_2022,
    "text_config_dict": None,
    "torch_dtype": "float32",
    "transformers_version": None,
    "vision_config": VISION_2022,
    "vision_config_dict": None,
}


def written(config, folder):
    config.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def holds(larger, smaller):
    """Every key of ``smaller``, at any depth, is in ``larger`` with the same value."""
    for key, value in smaller.items():
        if isinstance(value, dict):
            holds(larger[key], value)
        else:
            assert larger[key] == value, key


# Reading and writing


@pytest.mark.parametrize("name", GOLDEN)
def test_a_config_of_transformers_comes_back_with_every_key(golden, name, tmp_path):
    content = json.loads((golden / "models" / name / "config.json").read_text())
    with warnings.catch_warnings(action="error"):
        config = GroupViTConfig.from_pretrained(golden / "models" / name)
    holds(written(config, tmp_path), content)
    assert GroupViTConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize("name", GOLDEN)
def test_nothing_is_added_but_the_flags_that_older_files_have(golden, name):
    content = json.loads((golden / "models" / name / "config.json").read_text())
    ours = GroupViTConfig.from_dict(content).to_dict()
    flags = {"output_attentions", "output_hidden_states"}
    assert ours.keys() - content.keys() <= flags
    for section in ("text_config", "vision_config"):
        assert ours[section].keys() - content[section].keys() <= flags


def test_a_config_of_2022_loses_no_key_and_raises_no_warning(tmp_path):
    with warnings.catch_warnings(action="error"):
        config = GroupViTConfig.from_dict(JOINT_2022)
        again = written(config, tmp_path)
    assert again.keys() >= JOINT_2022.keys()
    holds(again, JOINT_2022)
    assert config.text_config.eos_token_id == 2
    assert config.replace(
        text_config=GroupViTTextConfig(), vision_config=GroupViTVisionConfig()
    ).to_dict()


def test_a_config_dict_of_2022_counts_more_than_the_section_defaults_included(tmp_path):
    """As transformers merges them: text_config_dict is completed with defaults and laid over
    text_config.
    """
    content = {
        "model_type": "groupvit",
        "text_config": {"hidden_size": 128, "num_hidden_layers": 3, "my_note": "kept"},
        "text_config_dict": {"hidden_size": 64},
        "vision_config": {"hidden_size": 96, "depths": [1, 1, 1]},
        "vision_config_dict": None,
    }
    with pytest.warns(UserWarning, match="my_note"):
        config = GroupViTConfig.from_dict(content)
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers) == (64, 12)
    assert (config.vision_config.hidden_size, config.vision_config.depths) == (96, (1, 1, 1))
    again = written(config, tmp_path)
    assert again["text_config_dict"] == {"hidden_size": 64} and again["vision_config_dict"] is None
    assert again["text_config"]["my_note"] == "kept"


def test_a_changed_section_is_not_overruled_by_its_2022_form_when_read_again():
    content = {"text_config_dict": {"hidden_size": 64}, "vision_config_dict": {}}
    config = GroupViTConfig.from_dict(content).replace(
        text_config=GroupViTTextConfig(hidden_size=32)
    )
    again = GroupViTConfig.from_dict(config.to_dict())
    assert again.text_config.hidden_size == 32
    assert again.vision_config == GroupViTVisionConfig()


def test_the_sections_may_be_missing_or_null():
    contents: list[Any] = [{}, {"text_config": None, "vision_config": None}, {"text_config": {}}]
    for content in contents:
        assert GroupViTConfig.from_dict(content) == GroupViTConfig()
    assert Joint(text_config=None) == GroupViTConfig()


@pytest.mark.parametrize("tower", TOWERS)
def test_a_tower_reads_its_section_of_a_joint_config(tower, golden):
    joint = GroupViTConfig.from_pretrained(golden / "models" / "three_stages")
    own = tower.from_pretrained(golden / "models" / "three_stages" / "config.json")
    assert own == getattr(joint, tower.section)
    assert tower.from_dict(joint.to_dict()) == own == tower.from_dict(own.to_dict())


def test_a_tower_does_not_read_the_section_of_another_model():
    content = {"model_type": "groupvit", "text_config": {"model_type": "clip_text_model"}}
    for config in (GroupViTTextConfig, GroupViTConfig):
        with pytest.raises(ConfigError, match="model_type is 'clip_text_model'"):
            config.from_dict(content)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_key_that_we_do_not_know_is_kept_written_back_and_warned_about(config, tmp_path):
    with pytest.warns(UserWarning, match=r"does not know \['colour', 'zebra'\]"):
        read = config.from_dict({"zebra": [1, {"ß": None}], "colour": "grün \ud800", "top_k": 3})
    again = written(read, tmp_path)
    assert (again["zebra"], again["colour"], again["top_k"]) == ([1, {"ß": None}], "grün \ud800", 3)


def test_what_was_read_does_not_change_with_the_dict_that_it_came_from():
    content = {"id2label": {"0": "a"}}
    config = GroupViTConfig.from_dict(content)
    content["id2label"]["0"] = "b"
    config.to_dict()["id2label"]["0"] = "c"
    assert config.to_dict()["id2label"] == {"0": "a"}


# Dataclasses


def test_the_defaults_are_those_of_the_published_model():
    config = GroupViTConfig()
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.eos_token_id) == (256, 12, 49407)
    assert (vision.depths, vision.num_group_tokens, vision.num_output_groups) == (
        (6, 3, 3),
        (64, 8, 0),
        (64, 8, 8),
    )
    assert (vision.grid, vision.image_height_width, vision.patch_height_width) == (
        (14, 14),
        (224, 224),
        (16, 16),
    )
    assert (
        config.projection_dim,
        config.projection_intermediate_dim,
        config.logit_scale_init_value,
    ) == (
        256,
        4096,
        2.6592,
    )


def test_pairs_are_height_and_width():
    vision = Vision(image_size=[32, 64], patch_size=(16, 8))
    assert (vision.grid, vision.image_height_width, vision.patch_height_width) == (
        (2, 8),
        (32, 64),
        (16, 8),
    )


def test_one_ratio_stands_for_both():
    assert Vision(assign_mlp_ratio=2).assign_mlp_ratio == (2, 2)


def test_a_list_of_end_tokens_is_read_and_written_as_a_list():
    config = Text(eos_token_id=[7, 9])
    assert config.eos_token_id == (7, 9) and config.to_dict()["eos_token_id"] == [7, 9]


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_are_values(config):
    """Equal, hashable, frozen; they survive copying, pickling and a round trip through a dict."""
    one = config()
    assert (
        one == config()
        and hash(one) == hash(config())
        and one != one.replace(initializer_factor=0.5)
    )
    assert len({one, config(), one.replace(initializer_range=0.1)}) == 2
    with pytest.raises(FrozenInstanceError):
        one.initializer_factor = 3.0
    for again in (
        copy.copy(one),
        copy.deepcopy(one),
        pickle.loads(pickle.dumps(one)),
        config.from_dict(one.to_dict()),
    ):
        assert again == one


def test_replace_changes_some_fields_and_checks_them():
    config = GroupViTTextConfig(hidden_size=64)
    changed = config.replace(num_attention_heads=8)
    assert (changed.hidden_size, changed.num_attention_heads, config.num_attention_heads) == (
        64,
        8,
        4,
    )
    with pytest.raises(ConfigError, match="num_attention_heads"):
        config.replace(num_attention_heads=7)
    with pytest.raises(ConfigError, match="did you mean 'hidden_size'"):
        config.replace(hiden_size=7)


def test_two_towers_are_joined():
    text, vision = GroupViTTextConfig(hidden_size=64), GroupViTVisionConfig(patch_size=32)
    joined = GroupViTConfig.from_text_vision_configs(text, vision, projection_dim=5)
    assert joined == GroupViTConfig(text, vision, projection_dim=5)
    assert joined == Joint(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=5
    )
    with pytest.raises(ConfigError, match="text_config"):
        Joint.from_text_vision_configs(vision, text)


@pytest.mark.parametrize(
    ("config", "typo", "meant"),
    [
        (GroupViTTextConfig, "vocab_sise", "vocab_size"),
        (GroupViTVisionConfig, "num_output_group", "num_output_groups"),
        (GroupViTConfig, "text_config_dict", "text_config"),
        (GroupViTConfig, "projection_dims", "projection_dim"),
    ],
)
def test_an_unknown_keyword_names_the_nearest_field(config, typo, meant):
    with pytest.raises(ConfigError, match=f"no field '{typo}': did you mean '{meant}'"):
        config(**{typo: 1})


def test_the_keywords_are_shown_to_who_asks():
    assert "num_group_tokens" in signature(GroupViTVisionConfig).parameters


# What is impossible is refused, with the field named


IMPOSSIBLE: list[tuple[Any, str, list[Any]]] = [
    (GroupViTTextConfig, "num_attention_heads", [0, -4, 3, 1.0, "4", None, True]),
    (GroupViTTextConfig, "hidden_size", [0, -256, 256.0, "256", None, [256]]),
    (GroupViTTextConfig, "vocab_size", [0, -1, 1.5, "many", False]),
    (GroupViTTextConfig, "num_hidden_layers", [0, -1, "12"]),
    (GroupViTTextConfig, "max_position_embeddings", [0, -77, None]),
    (GroupViTTextConfig, "intermediate_size", [0, None]),
    (GroupViTTextConfig, "hidden_act", ["mish", "", None, 1, ["gelu"], "GELU"]),
    (GroupViTTextConfig, "layer_norm_eps", [-1e-5, "1e-5", None, float("nan"), float("inf"), True]),
    (GroupViTTextConfig, "dropout", [-0.1, 1.0, "0", None, float("nan")]),
    (GroupViTTextConfig, "attention_dropout", [-0.1, 1, [0.0]]),
    (GroupViTTextConfig, "initializer_range", [-0.02, "x"]),
    (GroupViTTextConfig, "initializer_factor", [-1, None]),
    (GroupViTTextConfig, "eos_token_id", ["</s>", 1.5, [], [1, "2"], True]),
    (GroupViTTextConfig, "pad_token_id", ["!", 0.5]),
    (GroupViTTextConfig, "output_attentions", [1, "yes", None]),
    (GroupViTVisionConfig, "num_attention_heads", [5, 0, "6"]),
    (
        GroupViTVisionConfig,
        "image_size",
        [225, 0, -224, 224.0, "224", None, [224], [224, 225], [224, 224, 3], True],
    ),
    (GroupViTVisionConfig, "patch_size", [0, -16, "16", None, [16, 0], 16.0]),
    (GroupViTVisionConfig, "num_channels", [0, -3, None]),
    (
        GroupViTVisionConfig,
        "depths",
        [[], 6, None, [6, 3, -1], [6, "3", 3], [6, 3.0, 3], "633", {"0": 6}],
    ),
    (GroupViTVisionConfig, "num_group_tokens", [[64, 8], [64, 8, 0, 0], [64, -8, 0], 64, None]),
    (
        GroupViTVisionConfig,
        "num_output_groups",
        [[64, 8], [64, 8, 8, 8], [0, 8, 8], [64, -1, 8], None],
    ),
    (GroupViTVisionConfig, "assign_eps", [-1.0, None, "1"]),
    (
        GroupViTVisionConfig,
        "assign_mlp_ratio",
        [[0.5], [0.5, 4, 4], [0, 4], [-1, 4], ["a", 4], None, [1e-3, 4]],
    ),
    (GroupViTVisionConfig, "hidden_act", ["swish"]),
    (GroupViTConfig, "projection_dim", [0, -1, 256.0, "256", None]),
    (GroupViTConfig, "projection_intermediate_dim", [0, None]),
    (GroupViTConfig, "logit_scale_init_value", ["2.6", None, float("inf"), 1e6, True]),
    (GroupViTConfig, "output_segmentation", [1, "true", None]),
    (GroupViTConfig, "initializer_range", [-1]),
    (GroupViTConfig, "text_config", [[], "text", 3]),
    (GroupViTConfig, "vision_config", [[1], True]),
]


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [(config, name, value) for config, name, values in IMPOSSIBLE for value in values],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_impossible_value_is_refused_with_its_field_named(config, name, value):
    for make in (lambda: config(**{name: value}), lambda: config.from_dict({name: value})):
        if name in ("text_config", "vision_config") and value is None:
            continue
        with pytest.raises(ConfigError, match=name) as caught:
            make()
        assert "\n" not in str(caught.value) and "expected" in str(caught.value)


def test_an_impossible_section_is_refused_in_the_joint_config_too():
    with pytest.raises(
        ConfigError, match=r"GroupViTVisionConfig.image_size is 225: expected a multiple of .* 16"
    ):
        GroupViTConfig.from_dict({"vision_config": {"image_size": 225}})
    with pytest.raises(ConfigError, match="text_config_dict is 'x'"):
        GroupViTConfig.from_dict({"text_config_dict": "x"})


def test_lists_of_unequal_length_tell_both_lengths():
    with pytest.raises(
        ConfigError, match=r"num_group_tokens is \(64, 8\): expected a list as long as depths, 3"
    ):
        Vision(num_group_tokens=[64, 8])


@pytest.mark.parametrize(
    "found", ["clip", "", None, 3, ["groupvit"], "groupvit_text_model", "x" * 10_000]
)
def test_a_config_of_another_model_is_refused(found):
    with pytest.raises(ConfigError, match=r"model_type is .*expected 'groupvit'") as caught:
        GroupViTConfig.from_dict({"model_type": found})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("content", [None, [], "groupvit", 3, {1: 2}])
def test_what_is_no_json_object_is_refused(content):
    with pytest.raises(ConfigError, match="config") as caught:
        GroupViTConfig.from_dict(content)
    assert "\n" not in str(caught.value)


# Files


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "holds a list"),
        (b"null", "holds a NoneType"),
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path, content, told):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=told) as caught:
        GroupViTConfig.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value) and "config.json" in str(caught.value)


def test_a_folder_without_config_and_a_folder_that_is_not_there_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: there is no such file: give the f"):
        GroupViTConfig.from_pretrained(tmp_path)
    with pytest.raises(HubError, match="is not there"):
        GroupViTConfig.from_pretrained(tmp_path / "gone")


def test_a_config_is_written_whole_or_not_at_all(tmp_path):
    GroupViTConfig().save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        GroupViTConfig(extra={"odd": object()}).save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be made: .*taken' is no folder"):
        GroupViTConfig().save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == ""


def test_folders_on_the_way_are_made(tmp_path):
    GroupViTTextConfig(hidden_size=64).save_pretrained(str(tmp_path / "a" / "b"))
    assert GroupViTTextConfig.from_pretrained(tmp_path / "a" / "b").hidden_size == 64
