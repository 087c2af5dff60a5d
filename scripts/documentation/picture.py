"""The demo checkpoint in; the pictures of the pages out: drawn scenes, their regions with names as
coarse as patches and refined, their groups; and scenes that show the limits of refining.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from tf_groupvit import Segmenter
from tf_groupvit.hub import demo_checkpoint
from tf_groupvit.scenes.scene import CLASSES, Scene, scene
from tf_groupvit.segmentation.result import Segmentation

FOLDER = Path(__file__).resolve().parents[2] / ".github"
SIDE, GAP = 200, 6
WRONG = np.array([255, 0, 255], "uint8")
SCENES = {  # seed and number of each; the README has examples of the page
    "picture.png": [(2022, 2), (2022, 6), (2022, 7), (2022, 18)],
    "limits.png": [(991, 7), (5, 3), (2022, 115), (2022, 218)],
}


def draw(segmenter: Segmenter, name: str) -> Image.Image:
    """A column for each scene: the scene, its classes, the same refined, and groups or errors."""
    shown = [scene(seed, number, SIDE) for seed, number in SCENES[name]]
    images = [one.image for one in shown]
    coarse, refined = segmenter(images), segmenter.with_choices(refine="pamr")(images)
    for before, after in zip(coarse, refined, strict=True):
        after.colors = before.colors  # which can depend on the labels
    if name == "limits.png":
        last = [errors(*pair) for pair in zip(shown, refined, strict=True)]
    else:
        last = [result.view("final_group") for result in coarse]
    rows = [
        [result.view("input_pred_label") for result in results] for results in (coarse, refined)
    ]
    return sheet([[result.view("input") for result in coarse], *rows, last])


def errors(shown: Scene, result: Segmentation) -> Image.Image:
    """The scene, with one color where the label is wrong."""
    wrong = (result.labels != shown.mask)[..., None]
    return Image.fromarray(np.where(wrong, WRONG, shown.image))


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures of one size side by side, rows of them under each other."""
    step = SIDE + GAP
    whole = Image.new("RGB", (step * len(rows[0]) - GAP, step * len(rows) - GAP), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            whole.paste(picture, (column * step, row * step))
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None, help="another checkpoint than the demo's")
    parser.add_argument("--output", type=Path, default=FOLDER, help="the folder to write into")
    given = parser.parse_args()
    segmenter = Segmenter.from_pretrained(given.model or demo_checkpoint(), classes=CLASSES)
    for name in SCENES:
        drawn, file = draw(segmenter, name), given.output / name
        # 128 colours: a third of the bytes, and no eye sees it.
        drawn.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
        print(f"Wrote {file}: {file.stat().st_size:,} bytes, {np.prod(drawn.size):,} pixels")


if __name__ == "__main__":
    main()
