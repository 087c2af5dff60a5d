"""What is chosen on the page gives what a segmenter with these choices gives."""

from pathlib import Path

import numpy as np
import pytest

from tf_groupvit.app.answering import Answering, Choices, words_of
from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.segmenter import Segmenter

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "segmenter"
PHOTO = np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def base():
    return Segmenter.from_pretrained(FOLDER, "dog, grass", normalize="imagenet")


@pytest.fixture(scope="module")
def answering(base):
    return Answering(base, normalize="imagenet")


@pytest.mark.parametrize(
    "choices",
    [
        Choices(),
        Choices("art of the {}.", "hf"),
        Choices("subset", background=0.4),
        Choices(mode="window"),
    ],
    ids=str,
)
def test_a_photo_is_segmented_as_a_segmenter_with_these_choices_would(answering, base, choices):
    expected = Segmenter(
        base.model,
        base.tokenizer,
        base.processor,
        ["boat", "a red car", "sky|clouds"],
        choices.templates,
        choices.protocol,
        choices.mode,
        choices.background or None,
        normalize="imagenet",
    )(PHOTO)
    result = answering.segment(PHOTO, "boat, a red car,\n sky|clouds,", choices)
    assert result.class_names == expected.class_names
    assert np.array_equal(result.labels, expected.labels)


def test_what_runs_the_model_is_that_of_the_base(base):
    lite = Segmenter(base.model, base.tokenizer, base.processor, base.classes, runtime="lite")
    answering = Answering(lite)
    assert answering._build(("dog", "grass"), Choices()).runtime == "lite"


def test_words_are_encoded_once_however_often_the_background_moves(base, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        "tf_groupvit.app.answering.embed_classes",
        lambda model, tokenizer, words, _: encoded.append(words) or base.classes,
    )
    fresh = Answering(base)
    for background in (0.0, 0.2, 0.4):
        fresh.segment(PHOTO, "dog, grass", Choices(background=background))
    assert encoded == [("dog", "grass")]


@pytest.mark.parametrize("text", ["a, b,c", " a ,b\nc\n", "a,,b,\n,c"])
def test_commas_and_lines_stand_between_words(text):
    assert words_of(text) == ("a", "b", "c")


@pytest.mark.parametrize("text", ["", " ", ",\n,"])
def test_no_words_are_refused_in_words(text):
    with pytest.raises(InputError, match="no classes yet: type some words"):
        words_of(text)


def test_a_missing_photo_is_refused_in_words(answering):
    with pytest.raises(InputError, match="no photo yet: upload one"):
        answering.segment(None, "dog")


def test_a_model_without_a_tokenizer_is_refused(base):
    bare = Segmenter(base.model, None, base.processor, base.classes)
    with pytest.raises(InputError, match="needs a tokenizer"):
        Answering(bare)


def test_there_is_a_view_for_each_stage(answering):
    assert answering.stages == len(answering.segment(PHOTO, "dog").groups)
