"""A vocabulary's words: which captions have them, and their prompts, alike for all of a batch."""

import numpy as np
import pytest

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training.texts import TEMPLATES, Words


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
