"""What the page shows of a small segmentation, whose answer can be seen."""

import numpy as np
import pytest

from tf_groupvit.app.showing import CLASSES, STRENGTH, chart, refusal, regions, sentence, view_names
from tf_groupvit.segmentation.palette import class_colors
from tf_groupvit.segmentation.result import Segmentation

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


def test_a_region_has_the_colour_that_its_class_has_in_every_picture(result):
    _, colours = regions(result, CLASSES)
    red, green, blue = class_colors(NAMES)[2]
    assert colours["sky"] == f"#{red:02x}{green:02x}{blue:02x}"


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
    assert "<script>" not in refusal("The file '<script>' is no image.")
    labels = np.ones((1, 1), int)
    assert "<i>" not in sentence(Segmentation(labels, NAMES, np.zeros((1, 1, 3), np.uint8)))


def test_a_refusal_is_announced_at_once():
    assert refusal("No classes.") == '<p role="alert" class="refused">No classes.</p>'
