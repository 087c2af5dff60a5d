"""The published checkpoints give the published numbers; needs the network, and skips where there is
none.
"""

import os
import urllib.request

import pytest

from tf_groupvit.errors import HubError

pytestmark = [pytest.mark.network, pytest.mark.slow]

COCO_IMAGE = "http://images.cocodataset.org/val2017/000000039769.jpg"
PROMPTS = ["a photo of a cat", "a photo of a dog"]
# Source: transformers' conversion script and its integration tests.
LOGITS = {
    "nvidia/groupvit-gcc-yfcc": [13.3523, 6.3629],
    "nvidia/groupvit-gcc-redcaps": [16.1873, 8.6230],
}


@pytest.fixture(scope="module")
def cats() -> bytes:
    """Two cats on a couch: the file that COCO_CATS names, or the one that the network gives."""
    if "COCO_CATS" in os.environ:
        with open(os.environ["COCO_CATS"], "rb") as file:
            return file.read()
    try:
        with urllib.request.urlopen(COCO_IMAGE, timeout=10) as answer:
            return answer.read()
    except OSError as error:
        pytest.skip(
            f"no network: {COCO_IMAGE} cannot be fetched ({error}); name a copy in COCO_CATS"
        )


@pytest.mark.parametrize("hub_id", LOGITS)
def test_published_logits_are_reproduced(hub_id, cats):
    import numpy as np

    from tf_groupvit import ImageProcessor, TFGroupViTModel, Tokenizer
    from tf_groupvit.hub import resolve

    try:
        folder = resolve(hub_id)
    except HubError as error:
        pytest.skip(f"no network: {error}")
    inputs = {
        **Tokenizer.from_pretrained(folder)(PROMPTS),
        **ImageProcessor.from_pretrained(folder)(cats),
    }
    result = TFGroupViTModel.from_pretrained(folder)(inputs)
    np.testing.assert_allclose(np.asarray(result.logits_per_image), [LOGITS[hub_id]], atol=1e-2)
