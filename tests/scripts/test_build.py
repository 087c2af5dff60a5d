"""Wheel, sdist and Space as `scripts/build` writes them: installed into an empty environment, and
run there.
"""

import json
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SPACE = ROOT / "serving" / "space"


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(ROOT / "scripts" / "build", "--output", folder, env=_without_noise())
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """A new environment with the wheel alone in it; what it depends on is borrowed from the one
    that runs the tests.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    python = folder / "env" / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
    )
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    # The folder's own .pth files, the one of the editable installation among them, do not count
    # there.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.mark.slow
def test_the_wheel_segments_in_an_empty_environment(elsewhere):
    where = run(
        elsewhere / "env/bin/python",
        "-c",
        "import tf_groupvit; print(tf_groupvit.__file__)",
        cwd=elsewhere,
    )
    assert Path(where.strip()).is_relative_to(elsewhere)
    program = elsewhere / "env" / "bin" / "tf-groupvit"
    run(program, "scenes", "--output", "scenes", "--count", "1", cwd=elsewhere)
    image = "scenes/images/00000.png"
    told = run(
        program, "segment", image, "--classes", "star,box,moon,brick", "--json", cwd=elsewhere
    )
    (record,) = json.loads(told)
    assert sum(record["areas"].values()) == pytest.approx(1)
    assert (elsewhere / "out" / "00000.overlay.png").exists()


@pytest.mark.slow
def test_everything_that_the_package_reads_is_in_the_wheel_and_in_the_sdist(built, wheel):
    asked = run("git", "ls-files", "-z", "tf_groupvit", cwd=ROOT).split("\0")[:-1]
    asked = {name for name in asked if (ROOT / name).exists() and not name.endswith(".md")}
    with zipfile.ZipFile(wheel) as file:
        assert asked <= set(file.namelist())
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert asked | {"README.md", "LICENSE", "pyproject.toml"} <= inside
    assert not [name for name in inside if name.startswith("tests")]


@pytest.mark.slow
def test_the_space_comes_with_the_wheel_that_it_installs(built, wheel):
    files = {path.name for path in (built / "space").iterdir()}
    assert files == {"app.py", "README.md", "requirements.txt", wheel.name}
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [f"./{wheel.name}[demo]"]


def test_the_front_matter_of_the_space_fits_the_package():
    front = yaml.safe_load((SPACE / "README.md").read_text().split("---\n")[1])
    (gradio,) = map(Requirement, PROJECT["optional-dependencies"]["demo"])
    assert front["sdk"] == "gradio" and gradio.specifier.contains(front["sdk_version"])
    assert (SPACE / front["app_file"]).exists()
    assert front["python_version"] in ("3.11", "3.12", "3.13")
    assert len(front["short_description"]) <= 60  # the hub takes no more


def _without_noise():
    import os

    return {**os.environ, "PYTHONWARNINGS": "ignore"}
