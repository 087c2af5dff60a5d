"""A folder with files of an export, opened as serving/edge/segment.py opens them: in a process
without TensorFlow and without this package.
"""

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np

PACKAGES = {"ai_edge_litert": "ai-edge-litert", "onnxruntime": "", "openvino": ""}
VERSION = ", ".join(
    f"{package or module} {version(package or module)}"
    for module, package in PACKAGES.items()
    if find_spec(module)
)
OPEN = run_path(str(Path(__file__).parents[3] / "serving" / "edge" / "segment.py"))["open_file"]


def make(name: str, folder: Path, threads: int) -> "Files":
    return Files(folder)


class Files:
    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "settings.json").read_text())
        self.runs = {
            name: OPEN(folder / row["file"], settings["format"])
            for name, row in settings["files"].items()
        }

    def look(self, pixels: np.ndarray) -> dict[str, Any]:
        """uint8 (B, S, S, 3) -> labels (B, S, S), in one call."""
        return {"labels": self.runs["vision"](pixels=pixels)["labels"]}

    def look_one_by_one(self, pixels: np.ndarray) -> dict[str, Any]:
        """The same, and the group of each patch (B, P), in a call for each picture."""
        found: dict[str, list[np.ndarray]] = {"labels": [], "owners": []}
        for start in range(len(pixels)):
            one = pixels[start : start + 1]
            found["labels"].append(self.runs["vision"](pixels=one)["labels"])
            found["owners"].append(self.runs["owners"](pixels=one)["owners"])
        return {name: np.concatenate(rows) for name, rows in found.items()}
