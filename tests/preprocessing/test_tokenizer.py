"""The Python tokenizer gives the ids of transformers' CLIPTokenizer, from folders of every kind."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_groupvit import Tokenizer
from tf_groupvit.errors import CheckpointError, ConfigError, InputError

VOCABULARIES = ("toy", "trained", "listed", "clip")


@pytest.fixture
def cases(golden):
    return lambda name: json.loads((golden / "tokenizer" / f"{name}.json").read_text())


@pytest.fixture
def folder_of(golden, request):
    def find(name: str) -> Path:
        if name == "clip":
            return request.getfixturevalue("clip_bpe")
        return golden / "tokenizer" / "vocabularies" / name

    return find


@pytest.fixture
def toy(golden, tmp_path) -> Path:
    """A copy of the smallest folder, to be damaged."""
    return Path(shutil.copytree(golden / "tokenizer" / "vocabularies" / "toy", tmp_path / "toy"))


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def rows_of(encoded: dict) -> list[list[int]]:
    return [
        row[mask > 0].tolist()
        for row, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
    ]


# ---- parity with transformers 5.23 (scripts/make_golden/tokenizer.py) ----


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_ids_equal_those_of_transformers(name, cases, folder_of):
    golden, tokenizer = cases(name), Tokenizer.from_pretrained(folder_of(name))
    assert tokenizer.max_length == golden["length"]
    special = [
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.unk_token_id,
        tokenizer.pad_token_id,
    ]
    assert special == golden["special"]
    for text, ids, row in zip(
        golden["texts"], golden["ids"], rows_of(tokenizer(golden["texts"])), strict=True
    ):
        assert row == ids, text


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_padding_equals_that_of_transformers(name, cases, folder_of):
    golden = cases(name)
    encoded = Tokenizer.from_pretrained(folder_of(name))(
        golden["texts"][:8], max_length=12, padding="max_length"
    )
    for part, expected in golden["padded_to_12"].items():
        assert encoded[part].dtype == np.int32
        assert encoded[part].tolist() == expected


@pytest.mark.parametrize("name", VOCABULARIES)
def test_decoded_texts_equal_those_of_transformers(name, cases, folder_of):
    golden, tokenizer = cases(name), Tokenizer.from_pretrained(folder_of(name))
    assert [tokenizer.decode(ids) for ids in golden["ids"]] == golden["decoded"]
    plain = [tokenizer.decode(ids, skip_special_tokens=True) for ids in golden["ids"]]
    assert plain == golden["decoded_without_special"]


# ---- by hand ----


def test_the_toy_vocabulary_merges_what_it_lists(folder_of):
    encoded = Tokenizer.from_pretrained(folder_of("toy"))(["low Lower", "x"])
    # <start> low</w> | lo w er</w> <end>, and <start> unknown <end>, padded with the end token
    assert encoded["input_ids"].tolist() == [[21, 15, 10, 2, 16, 22], [21, 20, 22, 22, 22, 22]]
    assert encoded["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]


def test_one_string_is_a_list_of_one(folder_of):
    tokenizer = Tokenizer.from_pretrained(folder_of("toy"))
    assert (
        tokenizer("low")["input_ids"].tolist()
        == tokenizer(["low"])["input_ids"].tolist()
        == [[21, 15, 22]]
    )


def test_tuples_arrays_and_generators_of_strings_are_lists(folder_of):
    tokenizer = Tokenizer.from_pretrained(folder_of("toy"))
    expected = tokenizer(["low", "er"])["input_ids"].tolist()
    for texts in (("low", "er"), np.array(["low", "er"]), (text for text in ("low", "er"))):
        assert tokenizer(texts)["input_ids"].tolist() == expected


def test_no_texts_give_no_rows(folder_of):
    tokenizer = Tokenizer.from_pretrained(folder_of("toy"))
    assert tokenizer([])["input_ids"].shape == tokenizer([])["attention_mask"].shape == (0, 2)
    assert tokenizer([], padding="max_length")["input_ids"].shape == (0, 77)


def test_a_long_text_is_cut_with_its_end_token_and_a_warning(folder_of):
    tokenizer = Tokenizer.from_pretrained(folder_of("toy"))
    with pytest.warns(
        UserWarning,
        match="1 of 2 texts are longer than 4 tokens and were cut, the first is text 1 with 5",
    ):
        encoded = tokenizer(["low", "low low low"], max_length=4)
    assert encoded["input_ids"].tolist() == [[21, 15, 22, 22], [21, 15, 15, 22]]


def test_a_text_that_just_fits_is_not_cut(folder_of):
    tokenizer = Tokenizer.from_pretrained(folder_of("toy"))
    assert tokenizer(["low low"], max_length=4)["input_ids"].tolist() == [[21, 15, 15, 22]]
    assert tokenizer("", max_length=2)["input_ids"].tolist() == [[21, 22]]


def test_the_maximum_length_can_be_lowered_but_not_raised(folder_of):
    tokenizer = Tokenizer.from_pretrained(folder_of("toy"))
    assert tokenizer.limited_to(10).max_length == 10
    assert tokenizer.limited_to(1000).max_length == 77
    assert tokenizer.max_length == 77
    assert Tokenizer.from_pretrained(folder_of("toy"), max_length=9)([], padding="max_length")[
        "input_ids"
    ].shape == (
        0,
        9,
    )


def test_decode_takes_one_row_or_many(folder_of):
    tokenizer = Tokenizer.from_pretrained(folder_of("toy"))
    encoded = tokenizer(["low er", "er"])["input_ids"]
    assert tokenizer.decode(encoded, skip_special_tokens=True) == ["low er", "er"]
    assert tokenizer.decode(encoded[1], skip_special_tokens=True) == "er"
    assert tokenizer.decode([]) == ""


@given(st.lists(st.text(max_size=20), max_size=4))
def test_a_row_does_not_depend_on_the_other_rows(trained, texts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = rows_of(trained(texts))
        assert together == [rows_of(trained(text))[0] for text in texts]


@pytest.fixture(scope="module")
def trained(golden):
    return Tokenizer.from_pretrained(golden / "tokenizer" / "vocabularies" / "trained")


# ---- saving ----


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_a_saved_tokenizer_gives_the_same_ids_from_either_form(name, cases, folder_of, tmp_path):
    texts, tokenizer = cases(name)["texts"], Tokenizer.from_pretrained(folder_of(name))
    expected = rows_of(tokenizer(texts))
    tokenizer.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert (rows_of(again(texts)), again.max_length, again.pad_token_id) == (
        expected,
        tokenizer.max_length,
        tokenizer.pad_token_id,
    )
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == [
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert rows_of(Tokenizer.from_pretrained(tmp_path / "saved")(texts)) == expected


def test_saving_keeps_settings_that_it_does_not_know(toy, tmp_path):
    write(toy, "tokenizer_config.json", {"chat_template": "none", "model_max_length": 30})
    Tokenizer.from_pretrained(toy).limited_to(20).save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == "none"
    assert settings["model_max_length"] == 20


def test_saving_over_a_file_is_refused_in_one_line(toy, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot be made: .*taken' is no folder"):
        Tokenizer.from_pretrained(toy).save_pretrained(tmp_path / "taken")


# ---- maximum length ----


@pytest.mark.parametrize(
    ("settings", "config", "expected"),
    [
        ({}, None, 77),
        ({"model_max_length": 32}, {"max_position_embeddings": 16}, 32),
        (
            {"model_max_length": 1000000000000000019884624838656},
            {"max_position_embeddings": 16},
            16,
        ),
        ({"model_max_length": 1e30}, None, 77),
        ({"model_max_length": 40.0}, None, 40),
        ({}, {"text_config": {"max_position_embeddings": 24}}, 24),
        ({}, {"text_config": None, "text_config_dict": {"max_position_embeddings": 20}}, 20),
        (
            {},
            {
                "text_config": {"max_position_embeddings": 24},
                "text_config_dict": {"max_position_embeddings": 20},
            },
            20,
        ),
        ({}, {"text_config": {}, "text_config_dict": None}, 77),
        ({"model_max_length": None}, {"max_position_embeddings": 12}, 12),
    ],
)
def test_the_maximum_length_comes_from_the_first_file_that_says(toy, settings, config, expected):
    write(toy, "tokenizer_config.json", settings)
    if config is not None:
        write(toy, "config.json", config)
    assert Tokenizer.from_pretrained(toy).max_length == expected


@pytest.mark.parametrize("length", [1, 0, -5, 7.5, float("nan"), "77", True, [77]])
def test_an_impossible_length_in_a_file_is_refused_with_its_name(toy, length):
    write(toy, "tokenizer_config.json", {"model_max_length": length})
    with pytest.raises(ConfigError, match="model_max_length should be a whole number from 2"):
        Tokenizer.from_pretrained(toy)


def test_an_endless_length_in_a_models_file_is_refused(toy):
    write(toy, "config.json", {"max_position_embeddings": float("inf")})
    with pytest.raises(ConfigError, match="max_position_embeddings should be a whole number"):
        Tokenizer.from_pretrained(toy)


def test_parts_of_tokenizer_json_that_are_not_needed_may_be_unknown(golden, tmp_path):
    """As in transformers, which sets the normalizer and the like itself."""
    source = golden / "tokenizer" / "vocabularies" / "trained"
    folder = Path(shutil.copytree(source, tmp_path / "trained"))
    content = json.loads((folder / "tokenizer.json").read_text())
    write(folder, "tokenizer.json", content | {"normalizer": {"type": "of tomorrow"}})
    texts = ["Low lower", "naïve"]
    again, expected = (Tokenizer.from_pretrained(place)(texts) for place in (folder, source))
    np.testing.assert_array_equal(again["input_ids"], expected["input_ids"])


def test_a_broken_config_is_a_config_error(toy):
    write(toy, "config.json", "{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        Tokenizer.from_pretrained(toy)


# ---- special tokens ----


def test_the_older_file_of_special_tokens_counts_where_no_list_of_added_tokens_is(toy):
    write(
        toy,
        "special_tokens_map.json",
        {"pad_token": {"content": "!", "lstrip": False}, "unk_token": "<unk>"},
    )
    tokenizer = Tokenizer.from_pretrained(toy)
    assert (
        tokenizer.pad_token_id == tokenizer.vocab_size - 1 == 23
    )  # not in vocab.json, so it comes after it
    write(toy, "tokenizer_config.json", {"added_tokens_decoder": {}, "unk_token": "<unk>"})
    assert Tokenizer.from_pretrained(toy).pad_token_id == 22


def test_a_start_token_that_no_file_has_is_refused(toy):
    vocabulary = json.loads((toy / "vocab.json").read_text())
    del vocabulary["<|startoftext|>"]
    write(toy, "vocab.json", vocabulary)
    with pytest.raises(CheckpointError, match="names no bos_token"):
        Tokenizer.from_pretrained(toy)


# ---- bad input ----


@pytest.mark.parametrize(
    "texts", [None, 3, b"low", {"a": 1}, ["low", b"low"], ["low", None], ["low", 3], [["low"]]]
)
def test_what_is_no_string_is_refused(folder_of, texts):
    with pytest.raises(InputError, match="should be a"):
        Tokenizer.from_pretrained(folder_of("toy"))(texts)


def test_half_of_a_surrogate_pair_is_refused(folder_of):
    with pytest.raises(InputError, match="Text 1 holds half of a surrogate pair"):
        Tokenizer.from_pretrained(folder_of("toy"))(["low", "a\ud83d"])


@pytest.mark.parametrize("length", [1, 0, -1, 78, 2.5, "9", True])
def test_a_maximum_length_outside_the_tokenizers_is_refused(folder_of, length):
    with pytest.raises(InputError, match="max_length should be from 2 to this tokenizer's 77"):
        Tokenizer.from_pretrained(folder_of("toy"))("low", max_length=length)


@pytest.mark.parametrize("padding", [True, False, None, "longst"])
def test_another_padding_is_refused(folder_of, padding):
    with pytest.raises(InputError, match="'longest' or 'max_length'"):
        Tokenizer.from_pretrained(folder_of("toy"))("low", padding=padding)


@pytest.mark.parametrize("ids", [[-1], [1.5], ["low"], [[[1]]]])
def test_ids_that_are_none_are_refused(folder_of, ids):
    with pytest.raises(InputError, match="decode takes whole numbers"):
        Tokenizer.from_pretrained(folder_of("toy")).decode(ids)


DAMAGE = [
    ("vocab.json", "{", "is not valid JSON"),
    ("vocab.json", "[1]", "expected a JSON object"),
    ("vocab.json", "{}", "should map tokens to ids"),
    ("vocab.json", {"a</w>": "0"}, "should be a whole number"),
    ("vocab.json", {"a</w>": 0, "b": 0}, "the same id"),
    ("vocab.json", {"a": 0}, "not a CLIP vocabulary"),
    ("merges.txt", "#version: 0.2\nl o\nlo\n", "merge 3 should be two tokens, got 'lo'"),
    ("merges.txt", "l q\n", "do not fit"),
    ("tokenizer.json", "{}", "byte-pair model"),
    ("tokenizer.json", {"model": {"type": "WordPiece", "vocab": {}}}, "got 'WordPiece'"),
    ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a</w>": 0}}}, "no list 'merges'"),
    (
        "tokenizer.json",
        {"model": {"vocab": {"a</w>": 0}, "merges": [["a"]]}},
        "merge 1 should be two tokens",
    ),
    ("tokenizer_config.json", "[]", "expected a JSON object"),
    (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"x": {"content": "y"}}},
        "list of added tokens is damaged",
    ),
    ("special_tokens_map.json", {"pad_token": 3}, "should be a token"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(toy, name, content, message):
    write(toy, name, content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.from_pretrained(toy)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(toy):
    (toy / "merges.txt").unlink()
    with pytest.raises(
        CheckpointError, match=r"needs tokenizer.json, or vocab.json and merges.txt; it holds"
    ):
        Tokenizer.from_pretrained(toy)
    with pytest.raises(CheckpointError, match="is not a directory"):
        Tokenizer.from_pretrained(toy / "vocab.json")


def test_the_python_tokenizer_needs_no_tensorflow(folder_of):
    import subprocess
    import sys

    code = (
        "import sys; from tf_groupvit import Tokenizer;"
        f" Tokenizer.from_pretrained({str(folder_of('toy'))!r})('low')"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit('tensorflow' in sys.modules)"], check=False
    )
    assert done.returncode == 0
