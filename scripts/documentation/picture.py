"""The demo checkpoint in; the README's picture out: drawn scenes, their regions with names as
coarse as patches and refined, their groups.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from tf_groupvit import Segmenter
from tf_groupvit.hub import demo_checkpoint
from tf_groupvit.scenes.scene import CLASSES, scene

PICTURE = Path(__file__).resolve().parents[2] / ".github" / "picture.png"
SCENES = (2, 6, 7, 18)  # of SEED: the examples of the page
SEED, SIDE, GAP = 2022, 200, 6
VIEWS = (  # a row of the picture each: the refinement, and what is shown
    (None, "input"),
    (None, "input_pred_label"),
    ("pamr", "input_pred_label"),
    (None, "final_group"),
)


def draw(folder: str | Path) -> Image.Image:
    """A column for each scene, a row for each view."""
    segmenter = Segmenter.from_pretrained(folder, classes=CLASSES)
    images = [scene(SEED, number, SIDE).image for number in SCENES]
    results = {how: segmenter.with_choices(refine=how)(images) for how in (None, "pamr")}
    for plain, refined in zip(results[None], results["pamr"], strict=True):
        refined.colors = plain.colors  # which can depend on the labels
    views = [[result.view(view) for result in results[how]] for how, view in VIEWS]
    return sheet(views)


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures of one size side by side, rows of them under each other."""
    width, height = rows[0][0].size
    whole = Image.new(
        "RGB", ((width + GAP) * len(rows[0]) - GAP, (height + GAP) * len(rows) - GAP), "white"
    )
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            whole.paste(picture, (column * (width + GAP), row * (height + GAP)))
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None, help="another checkpoint than the demo's")
    parser.add_argument("--output", type=Path, default=PICTURE)
    given = parser.parse_args()
    drawn = draw(given.model or demo_checkpoint())
    # 128 colours: a third of the bytes, and no eye sees it.
    drawn.quantize(128, dither=Image.Dither.NONE).save(given.output, optimize=True)
    print(
        f"Wrote {given.output}: {given.output.stat().st_size:,} bytes, {np.prod(drawn.size):,}"
        " pixels"
    )


if __name__ == "__main__":
    main()
