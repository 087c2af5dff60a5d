"""The demo checkpoint in; the README's picture out: drawn scenes, their regions with names, their
groups.
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
VIEWS = ("input", "input_pred_label", "final_group")  # a row of the picture each


def draw(folder: str | Path) -> Image.Image:
    """A column for each scene, a row for each view."""
    segmenter = Segmenter.from_pretrained(folder, classes=CLASSES)
    results = segmenter([scene(SEED, number, SIDE).image for number in SCENES])
    step = SIDE + GAP
    sheet = Image.new("RGB", (step * len(SCENES) - GAP, step * len(VIEWS) - GAP), "white")
    for column, result in enumerate(results):
        for row, view in enumerate(VIEWS):
            sheet.paste(result.view(view), (column * step, row * step))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None, help="another checkpoint than the demo's")
    parser.add_argument("--output", type=Path, default=PICTURE)
    given = parser.parse_args()
    sheet = draw(given.model or demo_checkpoint())
    # 128 colours: a third of the bytes, and no eye sees it.
    sheet.quantize(128, dither=Image.Dither.NONE).save(given.output, optimize=True)
    print(
        f"Wrote {given.output}: {given.output.stat().st_size:,} bytes, {np.prod(sheet.size):,}"
        " pixels"
    )


if __name__ == "__main__":
    main()
