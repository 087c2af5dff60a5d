"""Pictures per second of annotate beside the segmenter alone, where the time goes, and memory.

In turns, the full-size model segments arrays in lists of eight, and annotate does as many JPEG
files of 640 x 480, which the system has in its cache: in one process, and on a Ray cluster of this
machine with one worker and with two, each of which has its share of the processors. The start of
workers, as a first run of few pictures has it, is told by itself and left out elsewhere. The
processor's time depends less on what else runs than the clock's. Memory is the most that is resident
at any time, looked at five times a second; what processes share counts for each of them.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint import checkpoint_at
from PIL import Image

WIDTH, HEIGHT, AT_ONCE = 640, 480, 8
OF_WORKERS = ("segmenting", "reading", "recording", "writing")  # what a worker does
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
OURS, WORKERS, RAY = "this process", "workers", "the rest of Ray"


def make_photos(folder: Path, count: int) -> None:
    """JPEG files of smooth colors with some noise, of the sizes that photos of that size have."""
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        pixels = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
        noisy = pixels + random.integers(-12, 13, (HEIGHT, WIDTH, 1), np.int16)
        photo = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        photo.save(folder / f"{number:04}.jpg", quality=90)


class Watch:
    """Memory and processor time of this process, and of those below it, while a block runs."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}  # bytes, by kind of process
        self.seconds: dict[int, float] = {}  # of the processor, by process
        self.over = threading.Event()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.look()
        self.before = dict(self.seconds)
        self.peaks.clear()
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()
            self.look()

    def _watch(self) -> None:
        while not self.over.wait(0.2):
            self.look()

    def look(self) -> None:
        """Read what Linux tells of each process."""
        held: dict[str, int] = {}
        for number, kind in _processes():
            try:
                fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            self.seconds[number] = (int(fields[11]) + int(fields[12])) / TICKS
            held[kind] = held.get(kind, 0) + int(fields[21]) * PAGE
        for kind, size in held.items():
            self.peaks[kind] = max(self.peaks.get(kind, 0), size)

    def spent(self) -> float:
        """The seconds of all processes together."""
        return sum(value - self.before.get(key, 0.0) for key, value in self.seconds.items())


