"""Choices in, checked settings out."""

import pytest

from tf_groupvit.config import GroupViTVisionConfig
from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.segmentation.settings import make_settings

VISION = GroupViTVisionConfig()


def test_defaults_are_the_paper_on_the_whole_image():
    found = make_settings(VISION, ImageProcessor())
    assert (found.protocol, found.mode, found.background) == ("paper", "whole", None)
    assert (found.size, found.image_size, found.window, found.patch) == (
        (224, 224),
        224,
        448,
        (16, 16),
    )


def test_statistics_are_the_processors_or_those_that_are_named():
    processor = ImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    assert make_settings(VISION, processor).mean == (0.1, 0.2, 0.3)
    found = make_settings(VISION, processor, normalize="imagenet")
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert make_settings(VISION, processor, normalize="clip").mean[0] == pytest.approx(0.48145466)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (dict(protocol="published"), "'published'.*paper, hf"),
        (dict(mode="slide"), "'slide'.*whole, window"),
        (dict(mode="window", size=448), "mode 'whole'"),
        (dict(size=100), "multiple of the patch size"),
        (dict(background=1.5), "from 0 to 1"),
        (dict(background="0.9"), "from 0 to 1"),
        (dict(protocol="hf", background=0.5), "protocol='paper'"),
        (dict(normalize="coco"), "'clip'|'imagenet'"),
    ],
)
def test_a_choice_that_there_is_not_is_refused_naming_those_there_are(choices, words):
    with pytest.raises(InputError, match=words):
        make_settings(VISION, ImageProcessor(), **choices)


def test_a_model_without_grouping_cannot_segment():
    flat = GroupViTVisionConfig(
        depths=[2], num_group_tokens=[0], num_output_groups=[0], num_hidden_layers=2
    )
    with pytest.raises(InputError, match="no grouping stage"):
        make_settings(flat, ImageProcessor())


def test_windows_of_a_model_of_oblong_images_go_by_the_short_side():
    oblong = GroupViTVisionConfig(image_size=[224, 448])
    found = make_settings(oblong, ImageProcessor())
    assert (found.size, found.window) == ((224, 448), 448)
