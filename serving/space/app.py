"""The page of `tf-groupvit app` as a Hugging Face Space. MODEL, CLASSES and NORMALIZE are settings
of the Space.
"""

import os

from tf_groupvit import Segmenter
from tf_groupvit.app.page_server import running_page, wait_until_stopped
from tf_groupvit.errors import HubError
from tf_groupvit.hub import demo_checkpoint

PUBLISHED = "nvidia/groupvit-gcc-yfcc"
CLASSES = os.environ.get(
    "CLASSES", "person, dog, cat, horse, sheep, grass, tree, sky, water, road, car"
)


def load() -> tuple[Segmenter, str | None]:
    """The checkpoint that is named, else the published one, else, without the hub, the demo's; and
    its statistics.
    """
    named, normalize = os.environ.get("MODEL"), os.environ.get("NORMALIZE") or None
    if named:
        return Segmenter.from_pretrained(named, CLASSES, normalize=normalize), normalize
    try:
        # Trained with ImageNet's statistics, though the file beside it names CLIP's.
        return Segmenter.from_pretrained(PUBLISHED, CLASSES, normalize="imagenet"), "imagenet"
    except HubError as error:
        print(f"{error} The demo checkpoint takes its place.", flush=True)
        return Segmenter.from_pretrained(demo_checkpoint(), CLASSES), None


segmenter, normalize = load()
host, port = (
    os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
    int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
)
with running_page(segmenter, host, port, normalize) as address:
    print(f"The page is at {address}", flush=True)
    wait_until_stopped()
