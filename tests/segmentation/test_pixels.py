"""The graph's way from pixels to labels, against the segmenter's own; and under Keras' predict."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.pixels import pixel_labels


def pictures(count, height, width):
    coarse = np.random.default_rng(4).integers(0, 256, (count, 4, 5, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height))) for each in coarse])


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("choices", "size"),
    [
        (dict(mode="whole", background=0.3), (50, 70)),
        pytest.param(dict(mode="whole", protocol="hf", size=64), (40, 33), marks=SLOW),
        pytest.param(dict(mode="window"), (50, 70), marks=SLOW),
        pytest.param(dict(mode="window", background=0.3), (20, 150), marks=SLOW),
    ],
)
def test_predict_labels_as_the_segmenter_does(make, choices, size):
    segmenter, images = make(**choices), pictures(3, *size)
    labels = segmenter.predict(images, batch_size=2, verbose=0)
    B, H, W = labels.shape
    assert (3, *size) == (B, H, W)
    expected = np.stack([result.labels for result in segmenter(list(images))])
    assert len(np.unique(expected)) > 1
    # The two resize within a grey level of each other.
    assert (labels == expected).mean() >= 0.98


@pytest.mark.slow
def test_predict_takes_another_size_after_the_first(make):
    segmenter = make()
    for size in ((20, 30), (33, 8)):
        assert segmenter.predict(pictures(1, *size), verbose=0).shape == (1, *size)


@pytest.mark.parametrize("pixels", [np.zeros((2, 8, 8, 3), "float32"), np.zeros((2, 8, 8), "uint8")])
def test_predict_refuses_what_are_no_pixels(make, pixels):
    with pytest.raises(InputError, match="expected uint8"):
        make().predict(pixels, verbose=0)


def test_a_window_that_no_patch_divides_is_labelled(make):
    segmenter = make(mode="window")
    images = pictures(1, 11, 150)  # 21 x 293 after resizing: 2 rows of patches, and 5 pixels
    found = pixel_labels(segmenter.model, tf.constant(images), tf.constant(segmenter.text_embeds), segmenter.settings)
    assert found.shape == (1, 11, 150)
    assert (found.numpy()[0] == segmenter(images[0]).labels).mean() >= 0.98