def _processes() -> Iterator[tuple[int, str]]:
    """This process and those below it, each with its kind."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
    new = {os.getpid()}
    while new:
        for number in new:
            with suppress(OSError):
                name = Path(f"/proc/{number}/cmdline").read_bytes()
                worker = WORKERS if name.startswith(b"ray::MapWorker") else RAY
                yield number, OURS if number == os.getpid() else worker
        new = {number for number, parent in parents.items() if parent in new}


def alone(segmenter: Any, arrays: list[np.ndarray]) -> dict[str, float]:
    """Pictures a second of the segmenter, which gets arrays in lists, and what one costs."""
    began, used = time.perf_counter(), time.process_time()
    for start in range(0, len(arrays), AT_ONCE):
        segmenter(arrays[start : start + AT_ONCE])
    rate = len(arrays) / (time.perf_counter() - began)
    return {"rate": rate, "processor": (time.process_time() - used) / len(arrays)}


def annotated(photos: Path, segmenter: Any, workers: int, start: dict[str, Any]) -> dict[str, Any]:
    """A run in this process (workers 0) or on Ray, without what a run of few pictures took."""
    from tf_groupvit.annotation.run import annotate

    cluster: dict[str, Any] = {"engine": "ray", "workers": workers} if workers else {}
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder, watch():
        run = annotate(photos, segmenter, Path(folder, "labels"), **cluster)["run"]
    busy = run["pictures"] / run["pictures_a_second"]
    model = run["shares"]["segmenting"] * run["seconds"]
    if workers:  # on average, without their start
        busy = sum(run["shares"].get(part, 0.0) for part in OF_WORKERS) * run["seconds"]
    row = {
        "pictures": run["pictures"],
        "seconds": run["seconds"],
        "busy": busy,
        "model": model,
        "spent": watch.spent(),
    }
    beyond = {name: value - start.get(name, 0.0) for name, value in row.items()}
    return {
        **row,
        "rate": beyond["pictures"] / beyond["busy"],
        "processor": beyond["spent"] / beyond["pictures"],
        "model_share": beyond["model"] / beyond["busy"],
        "shares": run["shares"],
        "peaks": watch.peaks,
    }


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """What each turn gave, by way."""
    from tf_groupvit import Segmenter
    from tf_groupvit.preprocessing.image_reading import read_image

    names = [f"thing {number}" for number in range(chosen.classes)]
    segmenter = Segmenter.from_pretrained(
        checkpoint_at(chosen.checkpoint), names, refine=chosen.refine, runtime=chosen.runtime
    )
    found: dict[str, Any] = {"alone": [], **{str(workers): [] for workers in chosen.workers}}
    starts: dict[int, dict[str, Any]] = {0: {}}
    with tempfile.TemporaryDirectory() as folder:
        photos, few = Path(folder, "photos"), Path(folder, "few")
        for place, count in (
            (photos, chosen.pictures),
            (few, AT_ONCE * max(1, max(chosen.workers))),
        ):
            place.mkdir()
            make_photos(place, count)
        arrays = [read_image(path) for path in sorted(photos.iterdir())]
        alone(segmenter, arrays[:AT_ONCE])
        for workers in chosen.workers:
            if workers:
                starts[workers] = annotated(few, segmenter, workers, {})
        for _ in range(chosen.turns):
            before = alone(segmenter, arrays)
            rows = {
                workers: annotated(photos, segmenter, workers, starts[workers])
                for workers in chosen.workers
            }
            after = alone(segmenter, arrays)
            both = {name: (before[name] + after[name]) / 2 for name in before}
            found["alone"].append(both)
            for workers, row in rows.items():
                found[str(workers)].append({**row, "ratio": row["rate"] / both["rate"]})
    return {"turns": found, "starts": starts}


def median(rows: list[dict[str, Any]], name: str) -> float:
    return statistics.median(row[name] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench annotate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="made where none is given")
    parser.add_argument("--pictures", type=int, default=96, help="of a turn (default 96)")
    parser.add_argument("--turns", type=int, default=5, help="default 5")
    parser.add_argument("--classes", type=int, default=20, help="default 20")
    parser.add_argument("--refine", help="as the segmenter's (default none)")
    parser.add_argument("--runtime", default="graph", help="as the segmenter's (default graph)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1, 2], help="0 is one process without Ray"
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    chosen = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        sys.exit("scripts/bench annotate reads memory from /proc: it needs Linux.")
    if any(chosen.workers) and find_spec("ray") is None:
        sys.exit("Workers need Ray: pip install 'tf-groupvit[ray]', or --workers 0.")
    found = measure(chosen)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    rows = found["turns"].pop("alone")
    each = f"{median(rows, 'rate'):6.2f} pictures/s, {median(rows, 'processor'):.3f} s of the processor each"
    print(f"the segmenter alone: {each}")
    for workers, rows in found["turns"].items():
        print(f"annotate, {f'Ray with {workers}' if int(workers) else 'one process'}:", end=" ")
        print(f"{median(rows, 'rate'):6.2f} pictures/s,", end=" ")
        print(f"{median(rows, 'processor'):.3f} s of the processor each")
        print(f"  ratio {median(rows, 'ratio'):.3f}", end=" ")
        print(f"(turns: {', '.join(format(row['ratio'], '.3f') for row in rows)})")
        print(
            f"  the model runs {100 * median(rows, 'model_share'):.0f}% of the time; shares of a run:"
        )
        shares = {name: median([row["shares"] for row in rows], name) for name in rows[0]["shares"]}
        print("  " + ", ".join(f"{name} {100 * share:.1f}%" for name, share in shares.items()))
        peaks = {
            name: max(row["peaks"].get(name, 0) for row in rows) for name in (OURS, WORKERS, RAY)
        }
        print(
            "  memory: "
            + ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in peaks.items() if size)
        )
        if start := found["starts"].get(int(workers)):
            print(f"  start: {start['seconds']:.1f} s, {start['spent']:.1f} s of the processor")


if __name__ == "__main__":
    main()
