"""Thresholds tried on part of a dataset: the best one is chosen, and every try is reported."""

import numpy as np
import pytest
from trees import voc_tree

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.calibration import GRID, calibrate
from tf_groupvit.evaluation.datasets import MaskDataset


class Thresholded:
    """Says aeroplane where a pixel is brighter than the threshold."""

    def __init__(self):
        self.looks = 0

    def labels_by_threshold(self, image, thresholds):
        self.looks += 1
        for threshold in thresholds:
            yield (image[..., 0] > 255 * threshold).astype(np.uint8)


@pytest.fixture
def voc(tmp_path):
    # Gray 128 of 255: an aeroplane at thresholds up to 0.5. The pictures are of aeroplanes.
    voc_tree(tmp_path, {f"{k}": [[1, 1], [1, 1]] for k in range(5)})
    return MaskDataset("voc", tmp_path)


def test_the_threshold_with_the_highest_miou_is_chosen_and_the_lowest_of_equals(voc):
    found = calibrate(Thresholded(), voc, 2, grid=(0.9, 0.4, 0.2, 0.6))
    assert found.background == 0.2
    assert found.miou == {0.2: 1.0, 0.4: 1.0, 0.6: 0.0, 0.9: 0.0}
    assert found.to_dict() == {
        "background": 0.2,
        "images": 2,
        "miou": {"0.2": 1.0, "0.4": 1.0, "0.6": 0.0, "0.9": 0.0},
    }


def test_so_many_pictures_are_used_spread_over_the_dataset(voc):
    segmenter = Thresholded()
    assert calibrate(segmenter, voc, 3).images == 3
    assert segmenter.looks == 3  # once at each, whatever the number of thresholds
    assert calibrate(Thresholded(), voc, 99).images == 5


def test_a_picture_that_fails_counts_for_no_threshold(voc):
    class Failing(Thresholded):
        def labels_by_threshold(self, image, thresholds):
            answers = super().labels_by_threshold(image, thresholds)
            yield next(answers)
            if self.looks == 1:
                raise ValueError("no more")
            yield from answers

    found = calibrate(Failing(), voc, 2, grid=(0.2, 0.6))
    assert (found.images, found.miou) == (1, {0.2: 1.0, 0.6: 0.0})


def test_the_grid_holds_the_published_thresholds():
    assert {0.35, 0.95} <= set(GRID)


def test_what_cannot_be_calibrated_is_refused(voc, tmp_path):
    with pytest.raises(InputError, match="voc20 has no background"):
        calibrate(Thresholded(), MaskDataset("voc20", tmp_path), 2)
    with pytest.raises(InputError, match="1 or more: received 0"):
        calibrate(Thresholded(), voc, 0)
    with pytest.raises(InputError, match="received none"):
        calibrate(Thresholded(), voc, 1, grid=())
