"""The client and the command query, sent to a served export, give what the segmenter gives."""

from pathlib import Path

import numpy as np
import pytest
from exported import drawn, export_of
from PIL import Image

pytest.importorskip("tensorflow_serving")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served():
    """A tiny export under the embedded server, by the name that the examples ask for."""
    from tf_groupvit.server.running import Server

    export = export_of()
    with Server({"groupvit": str(export.path.parent)}, port=0, rest_api_port=0) as server:
        yield export, server


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.fromarray(drawn(48, 80)).save(path, "JPEG", quality=95)
    return path


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_the_client_gives_what_the_segmenter_gives(wire, served, photo):
    from tf_groupvit.client import Client

    export, server = served
    port = server.rest_api_port if wire == "http" else server.port
    with Client(f"{wire}://127.0.0.1:{port}") as client:
        found, (open_found,) = (
            client.segment(photo),
            client.segment([photo], class_names=["cat", "grass", "moon"]),
        )
    expected = export.segmenter(photo)
    assert found.class_names == expected.class_names
    assert (
        np.mean(found.labels == expected.labels) >= 0.95
    )  # random weights: a level of grey moves borders
    np.testing.assert_allclose(list(found.areas.values()), list(expected.areas.values()), atol=0.02)
    np.testing.assert_allclose(
        list(found.class_scores.values()), list(expected.class_scores.values()), atol=0.02
    )
    assert open_found.class_names[-3:] == ["cat", "grass", "moon"]


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_bad_images_are_errors_among_the_results_of_the_others(wire, served, photo):
    from tf_groupvit.client import Client
    from tf_groupvit.errors import ImageError, RequestError

    _, server = served
    port = server.rest_api_port if wire == "http" else server.port
    cut = photo.read_bytes()[:-300]
    with Client(f"{wire}://127.0.0.1:{port}") as client:
        good, bad = client.segment([photo, cut], errors="return")
        assert good.labels.shape == (48, 80) and "a damaged or truncated one" in str(bad)
        assert [type(one) for one in client.segment([cut, cut], ["cat"], errors="return")] == [
            ImageError
        ] * 2
        with pytest.raises(ImageError) as caught:
            client.encode_image([photo, cut])
        assert caught.value.index == 1 and caught.value.results[0].shape == (8,)
        with pytest.raises(RequestError, match="at most 256 labels"):
            client.segment([photo, photo], [f"c{i}" for i in range(300)])


def test_query_writes_what_segment_writes(served, photo, tmp_path):
    from click.testing import CliRunner

    from tf_groupvit.cli import main

    _, server = served
    address = f"127.0.0.1:{server.rest_api_port}"
    done = CliRunner().invoke(
        main, ["query", str(photo), "--server", address, "--output", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    names = {"photo.overlay.png", "photo.labels.png", "photo.colors.png", "photo.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
