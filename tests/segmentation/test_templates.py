"""The sets of templates, and templates of one's own."""

import pytest

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.templates import FULL, SETS, SUBSET, templates_of


def test_the_sets_have_their_published_sizes():
    assert {name: len(found) for name, found in SETS.items()} == {
        "identity": 1,
        "simple": 1,
        "subset": 7,
        "full": 80,
    }


def test_no_template_is_there_twice_and_each_has_one_place():
    for found in SETS.values():
        assert len(set(found)) == len(found)
        assert all(template.count("{}") == 1 for template in found)


def test_the_subset_is_part_of_the_full_set():
    assert set(SUBSET) <= set(FULL)


def test_a_set_is_taken_by_name_and_a_template_as_it_is():
    assert templates_of("identity") == ("{}",)
    assert templates_of("simple") == ("a photo of a {}.",)
    assert templates_of("my {}") == ("my {}",)
    assert templates_of(["my {}", "{} {"]) == ("my {}", "{} {")


@pytest.mark.parametrize("given", ["ful", "a photo", "{} and {}", ["{}", "none"], ["{}", 3]])
def test_a_template_without_a_single_place_is_refused_naming_the_sets(given):
    with pytest.raises(InputError, match="identity, simple, subset, full"):
        templates_of(given)


@pytest.mark.parametrize("given", [[], 3, None, b"{}"])
def test_no_templates_are_refused(given):
    with pytest.raises(InputError, match="templates"):
        templates_of(given)
