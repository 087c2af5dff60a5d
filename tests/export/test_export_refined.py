"""Exports that refine masks label as the segmenter does, whatever is in the batch."""

import sys

import numpy as np
import pytest
from exported import SessionProcess, as_file, drawn, export_of, labels_of, strings

SIZES = [(60, 80), (33, 130), (90, 41), (1, 1), (64, 64), (200, 150), (48, 300), (31, 32)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "window"])
def test_labels_are_those_of_the_segmenter(mode):
    export = export_of(refine="pamr", mode=mode)
    pictures = [drawn(*size, seed) for seed, size in enumerate(SIZES)]
    wanted = [export.segmenter(picture).labels for picture in pictures]
    files = strings(*map(as_file, pictures))
    process = SessionProcess(export.path, sys.executable)
    answers = [
        process.answer("serving_default", {"image_bytes": some})["outputs"]["mask_bytes"]
        for some in (files, files[:1])
    ]
    process.close()
    found = [labels_of(mask) for masks in answers for mask in masks]
    same = [a == b for a, b in zip(found, [*wanted, wanted[0]], strict=True)]
    assert np.concatenate([one.ravel() for one in same]).mean() >= 0.999
