"""Exports that refine masks answer as the segmenter does, whatever is in the batch."""

import sys

import numpy as np
import pytest
from exported import Export, SessionProcess, as_file, drawn, export_of, labels_of, strings

from tf_groupvit.export.signatures import row_of

SIZES = [(60, 80), (33, 130), (90, 41), (1, 1), (64, 64), (200, 150), (48, 300), (31, 32)]
LISTS = ["cat,grass", "a red car|bus", "sky,dog,cat,boat", "cat", "dog,sky"]


@pytest.fixture(scope="module", params=["whole", "window"])
def export(request) -> Export:
    return export_of(refine="pamr", mode=request.param)


@pytest.fixture(scope="module")
def session(export):
    """The export, loaded in a process of its own."""
    process = SessionProcess(export.path, sys.executable)
    yield process
    process.close()


def request(export: Export, signature: str, count: int) -> dict[str, np.ndarray]:
    """A request with ``count`` pictures, of mixed sizes where they are files."""
    sizes = SIZES if signature != "segment_pixels" else [(50, 70)] * len(SIZES)
    pictures = [drawn(*size, seed) for seed, size in enumerate(sizes[:count])]
    if signature == "segment_pixels":
        return {"pixels": np.stack(pictures)}
    files = {"image_bytes": strings(*map(as_file, pictures))}
    if signature == "segment_open":
        return files | {"class_names": strings(*(LISTS[i % len(LISTS)] for i in range(count)))}
    if signature == "segment_embeds":
        embeds = np.random.default_rng(1).normal(
            size=(count, 5, export.segmenter.text_embeds.shape[1])
        )
        embeds /= np.linalg.norm(embeds, axis=-1, keepdims=True)
        return files | {"text_embeds": embeds.astype("float32")}
    return files


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize(
    "signature", ["serving_default", "segment_open", "segment_pixels", "segment_embeds"]
)
def test_answers_are_those_of_the_segmenter(export, session, signature, count):
    inputs = request(export, signature, count)
    wanted = row_of(signature).expected(export.segmenter, **inputs)
    found = session.answer(signature, inputs)["outputs"]
    masks = found.get("labels")
    labels = masks if masks is not None else [labels_of(mask) for mask in found["mask_bytes"]]
    same = [a == b for a, b in zip(labels, wanted["labels"], strict=True)]
    assert np.concatenate([one.ravel() for one in same]).mean() >= 0.999
    if signature != "segment_pixels":
        # Rounding gives a pixel between two groups to either, which shows in the cells around it.
        np.testing.assert_allclose(found["class_scores"], wanted["class_scores"], atol=5e-3)
        most = [max(0.002, 1.5 / one.size) for one in same]  # one pixel, where there are few
        away = np.abs(found["class_areas"] - wanted["class_areas"]).max(axis=1)
        assert (away <= most).all()
