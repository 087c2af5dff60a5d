"""What the page shows is what a segmenter with its choices gives, and can be read by everyone."""

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tf_groupvit.app.results import (
    CLASSES,
    STRENGTH,
    Choices,
    PageModel,
    alert,
    chart,
    comparison,
    regions,
    sentence,
    view_names,
    words_of,
)
from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.palette import class_colors
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.segmenter import Segmenter

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "segmenter"
PHOTO = np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def base():
    return Segmenter.from_pretrained(FOLDER, "dog, grass", normalize="imagenet")


@pytest.fixture(scope="module")
def page_model(base):
    return PageModel(base, normalize="imagenet")


@pytest.mark.parametrize(
    "choices",
    [
        Choices(),
        Choices("art of the {}.", "hf"),
        Choices("subset", background=0.4),
        Choices(mode="window"),
        Choices(refine="pamr"),
        Choices("subset", mode="window", background=0.4, refine="guided"),
    ],
    ids=str,
)
def test_a_photo_is_segmented_as_a_segmenter_with_these_choices_would(page_model, base, choices):
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
        refine=choices.refine,
    )(PHOTO)
    result = page_model.segment(PHOTO, "boat, a red car,\n sky|clouds,", choices)
    assert result.class_names == expected.class_names
    assert np.array_equal(result.labels, expected.labels)


def test_what_runs_the_model_is_that_of_the_base(base, monkeypatch):
    lite = Segmenter(base.model, base.tokenizer, base.processor, base.classes, runtime="lite")
    seen = []
    monkeypatch.setattr(Segmenter, "__call__", lambda used, photo: seen.append(used.runtime))
    PageModel(lite).segment(PHOTO, "dog, grass")
    assert seen == ["lite"]


def test_words_are_encoded_once_however_often_the_background_moves(base, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        "tf_groupvit.app.results.embed_classes",
        lambda model, tokenizer, words, _: encoded.append(words) or base.classes,
    )
    fresh = PageModel(base)
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


def test_a_missing_photo_is_refused_in_words(page_model):
    with pytest.raises(InputError, match="no photo yet: upload one"):
        page_model.segment(None, "dog")


def test_a_model_without_a_tokenizer_is_refused(base):
    bare = Segmenter(base.model, None, base.processor, base.classes)
    with pytest.raises(InputError, match="needs a tokenizer"):
        PageModel(bare)


def test_there_is_a_view_for_each_stage(page_model):
    assert page_model.stages == len(page_model.segment(PHOTO, "dog").groups)


# Regions, chart and sentence

LABELS = np.array([[0, 2, 2], [2, 2, 2]])
NAMES = ["dog", "<i>cat</i>", "sky"]
STAGES = [np.array([[0, 1, 3], [1, 1, 3]]), np.array([[0, 1, 1], [1, 1, 1]])]
SCORES = np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]])


@pytest.fixture
def result():
    image = np.zeros((2, 3, 3), np.uint8)
    return Segmentation(LABELS, NAMES, image, groups=STAGES, group_scores=SCORES)


def test_each_class_that_is_present_is_a_region_largest_first(result):
    (image, masks), _ = regions(result, CLASSES)
    assert image is result.image
    assert [name for _, name in masks] == ["sky", "dog"]
    for mask, name in masks:
        assert np.array_equal(mask, (NAMES.index(name) == LABELS) * STRENGTH)


def test_a_region_has_the_color_that_its_class_has_in_every_picture(result):
    _, colors = regions(result, CLASSES)
    red, green, blue = class_colors(NAMES)[2]
    assert colors["sky"] == f"#{red:02x}{green:02x}{blue:02x}"


def test_the_groups_of_the_first_stage_have_numbers(result):
    (_, masks), _ = regions(result, "Groups of stage 1")
    assert [name for _, name in masks] == ["group 1", "group 3", "group 0"]


def test_the_groups_of_the_last_stage_are_called_by_the_class_they_are_closest_to(result):
    (_, masks), _ = regions(result, "Groups of stage 2")
    assert [name for _, name in masks] == ["group 1: sky", "group 0: dog"]


def test_the_masks_of_a_view_cover_every_pixel_once(result):
    for view in view_names(2):
        (_, masks), _ = regions(result, view)
        assert np.allclose(sum(mask for mask, _ in masks), STRENGTH)


def test_views_are_named_by_stage():
    assert view_names(2) == ["Classes", "Groups of stage 1", "Groups of stage 2"]


def test_large_photos_are_shown_smaller_with_their_masks_in_place():
    labels = np.zeros((2400, 1300), np.uint8)
    labels[1200:] = 1
    result = Segmentation(labels, ["sky", "sea"], np.repeat(labels[..., None], 3, -1) * 255)
    (image, masks), _ = regions(result, CLASSES)
    assert image.shape == (1200, 650, 3)
    assert np.array_equal(masks[1][0] > 0, image[..., 0] == 255)


def test_masks_before_and_after_are_two_pictures_under_a_line_that_moves(result):
    before = Segmentation(np.full((2, 3), 2), NAMES, result.image)
    text = comparison(before, result)
    assert "16.7% of the pixels changed their class" in text
    ((_, first), (_, second)) = pictures = [
        (alt, np.array(Image.open(BytesIO(b64decode(data)))))
        for alt, data in re.findall(r'alt="([^"]+)" src="data:image/jpeg;base64,([^"]+)"', text)
    ]
    assert ["before" in alt for alt, _ in pictures] == [True, False]
    assert first.shape == second.shape == (2, 3, 3)
    colors = STRENGTH * result.colors
    assert np.allclose(first, colors[2], atol=9)  # the photo is black; JPEG is not exact
    assert np.allclose(second[0, 0], colors[0], atol=40)
    assert 'type="range"' in text and 'aria-label="' in text


def test_masks_that_sharpening_leaves_are_not_compared(result):
    assert comparison(result, result) == '<p class="compared">Sharpening changed no pixel.</p>'


def test_a_refinement_of_the_segmenter_is_that_of_the_page(base, page_model):
    assert page_model.refine == "pamr"
    assert PageModel(base.with_choices(refine="guided")).refine == "guided"


def test_the_chart_is_a_table_of_the_classes_that_are_there_largest_first(result):
    text = chart(result)
    assert text.index("sky") < text.index("dog") < text.index("cat")
    assert "83.3%" in text and "16.7%" in text
    assert text.count('scope="row"') == 2
    assert "1 class is not in the picture" in text


def test_hundreds_of_classes_are_folded_and_the_sentence_stays_short():
    labels = np.repeat(np.arange(20), 5).reshape(10, 10)
    names = [f"class {number}" for number in range(300)]
    many = Segmentation(labels, names, np.zeros((10, 10, 3), np.uint8))
    text = chart(many)
    assert text.count('scope="row"') == 20
    assert "280 classes are not in the picture" in text
    assert "class 299" in text.partition("<details")[2]
    assert sentence(many).endswith("class 7 5%, and 12 more.</p>")


def test_the_sentence_names_what_is_there(result):
    assert "Segmented 3x2 pixels: sky 83%, dog 17%." in sentence(result)
    assert 'role="status"' in sentence(result)


def test_words_of_a_person_are_never_markup(result):
    assert "<i>" not in chart(result)
    assert "<script>" not in alert("The file '<script>' is no image.")
    labels = np.ones((1, 1), int)
    assert "<i>" not in sentence(Segmentation(labels, NAMES, np.zeros((1, 1, 3), np.uint8)))


def test_a_refusal_is_announced_at_once():
    assert alert("No classes.") == '<p role="alert" class="refused">No classes.</p>'
