"""Words and prompts of captions, a vocabulary's words, and byte pairs learned from texts."""

import numpy as np
import pytest

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.segmentation.templates import FULL
from tf_groupvit.training.texts import (
    LEARNED,
    TEMPLATES,
    Prompts,
    Words,
    clean_caption,
    listed_words,
    tagged_words,
    train_vocabulary,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A cat on a mat", ["cat", "mat"]),
        ("a MAT, a cat; a cat!", ["mat", "cat"]),
        ("cats, matted and concatenated", []),
        ("a traffic  light at night", ["traffic light"]),
        ("a light above the traffic", ["light"]),
        ("light before a traffic light", ["light", "traffic light"]),
        ("a C++ book", ["C++"]),
        ("", []),
    ],
)
def test_listed_words_are_whole_words_in_the_order_of_the_caption(caption, expected):
    assert listed_words(["cat", "mat", "light", "traffic light", "C++"])(caption) == expected


@pytest.mark.parametrize("words", ["cat", [], ["cat", " "]])
def test_a_list_without_words_is_refused(words):
    with pytest.raises(InputError):
        listed_words(words)


def test_up_to_three_words_are_drawn_and_none_twice():
    words = ["cat", "dog", "cow", "hen", "pig"]
    prompts = Prompts(listed_words(words), templates="identity")
    drawn = [prompts("a cat, a dog, a cow, a hen and a pig", rng(seed)) for seed in range(40)]
    assert all(len(set(three)) == 3 for three in drawn)
    assert set().union(*drawn) == set(words)
    assert drawn[0] != drawn[1]


def test_the_caption_stands_in_for_words_that_are_missing():
    prompts = Prompts(listed_words(["cat", "dog"]), templates="identity")
    assert sorted(prompts("a dog and a cat", rng())) == ["a dog and a cat", "cat", "dog"]
    assert prompts("a bird", rng()) == ["a bird"] * 3


def test_every_one_of_the_80_templates_is_drawn():
    prompts, found = Prompts(listed_words(["cat"]), count=1), set()
    for seed in range(800):
        found |= set(prompts("cat", rng(seed)))
    assert found == {template.format("cat") for template in FULL}


def test_the_same_seed_draws_the_same_prompts():
    prompts = Prompts(listed_words(["cat", "dog"]))
    assert prompts("a dog and a cat", rng(5)) == prompts("a dog and a cat", rng(5))


def test_entities_become_characters_twice_and_blanks_go():
    assert clean_caption("  cats &amp;amp; dogs &lt;3\n") == "cats & dogs <3"


def test_a_count_of_no_prompts_is_refused():
    with pytest.raises(InputError, match="1 or more"):
        Prompts(listed_words(["cat"]), count=0)


def test_a_missing_tagger_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nltk", None)
    with pytest.raises(InputError, match=r"tf-groupvit\[train\]"):
        tagged_words()


@pytest.mark.network
def test_the_tagger_finds_nouns_and_verbs():
    nltk = pytest.importorskip("nltk")
    if not nltk.download("averaged_perceptron_tagger_eng", quiet=True):
        pytest.skip("the tagger's data cannot be fetched")
    found = tagged_words()("A small dog is running on the green grass")
    assert {"dog", "running", "grass"} <= set(found) and not {"small", "on", "the", "green"} & set(
        found
    )


@pytest.fixture(scope="module")
def tokenizer(golden):
    return Tokenizer.from_pretrained(
        golden / "tokenizer" / "vocabularies" / "trained", max_length=30
    )


def test_words_are_found_whole_in_any_case_the_longer_one_where_two_overlap(tokenizer):
    words = Words(["apple", "box", "ring", "traffic light", "light"], tokenizer, 30)
    assert words.present(["A ring, boxes and an APPLE.", "a traffic  light", "light"]).tolist() == [
        [1, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]


def test_each_batch_has_one_template_for_all_words_the_same_one_each_time(tokenizer):
    words = Words(["apple", "star"], tokenizer, 30, seed=4)
    texts = ([form.format(word) for word in ("apple", "star")] for form in TEMPLATES)
    possible = [tokenizer(rows, 30, "max_length")["input_ids"] for rows in texts]
    seen = set()
    for number in range(20):
        ids, mask = words.prompts(number)
        assert ids.shape == mask.shape == words.shape == (2, 30)
        assert np.array_equal(ids, words.prompts(number)[0])
        seen.add(next(k for k, rows in enumerate(possible) if np.array_equal(rows, ids)))
    assert len(seen) > 2


def test_no_words_or_an_empty_one_are_refused(tokenizer):
    for wrong in ([], ["apple", " "]):
        with pytest.raises(InputError, match="none of them empty"):
            Words(wrong, tokenizer, 30)


def test_a_trained_vocabulary_writes_any_text_in_python_and_in_graphs(tmp_path):
    texts = ["a photo of an apple on the grass.", "naïve 雪 e-mail 42"]
    tokenizer = train_vocabulary(tmp_path, texts[:1] * 3, merges=30, max_length=48)
    tokens = tokenizer(texts, padding="max_length")
    graph = tokenizer.graph()(texts)
    assert np.array_equal(tokens["input_ids"], graph["input_ids"])
    assert (
        tokenizer.decode(tokens["input_ids"][0], skip_special_tokens=True)
        == "a photo of an apple on the grass ."
    )
    assert tokens["attention_mask"][0].sum() < 15  # whole words became tokens


def test_the_same_texts_give_the_same_vocabulary_however_often_pairs_are_alike(tmp_path):
    texts = [
        f"{a}{b} {b}{a} {a}{a}" for a in "abcdefgh" for b in "abcdefgh"
    ] * 2  # hundreds of pairs as frequent
    for k in range(5):
        train_vocabulary(tmp_path / str(k), texts, merges=40, max_length=48)
    assert len({(tmp_path / str(k) / "merges.txt").read_bytes() for k in range(5)}) == 1


def test_a_vocabulary_is_learned_from_the_beginning_of_a_huge_caption(tmp_path):
    huge = "x" * LEARNED
    for name, end in (("short", ""), ("long", "y" * 10_000_000)):
        train_vocabulary(tmp_path / name, [huge + end, "a cat"], merges=40, max_length=48)
    short, long = ((tmp_path / name / "merges.txt").read_bytes() for name in ("short", "long"))
    assert short == long
