"""What pyproject.toml promises is what is tested: the lowest TensorFlow, and what the extras bring
together.
"""

import ast
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Module of a distribution, where it has another name; the extras that are tools of the house bring
# no module in.
MODULES = {
    "pillow": "PIL",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "tensorflow-serving-api": "tensorflow_serving",
}
TOOLS = {"notebooks", "docs", "test", "bench", "all"}
NOT_IMPORTED = {
    "httptools": "uvicorn's protocol that the REST front builds on imports it",
}
NOT_DECLARED = {
    "google": "protobuf: comes with TensorFlow, which decides its version",
    "ml_dtypes": "comes with TensorFlow and Keras, whose bfloat16 it is",
    "optree": "comes with Keras, which keeps its registry there",
    "torch": "only where Keras runs on it, which nothing here installs",
}
LOWEST = [
    line
    for line in (ROOT / "tests/constraints/lowest.txt").read_text().splitlines()
    if line[0] != "#"
]


def floors(requirements: list[str]) -> dict[str, str]:
    """Name -> the version after >=."""
    parsed = [Requirement(text) for text in requirements]
    return {
        one.name: spec.version for one in parsed for spec in one.specifier if spec.operator == ">="
    }


def test_the_lowest_versions_that_are_tested_are_the_lowest_that_are_allowed():
    allowed = floors(PROJECT["dependencies"]) | floors(EXTRAS["serve"])
    tested = {
        Requirement(line).name: next(iter(Requirement(line).specifier)).version for line in LOWEST
    }
    assert {"tensorflow", "keras", "tensorflow-serving-api"} <= tested.keys()
    assert {name: version.removesuffix(".*") for name, version in tested.items()} == {
        name: allowed[name] for name in tested
    }


def declared(requirements: list[str]) -> set[str]:
    names = {Requirement(text).name for text in requirements}
    return {MODULES.get(name, name.replace("-", "_")) for name in names - {PROJECT["name"]}}


def imported() -> set[str]:
    """Every module from elsewhere that the package imports, at the top of a file or inside a
    function.
    """
    found = set()
    for file in (ROOT / "tf_groupvit").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"tf_groupvit"}


def test_what_is_declared_is_imported_and_what_is_imported_is_declared():
    """A reason that no longer holds fails too: take it out of its table."""
    extras = [text for name, texts in EXTRAS.items() if name not in TOOLS for text in texts]
    brought = declared(PROJECT["dependencies"]) | declared(extras)
    assert brought - imported() == NOT_IMPORTED.keys()
    assert imported() - brought == NOT_DECLARED.keys()


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
        done = subprocess.run(
            [ROOT / "scripts" / name, "--help"], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(f"Usage: scripts/{name} ")
