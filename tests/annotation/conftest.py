"""What the tests of annotations share: a small segmenter, and a folder of small pictures."""

import json
import signal
import warnings

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from many_pictures import CLASSES, PATIENCE, QUIET, make_collection, started, wait_for_parts
from small_pictures import picture

from tf_groupvit.annotation.parts import Parts
from tf_groupvit.storage import Output


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


@pytest.fixture(scope="session")
def collection(tmp_path_factory):
    """A folder of a thousand pictures, twenty of them broken in as many ways."""
    folder = tmp_path_factory.mktemp("collection") / "photos"
    make_collection(folder)
    return folder


@pytest.fixture(scope="session")
def killed_twice(collection, tmp_path_factory):
    """The output of one machine, killed twice; the ids that were done each time; the summary."""
    output = tmp_path_factory.mktemp("labels") / "labels"
    done = []
    for parts in (2, 4):
        with started(collection, output) as process:
            wait_for_parts(process, output, parts)
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, said
        assert not (output / "summary.json").exists()
        done.append({item_id for item_id, _ in Parts(Output(output)).ids()})
    with started(collection, output) as process:
        out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, said
    return output, *done, json.loads(out)


@pytest.fixture(scope="session")
def cluster():
    """The address of a cluster of two processors, which this process has joined."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        import ray
        import ray.data

        with warnings.catch_warnings():  # Ray sets what Ray deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            ray.data.DataContext.get_current()
        context = ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield context.address_info["address"]
        ray.shutdown()
