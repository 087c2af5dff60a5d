"""Scenes: the same for a seed, true to their masks and captions, told apart by color."""

from itertools import islice

import numpy as np
import pytest

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.datasets import SceneDataset
from tf_groupvit.scenes.painting import GROUNDS, THINGS, stamp
from tf_groupvit.scenes.scene import CLASSES, COUNTS, FORMS, KINDS, caption, scene, scenes

SAMPLE = list(scenes(7, 200))


def test_eight_things_stand_on_five_grounds():
    assert THINGS == ("apple", "orange", "star", "tree", "box", "cross", "ring", "moon")
    assert GROUNDS == ("grass", "sky", "sand", "water", "brick")
    assert CLASSES == THINGS + GROUNDS
    assert sum(KINDS.values()) == pytest.approx(1)
    assert sum(COUNTS.values()) == pytest.approx(1)
    assert FORMS.keys() == KINDS.keys()


def test_a_scene_is_a_picture_a_mask_and_a_caption():
    for drawn in SAMPLE:
        assert (drawn.image.shape, drawn.image.dtype) == ((64, 64, 3), np.uint8)
        assert (drawn.mask.shape, drawn.mask.dtype) == ((64, 64), np.uint8)
        assert drawn.image.flags.c_contiguous
        assert drawn.labels == tuple(np.unique(drawn.mask))
        assert drawn.names == tuple(CLASSES[k] for k in drawn.labels)


def test_a_caption_names_exactly_what_is_in_the_mask():
    for drawn in SAMPLE:
        words = drawn.caption.replace(",", " ").replace(".", " ").split()
        assert {name for name in CLASSES if name in words} == set(drawn.names), drawn.caption


def test_captions_have_articles_and_lists():
    rng = np.random.default_rng(0)
    texts = {
        caption("things on one ground", ["apple", "box", "star"], ["sky"], True, rng)
        for _ in range(100)
    }
    assert "a photo of an apple, a box and a star in the sky." in texts
    assert len(texts) == len(FORMS["things on one ground"])


def test_scenes_depend_on_seed_and_index_alone():
    one, two = scene(3, 5), next(islice(scenes(3, 9), 5, None))
    assert (one.image == two.image).all()
    assert (one.mask == two.mask).all()
    assert one.caption == two.caption
    later = list(scenes(3, 6))[5]
    assert (later.image == one.image).all()


def test_other_seeds_indices_and_streams_give_other_scenes():
    pictures = [
        scene(0, 0),
        scene(0, 1),
        scene(1, 0),
        scene(0, 0, stream="training"),
        scene(1, 0, stream="training"),
    ]
    assert len({picture.image.tobytes() for picture in pictures}) == 5


def test_iterators_do_not_disturb_one_another():
    first, second = scenes(1, 3), scenes(2, 3)
    mixed = [picture.caption for pair in zip(first, second, strict=True) for picture in pair]
    assert mixed[::2] == [picture.caption for picture in scenes(1, 3)]
    assert mixed[1::2] == [picture.caption for picture in scenes(2, 3)]


def test_every_kind_of_scene_and_every_class_comes():
    assert {label for drawn in SAMPLE for label in drawn.labels} == set(range(13))
    things = [sum(label < 8 for label in drawn.labels) for drawn in SAMPLE]
    grounds = [sum(label >= 8 for label in drawn.labels) for drawn in SAMPLE]
    assert set(zip(things, grounds, strict=True)) == {
        (1, 0),  # close-ups
        (0, 1),
        (0, 2),
        *((count, ground) for count in (1, 2, 3) for ground in (1, 2)),
    }


def test_things_are_large_enough_to_be_found():
    for drawn in SAMPLE:
        for label in drawn.labels:
            if label < 8:
                assert (drawn.mask == label).sum() >= 60, drawn.caption


def test_colors_alone_tell_most_pixels_apart():
    """The nearest mean color gives the class of most pixels: things and grounds differ in more
    than outline.
    """
    pixels = np.concatenate([drawn.image.reshape(-1, 3) for drawn in SAMPLE]).astype(float)
    labels = np.concatenate([drawn.mask.ravel() for drawn in SAMPLE])
    means = np.array([pixels[labels == k].mean(0) for k in range(13)])
    nearest = ((pixels[::7, None] - means) ** 2).sum(-1).argmin(1)
    recalls = [(nearest[labels[::7] == k] == k).mean() for k in range(13)]
    assert np.mean(recalls) > 0.6


@pytest.mark.parametrize("name", THINGS)
def test_an_outline_stays_inside_its_circle(name):
    distance, color = stamp(name, 64)
    side = int(len(distance) ** 0.5)
    border = distance.reshape(side, side)
    assert min(border[0].min(), border[-1].min(), border[:, 0].min(), border[:, -1].min()) > 0.04
    assert 0.15 < (distance < 0).mean() < 0.6
    assert color.min() >= 0
    assert color.max() <= 255


@pytest.mark.parametrize("size", [16, 33, 100])
def test_any_size_can_be_drawn(size):
    for drawn in scenes(0, 20, size):
        assert drawn.image.shape == (size, size, 3)
        assert drawn.mask.shape == (size, size)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, 0), "Seeds must be in"),
        ((2**62, 0), "Seeds must be in"),
        ((0, -1), "Seeds must be in"),
        ((0, 0, 15), "size of scenes"),
        ((0, 0, 64, "test"), "no stream 'test'"),
    ],
)
def test_scenes_that_there_are_not_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        scene(*arguments)
    with pytest.raises(InputError, match="0 or more"):
        scenes(0, -1)
    assert list(scenes(0, 0)) == []
    assert scene(2**62 - 1, 0).image.any()


def test_scenes_are_a_dataset_of_thirteen_classes_without_background():
    dataset = SceneDataset(4, 3)
    dataset.check(range(3))
    assert dataset.names == ["00000", "00001", "00002"]
    assert tuple(dataset.class_names) == CLASSES
    for index, drawn in enumerate(scenes(4, 3)):
        assert (dataset.image(index) == drawn.image).all()
        assert (dataset.labels(index) == drawn.mask).all()
    with pytest.raises(InputError, match="1 or more: received 0"):
        SceneDataset(0, 0)
