"""Wheel, sdist, Space and images as `scripts/build` writes them; the wheel is installed into an
empty environment, and run there.
"""

import json
import os
import re
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

from tf_groupvit import __version__
from tf_groupvit.cli.serve import command as serve

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SPACE = ROOT / "serving" / "space"
# Stands for podman: keeps what it was given, and writes an archive, as podman adds to one that
# exists.
TOOL = """#!/bin/bash -e
if [[ $1 == build ]]; then
  cp -R "${@: -1}" "$KEPT/$(basename "$3")"
else
  target="${3#docker-archive:}"
  [[ ! -e "${target%%:*}" ]]
  echo "$2" >"${target%%:*}"
fi
"""
# Stands for npm without a network.
NPM = "#!/bin/bash\necho no network >&2; exit 1\n"


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What the tool that builds images was given: a folder for each Dockerfile."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def built(tmp_path_factory, kept):
    folder, tools = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("tools")
    for name, text in (("podman", TOOL), ("npm", NPM)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tools / "stored" / "3").mkdir(parents=True)
    (tools / "stored" / "3" / "saved_model.pb").write_bytes(b"")
    (tools / "stored" / "exporting-1").mkdir()
    (tools / "model").symlink_to(tools / "stored")
    more = {"PATH": f"{tools}:{os.environ['PATH']}", "CONTAINER_TOOL": "podman", "KEPT": str(kept)}
    images = ("--images", "--model", tools / "model")
    command = [ROOT / "scripts" / "build", "--output", folder, *images]
    done = subprocess.run(command, capture_output=True, text=True, env=_without_noise() | more)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said").write_text(done.stderr)
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


@pytest.mark.slow
def test_the_page_for_browsers_is_left_out_with_a_word_where_its_runtime_is_out_of_reach(built):
    assert not (built / "browser").exists()
    words = "browser/ is left out. npm cannot fetch the runtime of the page: no network."
    assert words in (built / "said").read_text()


@pytest.mark.slow
def test_images_are_files_and_are_built_from_what_their_dockerfiles_copy(built, kept, wheel):
    version = __version__
    names = {path.name for path in built.glob("*.tar*") if path.suffix == ".tar"}
    assert names == {f"tf-groupvit-serve-{version}.tar", f"groupvit-serving-{version}.tar"}
    assert (
        built / f"groupvit-serving-{version}.tar"
    ).read_text() == f"groupvit-serving:{version}\n"
    for name in ("Dockerfile", "Dockerfile.server"):
        copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "serving" / name).read_text(), re.MULTILINE)
        for source in " ".join(copied).split():
            assert list((kept / name).glob(source)), f"{name} copies {source}"
    model = kept / "Dockerfile" / "models/groupvit"
    assert (model / "3/saved_model.pb").exists() and not model.is_symlink()
    assert [path.name for path in model.iterdir()] == ["3"]
    assert [path.name for path in (kept / "Dockerfile.server").glob("*.whl")] == [wheel.name]


def test_the_image_of_the_server_starts_it_as_the_command_line_allows():
    lines = (ROOT / "serving" / "Dockerfile.server").read_text()
    entry, arguments = (
        json.loads(re.search(rf"^{word} (\[.+\])$", lines, re.MULTILINE)[1])
        for word in ("ENTRYPOINT", "CMD")
    )
    assert entry[:2] == ["tf-groupvit", "serve"]
    context = serve.make_context("serve", [*entry[2:], *arguments])
    assert context.params["host"] == "0.0.0.0" and context.params["base_path"] == "/models/groupvit"
    ports = {str(context.params[name]) for name in ("port", "rest_api_port")}
    assert set(re.search(r"^EXPOSE (.+)$", lines, re.MULTILINE)[1].split()) == ports


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "x"], "give --images"),
        (["--images", "--model", "x"], "expected a folder with a version in it"),
        (["--images"], "needs one of docker"),
        (["--image"], "Usage"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_made(arguments, words, tmp_path):
    command = [ROOT / "scripts" / "build", "--output", tmp_path / "dist", *arguments]
    # No such tool: the search for one ends.
    environment = {**os.environ, "CONTAINER_TOOL": "no-such-tool"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0 and words in done.stderr
    assert not (tmp_path / "dist").exists()


def test_the_front_matter_of_the_space_fits_the_package():
    front = yaml.safe_load((SPACE / "README.md").read_text().split("---\n")[1])
    (gradio,) = map(Requirement, PROJECT["optional-dependencies"]["demo"])
    assert front["sdk"] == "gradio" and gradio.specifier.contains(front["sdk_version"])
    assert (SPACE / front["app_file"]).exists()
    assert front["python_version"] in ("3.11", "3.12", "3.13")
    assert len(front["short_description"]) <= 60  # the hub takes no more


def _without_noise():
    return {**os.environ, "PYTHONWARNINGS": "ignore"}
