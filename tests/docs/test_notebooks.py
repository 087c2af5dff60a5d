"""Every notebook runs from top to bottom on the demo checkpoint, with pictures in it; in git it
holds no outputs.
"""

import json
import re
import tomllib

import pytest
from pages import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IDS = [path.stem for path in NOTEBOOKS]
PICTURES = {
    "1_segmentation": 13,
    "2_serving": 1,
    "3_training": 3,
    "5_without_tensorflow": 2,
}  # at least so many
SHORTER = {
    "3_training": ("STEPS_A_ROUND = 100", "STEPS_A_ROUND = 2")
}  # whether it learns, tests of training say
PATIENCE = 300  # seconds for one cell, on machines that are busy


def cells(path):
    return json.loads(path.read_text())["cells"]


def source(path):
    return "\n".join("".join(cell["source"]) for cell in cells(path))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONWARNINGS", "error::DeprecationWarning:__main__")
    notebook = nbformat.read(path, as_version=4)
    for before, after in [SHORTER[path.stem]] if path.stem in SHORTER else []:
        (cell,) = [cell for cell in notebook.cells if before in cell.source]
        cell.source = cell.source.replace(before, after)
    client = nbclient.NotebookClient(
        notebook,
        timeout=PATIENCE,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= PICTURES.get(path.stem, 0)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_notebook_in_git_holds_no_outputs(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_notebook_installs_from_a_wheel_beside_it_or_from_the_clone(path, tmp_path, monkeypatch):
    (cell,) = [
        cell for cell in map("".join, (cell["source"] for cell in cells(path))) if "%pip" in cell
    ]
    code, magic = re.subn(r'%pip install -q ("[^"]+")$', r"installed.append(f\1)", cell)
    assert magic == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "clone" / "tf_groupvit").mkdir(parents=True)
    (tmp_path / "clone" / "notebooks").mkdir()
    (tmp_path / "alone" / "folder").mkdir(parents=True)
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel" / "tf_groupvit-0.2.0-py3-none-any.whl").touch()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for place, source in (
        ("clone/notebooks", "/clone["),
        ("wheel", "tf_groupvit-0.2.0-py3-none-any.whl["),
    ):
        monkeypatch.chdir(tmp_path / place)
        installed = []
        exec(code, {"installed": installed})
        before, extra = installed[0].rsplit("[", 1)
        assert f"{before}[".endswith(source) and extra.rstrip("]") in extras
    monkeypatch.chdir(tmp_path / "alone" / "folder")
    with pytest.raises(AssertionError, match="Put the wheel"):
        exec(code, {"installed": []})


def test_no_placeholder_for_an_address_is_left():
    assert [path.name for path in NOTEBOOKS if "OWNER" in path.read_text()] == []


def test_there_is_a_notebook_for_each_of_the_five_ways():
    names = ["1_segmentation", "2_serving", "3_training", "4_keras", "5_without_tensorflow"]
    assert names == IDS
