"""What a type checker says of a user's script: nothing, under its strictest rules."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from pathlib import Path

import numpy as np
from PIL import Image

from tf_groupvit import GroupViTConfig, ImageProcessor, Segmentation, Segmenter, TFGroupViTModel, Tokenizer, __version__
from tf_groupvit import Segmentor  # type: ignore[attr-defined]
from tf_groupvit.client import AsyncClient, Client
from tf_groupvit.errors import InputError
from tf_groupvit.export import export_saved_model


def areas(segmenter: Segmenter, photo: Path) -> dict[str, float]:
    result = segmenter(photo)
    overlay: Image.Image = result.overlay(alpha=0.4, legend=False, contours=True)
    overlay.save(photo.with_suffix(".overlay.png"))
    print(__version__, result.labels.shape, result.class_names, result.scores.dtype, result.to_json())
    reveal_type(result)  # Segmentation
    reveal_type(result.labels)  # ndarray
    reveal_type(result.view("pred"))  # Image
    return result.areas


def several(segmenter: Segmenter, photos: list[Path]) -> list[Segmentation]:
    reveal_type(segmenter(photos))  # list[Segmentation]
    reveal_type(segmenter(str(photo) for photo in photos))  # list[Segmentation]
    reveal_type(segmenter("photo.jpg"))  # Segmentation
    reveal_type(segmenter(b"bytes"))  # Segmentation
    reveal_type(segmenter(open("photo.jpg", "rb")))  # Segmentation
    reveal_type(segmenter(np.zeros((4, 4, 3), np.uint8)))  # Segmentation
    reveal_type(segmenter.predict(np.zeros((1, 4, 4, 3), np.uint8)))  # ndarray
    segmenter.classes = {"cat": ["kitten"], "dog": []}
    return segmenter.with_classes("dog,cat")(photos)


def similarity(folder: str) -> float:
    model = TFGroupViTModel.from_pretrained(folder)
    tokenizer, processor = Tokenizer.from_pretrained(folder), ImageProcessor.from_pretrained(folder)
    outputs = model(**tokenizer(["a dog"]), **processor("photo.jpg"), output_segmentation=True)
    config: GroupViTConfig = model.config
    reveal_type(outputs)  # GroupViTOutput
    reveal_type(outputs.vision_model_output)  # TowerOutput
    return float(outputs.logits_per_image[0, 0]) / config.projection_dim


def served(photo: bytes) -> Image.Image:
    with Client("localhost:8501") as client:
        client.wait_until_ready()
        reveal_type(client.segment([photo]))  # list[Segmentation]
        reveal_type(client.classify(photo))  # dict[str, float]
        return client.segment(photo, ["dog", "cat"]).overlay()


async def later(photo: bytes) -> Segmentation:
    async with AsyncClient("localhost:8501") as client:
        return await client.segment(photo)


try:
    segmenter = Segmenter.from_pretrained("folder", classes={"dog": ["puppy"], "cat": []}, background=0.9)
    export_saved_model(segmenter, "models/groupvit")
    print(areas(segmenter, Path("photo.jpg")))
except InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_strict_script_of_a_user_passes_and_its_values_have_types(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--config-file=",
        "script.py",
    ]
    # Beside the script: the package as it would be installed. What is said of it is for
    # scripts/check.
    environment = {**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = {
        int(line): kind
        for line, kind in re.findall(r':(\d+): note: Revealed type is "(.*)"', done.stdout)
    }
    wanted = {
        n: line.split("# ")[1]
        for n, line in enumerate(SCRIPT.split("\n"), 1)
        if "reveal_type" in line
    }
    short = {line: re.sub(r"[\w.]+\.(?=\w+)", "", kind) for line, kind in told.items()}
    assert {
        line: kind.removesuffix("[tuple[Any, ...], dtype[Any]]") for line, kind in short.items()
    } == wanted
