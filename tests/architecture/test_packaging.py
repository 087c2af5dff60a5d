"""What pyproject.toml promises is what is tested: the lowest TensorFlow, and what the extras bring together."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOWEST = [line for line in (ROOT / "tests/constraints/lowest.txt").read_text().splitlines() if line[0] != "#"]


def floors(requirements: list[str]) -> dict[str, str]:
    """Name -> the version after >=."""
    parsed = [Requirement(text) for text in requirements]
    return {one.name: spec.version for one in parsed for spec in one.specifier if spec.operator == ">="}


def test_the_lowest_versions_that_are_tested_are_the_lowest_that_are_allowed():
    allowed = floors(PROJECT["dependencies"]) | floors(EXTRAS["serve"])
    tested = {Requirement(line).name: next(iter(Requirement(line).specifier)).version for line in LOWEST}
    assert {"tensorflow", "keras", "tensorflow-serving-api"} <= tested.keys()
    assert {name: version.removesuffix(".*") for name, version in tested.items()} == {
        name: allowed[name] for name in tested
    }


def test_the_serving_api_goes_with_tensorflow():
    core = {Requirement(text).name: Requirement(text).specifier for text in PROJECT["dependencies"]}
    serve = {Requirement(text).name: Requirement(text).specifier for text in EXTRAS["serve"]}
    assert serve["tensorflow-serving-api"] == core["tensorflow"]


def test_the_extra_all_brings_every_part_but_the_peers_and_jax():
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.extras == EXTRAS.keys() - {"all", "bench", "jax"}


def test_every_program_of_the_house_says_how_it_is_used():
    import subprocess

    for name in ("bench", "build", "check", "demo", "docs", "gpu", "measure", "test"):
        done = subprocess.run([ROOT / "scripts" / name, "--help"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"Usage: scripts/{name} ")
