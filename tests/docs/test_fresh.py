"""Files, modules, scripts, options and commands that the pages name exist. Loads no TensorFlow."""

import re
import subprocess
import sys

import pytest
from pages import PAGES, ROOT

from tf_groupvit.cli import COMMANDS

IDS = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_linked_files_that_a_page_names_are_there(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_paths_of_the_repository_that_a_page_names_are_there(page):
    paths = re.findall(
        r"`((?:scripts|tests|tf_groupvit|serving|notebooks)/[\w./-]*)", page.read_text()
    )
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_modules_that_took_the_place_of_others_are_there():
    page = (ROOT / "tf_groupvit" / "FROM_0.1.md").read_text()
    rows = re.findall(
        r"^\| (`.+`) \| (`[\w.`, *]+`) \|$", page.split("## Modules")[1], re.MULTILINE
    )
    assert rows
    for _, modules in rows:
        for name in re.findall(r"`([\w.]+?)(?:\.\*)?`", modules):
            path = ROOT.joinpath("tf_groupvit", *name.split("."))
            assert path.is_dir() or path.with_suffix(".py").exists(), name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_that_a_page_names_exist(page):
    named = set(re.findall(r"^tf-groupvit ([a-z]+)", page.read_text(), re.MULTILINE))
    named |= set(re.findall(r"`tf-groupvit ([a-z]+)", page.read_text()))
    assert named <= COMMANDS.keys()


@pytest.mark.parametrize("script", ["build", "check", "demo", "docs", "test"])
def test_options_of_scripts_that_pages_name_exist(script):
    done = subprocess.run(
        [ROOT / "scripts" / script, "--help"], capture_output=True, text=True, check=True
    )
    for page in PAGES:
        for options in re.findall(rf"scripts/{script}((?: --[a-z]+)+)", page.read_text()):
            assert set(options.split()) <= set(re.findall(r"--[a-z]+", done.stdout))


def test_the_command_reference_is_what_help_prints():
    # In a process of its own: click keeps what a command's help looked like when it was first
    # called.
    command = [sys.executable, "-m", "documentation.commands", "--print"]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, check=True)
    page = ROOT / "tf_groupvit" / "cli" / "README.md"
    assert page.read_text() == done.stdout, "stale: run scripts/docs --commands"


def test_every_page_of_the_site_is_there(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from documentation.site import API, PAGES

    modules = [module for _, listed in API.values() for module in listed]
    assert [file for _, file in PAGES.values() if not (ROOT / file).exists()] == []
    places = [ROOT / "tf_groupvit" / (module.replace(".", "/") + ".py") for module in modules]
    assert [str(place) for place in places if not place.exists()] == []
