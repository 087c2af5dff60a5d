"""What runs before a commit and on a push is what runs here: scripts/check and scripts/test, for
every Python.
"""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
(JOB,) = WORKFLOW["jobs"].values()


def test_the_workflow_calls_the_scripts_and_no_test_of_its_own():
    assert [step["run"] for step in JOB["steps"] if "run" in step] == [
        "scripts/check",
        "scripts/test --all",
    ]


def test_the_workflow_runs_on_both_systems_under_every_python_that_is_allowed():
    matrix = JOB["strategy"]["matrix"]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", wanted).groups())
    assert matrix["python"] == [f"3.{minor}" for minor in range(low, high)]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}


@pytest.mark.parametrize(
    "file", sorted((ROOT / ".github/workflows").iterdir()), ids=lambda p: p.stem
)
def test_actions_are_pinned_to_a_release(file):
    jobs = yaml.safe_load(file.read_text())["jobs"].values()
    used = [step["uses"] for job in jobs for step in job["steps"] if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@v\d+\.\d+\.\d+", action)


def test_a_release_publishes_for_tags_alone_and_only_what_was_checked_and_built():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    steps = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    assert steps.index("scripts/check") < steps.index("scripts/test") < len(steps) - 1
    assert steps[-1].startswith("scripts/build --images --model ")
    for name, job in jobs.items():
        if name != "build":
            assert job["if"] == "github.ref_type == 'tag'"
            assert "build" in _needed(jobs, name)


def _needed(jobs, name):
    """The jobs that must have passed before this one."""
    before = jobs[name].get("needs", [])
    before = [before] if isinstance(before, str) else before
    return {*before, *(other for job in before for other in _needed(jobs, job))}


def test_what_runs_before_a_commit_is_the_check():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]
    assert hook["entry"] == "scripts/check"
    assert (ROOT / hook["entry"]).exists()


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_forms_for_issues_can_be_read(form):
    content = yaml.safe_load(form.read_text())
    if form.stem != "config":
        assert {"name", "description", "body"} <= content.keys()
        assert len({part["id"] for part in content["body"]}) == len(content["body"])
