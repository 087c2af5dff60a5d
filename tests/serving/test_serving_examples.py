"""The examples of serving/ in, sent to the embedded server with the tiny export; masks and numbers
out.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exported import drawn, export_of, labels_of
from PIL import Image

SERVING = Path(__file__).resolve().parents[2] / "serving"
EXAMPLES = SERVING / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    from tf_groupvit.server.running import Options, Server

    export = export_of()
    with Server(
        {"groupvit": export.path.parent}, port=None, options=Options(max_num_load_retries=0)
    ) as running:
        yield running


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(drawn(48, 64)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def run(server, *command, folder):
    address = f"http://127.0.0.1:{server.rest_api_port}"
    arguments = [str(part).replace("ADDRESS", address) for part in command]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=folder, timeout=120)


@pytest.mark.parametrize(
    ("tool", "example"),
    [("bash", "request.sh"), (sys.executable, "request.py"), ("node", "request.mjs")],
)
def test_an_example_fetches_a_mask(server, photo, tmp_path, tool, example):
    if shutil.which(tool) is None or (tool == "bash" and shutil.which("curl") is None):
        pytest.skip(f"{tool} or curl is not here")
    done = run(
        server, tool, EXAMPLES / example, photo, "ADDRESS", tmp_path / "mask.png", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert labels_of((tmp_path / "mask.png").read_bytes()).shape == (48, 64)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "background",
        "cat",
        "dog",
        "grass",
    ]
    assert not (tmp_path / "answer.json").exists()


def test_the_example_request_is_answered_as_it_is(server):
    answer = server.rest(
        "POST", "/v1/models/groupvit:predict", (EXAMPLES / "request.json").read_bytes()
    )
    assert answer.status_code == 200, answer.body[:400]
    (row,) = json.loads(answer.body)["predictions"]
    assert row["class_names"] == ["background", "disc", "bar", "shades"]


def test_the_load_test_counts_answers_and_failures(server, photo, tmp_path):
    load = (
        sys.executable,
        SERVING / "load_test.py",
        photo,
        "--clients",
        "2",
        "--seconds",
        "1",
        "--server",
    )
    done = run(server, *load, "ADDRESS", folder=tmp_path)
    assert done.returncode == 0 and "images a second, 0 requests failed" in done.stdout, (
        done.stdout + done.stderr
    )
    assert run(server, *load, "http://127.0.0.1:1", folder=tmp_path).returncode == 1


def test_the_readiness_probe_tells_available_from_anything_else(server):
    import yaml

    pod = yaml.safe_load((SERVING / "kubernetes" / "deployment.yaml").read_text())["spec"][
        "template"
    ]["spec"]
    *shell, script = pod["containers"][0]["readinessProbe"]["exec"]["command"]

    def probe(port):
        return subprocess.run(
            [*shell, script.replace("8501", str(port))], capture_output=True, timeout=20
        ).returncode

    end = time.monotonic() + 10
    while (code := probe(server.rest_api_port)) and time.monotonic() < end:
        time.sleep(0.5)
    assert code == 0
    assert probe(1) != 0
    other = script.replace("models/groupvit", "models/other").replace(
        "8501", str(server.rest_api_port)
    )
    assert subprocess.run([*shell, other], capture_output=True, timeout=20).returncode != 0
