"""What the tests of annotations share: a small segmenter, and a folder of small pictures."""

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from small_pictures import picture

CLASSES = "apple,star,grass,sky"


@pytest.fixture(scope="session")
def segmenter():
    """The demo checkpoint with four classes."""
    from tf_groupvit.hub import demo_checkpoint
    from tf_groupvit.segmentation.segmenter import Segmenter

    return Segmenter.from_pretrained(demo_checkpoint(), CLASSES)


@pytest.fixture
def memory():
    """The address of an empty folder in memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return "memory://bucket"


@pytest.fixture
def photos(tmp_path):
    """A folder of five pictures, one of them broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number, (32 + 8 * number, 32)))
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder
