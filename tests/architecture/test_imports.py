"""Imports go one way, and a bare import or --help loads no TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tf_groupvit"


def drawn_floors() -> list[set[str]]:
    """The rooms of each floor, from the top, as the page on architecture draws them."""
    drawing = (PACKAGE / "README.md").read_text().partition("```rooms\n")[2].partition("```")[0]
    return [set(line.split()) for line in drawing.splitlines() if line.strip()]


# Each room may import the rooms of the floors above it, and its own.
FLOORS = drawn_floors()
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Beside tf_groupvit.transport:
CLIENT_MAY = {
    "tf_groupvit.errors",
    "tf_groupvit.segmentation.class_names",
    "tf_groupvit.segmentation.result",
}


def test_the_drawing_shows_every_room_once():
    rooms = {
        path.name.removesuffix(".py")
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or path.is_dir()
    }
    rooms -= {"__init__", "__pycache__", "assets", "client"}
    assert set(FLOOR_OF) == rooms
    assert sum(map(len, FLOORS)) == len(rooms)


def imported_modules(file: Path, for_types: bool = True) -> set[str]:
    """Every tf_groupvit module that a file imports, at the top or inside a function; for type
    checkers, or not.
    """
    found, tree = set(), ast.parse(file.read_text())
    if not for_types:
        tree.body = [
            node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {
                f"{node.module}.{alias.name}" if node.module == "tf_groupvit" else node.module
                for alias in node.names
            }
    return {name for name in found if name.startswith("tf_groupvit.")}


def room_of(module: str) -> str:
    return module.split(".")[1]


FILES = sorted(
    file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or file.name != "__init__.py"
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_only_go_back_up_the_line(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "client":
        assert {
            name for name in imported_modules(file) if room_of(name) != "transport"
        } <= CLIENT_MAY
        return
    allowed = {other for other, floor in FLOOR_OF.items() if floor < FLOOR_OF[room]} | {room}
    if room == "cli":
        allowed |= {"client"}
    strangers = {
        module
        for module in imported_modules(file)
        if room_of(module) not in allowed and module != "tf_groupvit.__version__"
    }
    assert not strangers, f"{file.name} in room '{room}' imports {sorted(strangers)}"


@pytest.mark.parametrize(
    "file",
    [f for f in PACKAGE.rglob("*.py") if f.name == "__init__.py" and f.parent != PACKAGE],
    ids=lambda file: file.parent.name,
)
def test_package_init_files_load_nothing_unasked(file):
    assert imported_modules(file, for_types=False) <= {"tf_groupvit.errors"}  # which weighs nothing


def loaded_by(code: str) -> set[str]:
    report = "import sys; print(' '.join(name for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


HEAVY = {"tensorflow", "keras", "jax", "torch", "numpy", "PIL", "huggingface_hub"}

OF_EXTRAS = {"pyarrow", "fsspec", "pycocotools", "shapely", "rasterio", "ray", "gradio", "nltk"}


def test_import_of_the_package_is_instant():
    assert not loaded_by("import tf_groupvit") & (HEAVY | OF_EXTRAS)


@pytest.mark.parametrize("command", ["", "segment", "annotate"])
def test_help_loads_no_tensorflow(command):
    arguments = [*command.split(), "--help"]
    code = (
        "from click.testing import CliRunner; from tf_groupvit.cli import main\nresult ="
        f" CliRunner().invoke(main, {arguments}); assert result.exit_code == 0, result.output"
    )
    assert not loaded_by(code) & {"tensorflow", "keras", "jax", "torch", *OF_EXTRAS}
