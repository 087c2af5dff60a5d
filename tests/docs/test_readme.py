"""Every block of code in the pages runs: the README's in one empty shell, others where a checkpoint
and a photo are.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT, all_blocks, blocks

README = ROOT / "README.md"
OTHERS = [page for page in PAGES if page != README]
PYTHON = blocks("python", OTHERS)


@pytest.fixture(scope="module")
def pasted(tmp_path_factory):
    """A folder that was empty before the README's blocks were pasted into a shell there, one after
    the other.
    """
    folder = tmp_path_factory.mktemp("newcomer")
    grpc, rest = _free_ports(2)
    serve = f"tf-groupvit serve models/groupvit --port {grpc} --rest-api-port {rest} &"
    script = ["set -e", "trap 'kill %1' EXIT"]
    for language, _, code in all_blocks(README):
        if language == "python":
            script += ["python - <<'END'", code + "END"]
        elif language == "shell":
            script.append(code)
    text = "\n".join(script).replace("localhost:8501", f"localhost:{rest}")
    text = text.replace("tf-groupvit serve models/groupvit &", serve)
    assert serve in text, "other ports than the usual ones, which may be busy here"
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": programs},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.slow
def test_the_readme_runs_pasted_into_an_empty_shell(pasted):
    """Files that it names are there, and the server's mask is the one that was made without it."""
    import numpy as np
    from PIL import Image

    kinds = {"overlay.png", "labels.png", "colors.png", "json"}
    assert {path.name for path in (pasted / "out").iterdir()} == {f"00000.{kind}" for kind in kinds}
    assert (pasted / "overlay.png").exists()
    assert (pasted / "labels" / "coco" / "annotations" / "instances_default.json").exists()
    assert (pasted / "copy" / "model.safetensors").exists()
    assert "| 20 |" in (pasted / "tuned" / "README.md").read_text()  # trained on ten pictures
    here, served = (
        np.array(Image.open(pasted / folder / "00000.labels.png")) for folder in ("out", "served")
    )
    assert np.mean(here == served) > 0.99  # the graph resizes in float32


@pytest.mark.parametrize("code", [code for _, code in PYTHON], ids=[label for label, _ in PYTHON])
def test_a_block_of_python_runs(code, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})


# Lines that need a machine of their own or a network, and the test that runs them there.
ELSEWHERE = {
    'pip install ".[serve]"': "tests/scripts/test_build.py",
    'tf-groupvit segment photo.jpg --model nvidia/groupvit-gcc-yfcc --classes "sheep,grass,dog,sky" --output out': (
        "tests/models/test_published.py"
    ),
    "tf-groupvit train --recipe demo --output my-demo": "tests/training/test_trainer.py",
    "tf-groupvit train --data my-captions --output mine": "tests/training/test_trainer_captions.py",
}


def test_every_other_line_of_a_shell_is_run_by_a_test_of_its_own():
    assert not blocks("shell", OTHERS)
    for label, lines in blocks("sh"):
        for line in lines.splitlines():
            test = ELSEWHERE[line.partition("#")[0].strip()]
            assert (ROOT / test).exists(), label
