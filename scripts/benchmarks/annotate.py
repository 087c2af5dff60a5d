"""Pictures per second of annotate beside the segmenter alone, where the time goes, and memory.

In one process and in turns, the full-size model segments arrays in lists of eight, and annotate
does as many JPEG files of 640 x 480, which the system has in its cache. Memory is the highest
resident set over annotate's turns, less what the process held before.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint import checkpoint_at
from PIL import Image

WIDTH, HEIGHT, AT_ONCE = 640, 480, 8


def make_photos(folder: Path, count: int) -> None:
    """JPEG files of smooth colors with some noise, of the sizes that photos of that size have."""
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        pixels = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
        noisy = pixels + random.integers(-12, 13, (HEIGHT, WIDTH, 1), np.int16)
        photo = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        photo.save(folder / f"{number:04}.jpg", quality=90)


def status(key: str) -> int:
    """A number of bytes of this process, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def alone(segmenter: Any, arrays: list[np.ndarray]) -> float:
    """Pictures a second of the segmenter, which gets arrays in lists."""
    began = time.perf_counter()
    for start in range(0, len(arrays), AT_ONCE):
        segmenter(arrays[start : start + AT_ONCE])
    return len(arrays) / (time.perf_counter() - began)


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Medians over turns."""
    from tf_groupvit import Segmenter
    from tf_groupvit.annotation.run import annotate
    from tf_groupvit.preprocessing.image_reading import read_image

    names = [f"thing {number}" for number in range(chosen.classes)]
    segmenter = Segmenter.from_pretrained(
        checkpoint_at(chosen.checkpoint), names, refine=chosen.refine, runtime=chosen.runtime
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        photos.mkdir()
        make_photos(photos, chosen.pictures)
        arrays = [read_image(path) for path in sorted(photos.iterdir())]
        for turn in range(-1, chosen.turns):  # the first is not counted
            few = arrays if turn >= 0 else arrays[:AT_ONCE]
            before = alone(segmenter, few)
            held = status("VmRSS:")
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
            found = annotate(photos, segmenter, Path(folder, f"labels{turn}"))["run"]
            peak = status("VmHWM:") - held
            after = alone(segmenter, few)
            rate = (before + after) / 2
            row = dict(alone=rate, annotate=found["pictures_a_second"], peak=peak)
            rows.append({**row, "ratio": row["annotate"] / rate, "shares": found["shares"]})
    rows = rows[1:]
    shares = {
        name: statistics.median(row["shares"][name] for row in rows) for name in rows[0]["shares"]
    }
    medians = {
        name: statistics.median(row[name] for row in rows)
        for name in ("alone", "annotate", "ratio")
    }
    return {**medians, "peak": max(row["peak"] for row in rows), "shares": shares, "turns": rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench annotate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="made where none is given")
    parser.add_argument("--pictures", type=int, default=96, help="of a turn (default 96)")
    parser.add_argument("--turns", type=int, default=5, help="default 5")
    parser.add_argument("--classes", type=int, default=20, help="default 20")
    parser.add_argument("--refine", help="as the segmenter's (default none)")
    parser.add_argument("--runtime", default="graph", help="as the segmenter's (default graph)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    chosen = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("scripts/bench annotate reads peak memory from /proc: it needs Linux.")
    found = measure(chosen)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    ratios = ", ".join(f"{row['ratio']:.3f}" for row in found["turns"])
    shares = ", ".join(f"{name} {100 * share:.1f}%" for name, share in found["shares"].items())
    print(f"segmenter alone {found['alone']:6.2f} pictures/s, annotate {found['annotate']:6.2f}")
    print(f"ratio {found['ratio']:.3f} (turns: {ratios})")
    print(f"time of annotate: {shares}")
    print(f"memory beyond what was held: {found['peak'] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
