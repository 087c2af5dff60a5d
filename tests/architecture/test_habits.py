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


def test_actions_are_pinned_to_a_release():
    for step in JOB["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@v\d+\.\d+\.\d+", step["uses"])


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
