"""Images per second and peak memory of segmentation: windows at three image sizes, and the whole
image.

Each line runs in a process of its own: the first image as it is (what a command over one image
waits for), the second, for which the model is traced, then images one by one. Memory is the highest
resident set over those, less what the process held after loading. At last the refinements of masks
are compared in turns, on a picture of 640 x 480 in mode whole.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CASES = [("window", 375, 500), ("window", 768, 1024), ("window", 3000, 4000), ("whole", 768, 1024)]

# Runs in the measured process: folder, mode, height, width, images, classes.
MEASURED = """
import json, sys, time
from pathlib import Path
import numpy as np
from tf_groupvit.segmentation.pipeline import untraced
from tf_groupvit.segmentation.segmenter import Segmenter

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024

def seconds(function, *arguments):
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began

folder, mode, (height, width, images, classes) = sys.argv[1], sys.argv[2], map(int, sys.argv[3:])
segmenter = Segmenter.from_pretrained(folder, [f"thing {i}" for i in range(classes)], mode=mode, background=0.9)
pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
held = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
with untraced():
    first, untraced_ = seconds(segmenter, pixels), seconds(segmenter, pixels)
tracing = seconds(segmenter, pixels)
rest = [seconds(segmenter, pixels) for _ in range(images)]
print(json.dumps(dict(first_s=first, untraced_s=untraced_, tracing_s=tracing,
                      images_per_second=images / sum(rest), peak=status("VmHWM:") - held)))
"""

# Likewise: folder, rounds, classes.
REFINED = """
import json, sys, time
import numpy as np
from tf_groupvit.segmentation.segmenter import Segmenter
from tf_groupvit.segmentation.settings import REFINEMENTS

def seconds(segmenter):
    began = time.perf_counter()
    segmenter(pixels)
    return time.perf_counter() - began

folder, rounds, classes = sys.argv[1], *map(int, sys.argv[2:])
names = [f"thing {i}" for i in range(classes)]
kinds = {name or "none": Segmenter.from_pretrained(folder, names, refine=name)
         for name in (None, *REFINEMENTS)}
pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
for segmenter in kinds.values():
    seconds(segmenter), seconds(segmenter)
times = [[seconds(segmenter) for segmenter in kinds.values()] for _ in range(rounds)]
medians = np.median(times, 0)
ratios = np.array(times) / np.array(times)[:, :1]
print(json.dumps([
    dict(refine=name, ms=1e3 * ms, ratio=np.median(one), least=min(one), most=max(one))
    for name, ms, one in zip(kinds, medians, ratios.T)
]))
"""


def measure(
    folder: Path, mode: str, height: int, width: int, images: int, classes: int
) -> dict[str, float]:
    """One case in a fresh process: seconds, images per second, and peak memory in bytes."""
    what = f"Mode {mode} at {width}x{height}"
    return _run(what, MEASURED, folder, mode, height, width, images, classes)


def _run(what: str, code: str, *arguments: object) -> Any:
    """What a fresh process prints as JSON in its last line."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def line(row: dict) -> str:
    return (
        f"{row['mode']:7s} {row['width']:5d}x{row['height']:<5d} first {row['first_s']:6.2f} s   "
        f"untraced {row['untraced_s']:5.2f} s   tracing {row['tracing_s']:6.2f} s   "
        f"traced {row['images_per_second']:6.2f} images/s   peak {row['peak'] / 1e6:7.1f} MB"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench segment", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint folder with tokenizer")
    parser.add_argument("--images", type=int, default=5, help="timed in each case (default 5)")
    parser.add_argument(
        "--classes", type=int, default=20, help="beside the background (default 20)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("scripts/bench segment reads peak memory from /proc: it needs Linux.")
    rows = []
    for mode, height, width in CASES:
        found = measure(chosen.checkpoint, mode, height, width, chosen.images, chosen.classes)
        rows.append({"mode": mode, "height": height, "width": width, **found})
        if not chosen.json:
            print(line(rows[-1]), flush=True)
    refined = _run("Refining", REFINED, chosen.checkpoint, 3 * chosen.images, chosen.classes)
    if chosen.json:
        print(json.dumps({"cases": rows, "refined": refined}, indent=2))
        return
    for row in refined:
        print(
            f"640x480, refine {row['refine']:14s} {row['ms']:7.1f} ms   {row['ratio']:.2f} times "
            f"none ({row['least']:.2f} to {row['most']:.2f})"
        )


if __name__ == "__main__":
    main()
