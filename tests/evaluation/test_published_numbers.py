"""The published mIoU, measured again: runs where the data and the weights are, and says what is
missing elsewhere.
"""

import os

import pytest

from tf_groupvit.evaluation.datasets import BENCHMARKS, open_dataset
from tf_groupvit.evaluation.evaluator import evaluate

# Resizing and the order of sums differ between frameworks; a wrong protocol costs points.
TOLERANCE = 0.3


@pytest.mark.data
@pytest.mark.slow
def test_voc_reaches_the_published_miou():
    root, model = os.environ.get("VOCDEVKIT"), os.environ.get("GROUPVIT_MODEL")
    if not root:
        pytest.skip("VOCDEVKIT is not set: point it to the VOCdevkit folder to measure mIoU on VOC")
    if not model:
        pytest.skip("GROUPVIT_MODEL is not set: point it to a folder with nvidia/groupvit-gcc-yfcc")
    from tf_groupvit.segmentation.segmenter import Segmenter

    opened = open_dataset("voc", root)
    segmenter = Segmenter.from_pretrained(
        model, opened.prompts, mode=opened.mode, background=opened.background
    )
    scores = evaluate(segmenter, opened.dataset, progress=True)
    assert scores.failures == {}
    assert scores.images == 1449
    assert 100 * scores.miou == pytest.approx(BENCHMARKS["voc"].published, abs=TOLERANCE)
