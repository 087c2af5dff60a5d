"""tf-groupvit query, over a real gRPC socket."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from client_serving import PHOTO, Serving, encoded, grpc_server
from PIL import Image

from tf_groupvit.cli.query import command
from tf_groupvit.errors import InputError, RequestError


@pytest.fixture
def address():
    server, address = grpc_server(Serving())
    yield address
    server.stop(None).wait()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(PHOTO))
    return path


def query(*arguments, stdin=None):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], input=stdin)


def test_a_photo_gives_a_line_of_areas(address, photo):
    done = query(photo, "--server", address)
    assert done.exit_code == 0 and done.stdout == f"{photo}: background 50.0%, dog 50.0%\n"


def test_outputs_are_an_overlay_a_label_image_and_json(address, photo, tmp_path):
    folder = tmp_path / "new" / "out"
    done = query(photo, "--server", address, "--output", folder)
    assert done.exit_code == 0
    endings = ["colors.png", "json", "labels.png", "overlay.png"]
    assert sorted(path.name for path in folder.iterdir()) == [
        f"photo.{ending}" for ending in endings
    ]
    with Image.open(folder / "photo.labels.png") as labels:
        assert labels.mode == "L" and np.asarray(labels).tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert json.loads((folder / "photo.json").read_text())["areas"]["dog"] == 0.5
    with Image.open(folder / "photo.overlay.png") as overlay:
        assert overlay.width >= 6


def test_json_stands_alone_on_standard_output(address, photo, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    done = query(
        photo, tmp_path / "bad.png", "--server", address, "--json", "--classes", "wolf,hay"
    )
    good, bad = json.loads(done.stdout)
    assert done.exit_code == 2
    assert (good["image"], good["width"], good["height"]) == (str(photo), 6, 4)
    assert good["class_names"] == ["background", "wolf", "hay"] and good["areas"]["wolf"] == 0.5
    assert bad["image"].endswith("bad.png") and "error" in bad
    assert done.stderr.count("\n") == 1 and "bad.png" in done.stderr


def test_a_bad_image_is_reported_and_the_rest_are_done(address, photo, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    cut = encoded(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8), "JPEG")[:800]
    (tmp_path / "cut.jpg").write_bytes(cut)  # the header is whole: the server finds out
    names = [tmp_path / "empty.jpg", tmp_path / "cut.jpg", tmp_path / "gone.jpg", photo]
    done = query(*names, "--server", address, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in done.stderr.splitlines()] == [
        "empty.jpg",
        "cut.jpg",
        "gone.jpg",
    ]
    assert "Traceback" not in done.output
    assert (tmp_path / "out" / "photo.json").exists()
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_server_that_is_loading_is_waited_for(photo, monkeypatch):
    serving = Serving()
    server, address = grpc_server(serving)
    serving.state = 20
    waited = []
    monkeypatch.setattr(
        "tf_groupvit.client.Client.wait_until_ready", lambda client, timeout: waited.append(timeout)
    )
    done = query(photo, "--server", address, "--timeout", "7", "--json")
    assert (
        done.exit_code == 0
        and waited == [7.0]
        and json.loads(done.stdout)[0]["areas"]["dog"] == 0.5
    )
    assert done.stderr == "The server is loading the model: waiting up to 7 s for it\n"
    assert query(photo, "--server", address, "--no-wait").stderr == ""
    server.stop(None).wait()


def test_standard_input_is_an_image(address, tmp_path):
    done = query("-", "--server", address, "--output", tmp_path, stdin=encoded(PHOTO))
    assert done.exit_code == 0 and (tmp_path / "stdin.overlay.png").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--model-name", "other"], RequestError, "Servable not found"),
        (["--classes", "dog,,cat"], InputError, "empty name"),
    ],
)
def test_what_concerns_every_image_stops_the_command(address, photo, options, error, message):
    done = query(photo, photo, "--server", address, *options)
    assert isinstance(done.exception, error) and message in str(done.exception)


def test_a_server_that_is_not_there_is_an_error_at_once_if_so_wished(photo):
    done = query(photo, "--server", "127.0.0.1:1", "--no-wait")
    assert isinstance(done.exception, RequestError) and "cannot be reached" in str(done.exception)
