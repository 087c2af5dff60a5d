"""Seconds from a cold start to the first answers, in Python, in a session and of the server, beside
those of an earlier commit.

Every reading is of a fresh process: here, at the commit of --before, here, ... in turns, with the
same interpreter, checkpoint, photo and requests. "Python" imports the package, loads a segmenter
and calls it. "Session" loads an export as a server does and asks for each signature, each in a
session and process of its own ("alone"), and one after the other in one ("in turn"). "Server" is
tf-groupvit serve, asked over REST from its start on. Each side serves its own export.
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint import ROOT, checkpoint_at
from engines.earlier import package_at
from engines.report import machine
from engines.server_start import started_server
from engines.starting import add_inputs, alone, chosen_of, parsed
from tower import drawn_photo

FROM_COLD = Path(__file__).parent / "engines" / "from_cold.py"
HERE = "here"
PARTS = ("python", "session", "server")
CLASSES = ",".join(["dog", "cat", "grass", *(f"thing {i}" for i in range(17))])
SLOWEST = "slowest of calls 2 to 5, times the steady one"
# Part, row, and how many times better than before it is to be.
AIMS = (
    ("python", "start to first mask", 2),
    ("server", "first answer", 4),
    ("server", "every signature answered", 2),
    ("session", "alone: *", 3),
    ("session", "nodes: with bodies at each call", 2),
)
Readings = dict[str, list[dict[str, Any]]]  # side -> a reading for each round


def signature_requests(photo: bytes, checkpoint: Path) -> dict[str, dict[str, Any]]:
    """An example for each signature; the default one comes first."""
    config = json.loads((checkpoint / "config.json").read_text())
    side, width = config["vision_config"]["image_size"], config["projection_dim"]
    random = np.random.default_rng(0)
    ids = np.array([[0, config["text_config"]["vocab_size"] - 1]], np.int32)
    return {
        "serving_default": {"image_bytes": [photo]},
        "segment_open": {"image_bytes": [photo], "class_names": ["dog,cat"]},
        "classify": {"image_bytes": [photo]},
        "encode_text": {"text": ["a cat"]},
        "encode_image": {"image_bytes": [photo]},
        "logits": {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "pixel_values": np.zeros((1, 3, side, side), np.float32),
        },
        "segment_pixels": {"pixels": np.zeros((1, 300, 400, 3), np.uint8)},
        "segment_embeds": {
            "image_bytes": [photo],
            "text_embeds": random.normal(size=(1, 3, width)).astype("float32"),
        },
    }


class Sides:
    """The packages that are compared, with an export each, in a folder of this run."""

    def __init__(self, place: Path, checkpoint: Path, photo: bytes, before: str | None) -> None:
        self.place, self.checkpoint = place, checkpoint
        self.roots = {HERE: ROOT}
        if before:
            self.roots[before] = package_at(before, place / "before").parent
        self.photo, self.requests = place / "photo.jpg", signature_requests(photo, checkpoint)
        self.photo.write_bytes(photo)
        (place / "requests.pickle").write_bytes(pickle.dumps(self.requests))

    def environment(self, side: str) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.roots[side]), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def base(self, side: str) -> Path:
        return self.place / f"export {side}"

    def run(self, side: str, *arguments: str | Path) -> dict[str, Any]:
        command = [sys.executable, str(FROM_COLD), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment(side), cwd=self.place
        )
        if done.returncode:
            sys.exit(f"{arguments[0]} failed with the package of {side}:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def export(self, side: str) -> dict[str, Any]:
        return self.run(side, "export", self.checkpoint, self.base(side), CLASSES)

    def python(self, side: str) -> dict[str, Any]:
        given = ("python", self.checkpoint, self.photo, CLASSES, str(time.monotonic()))
        return self.run(side, *given)

    def session(self, side: str) -> dict[str, Any]:
        version = next(child for child in self.base(side).iterdir() if child.name.isdecimal())
        return self.run(side, "session", version, self.place / "requests.pickle")

    def server(self, side: str) -> dict[str, Any]:
        log = self.place / "server.log"
        try:
            return started_server(self.base(side), self.environment(side), self.requests, log)
        except RuntimeError as error:
            sys.exit(f"With the package of {side}: {error}")


def measured(
    ask: Callable[[str], dict[str, Any]], sides: list[str], rounds: int, lock: Path | None
) -> Readings:
    """In turns, every second round backwards."""
    found: Readings = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 else sides[::-1]:
            with alone(lock):
                found[side].append(ask(side))
    return found


def values(readings: list[dict[str, Any]], name: str, which: int) -> list[float]:
    """Of a row in every round: seconds by the clock (0) or by the processor (1), or an amount."""
    found = [reading[name] for reading in readings]
    return [one[which] if isinstance(one, list) else one for one in found]


def spread(numbers: list[float], form: str) -> str:
    middle, least, most = statistics.median(numbers), min(numbers), max(numbers)
    if least == most:
        return f"{middle:{form}}"
    return f"{middle:{form}} ({least:{form}} to {most:{form}})"


def compared(readings: Readings, name: str, which: int) -> list[float]:
    """Before / here, round by round, sorted; above 1: less here."""
    before = next(side for side in readings if side != HERE)
    pairs = zip(*(values(readings[side], name, which) for side in (before, HERE)), strict=True)
    return sorted(a / b for a, b in pairs if b)


def table(title: str, readings: Readings) -> dict[str, Any]:
    """Print and return a row for each thing that every side measured, medians of the rounds.

    Ratios are before / here, round by round: above 1, less here.
    """
    names = [name for name in readings[HERE][0] if all(name in r[0] for r in readings.values())]
    heads = "".join(f"{f'{side} (range)':>26s}{'processor':>11s}" for side in readings)
    heads += f"{'times better (range)':>26s}{'processor':>20s}" if len(readings) > 1 else ""
    print(f"\n{title:46s}{heads}")
    rows: dict[str, Any] = {}
    for name in names:
        first = readings[HERE][0][name]
        kinds = range(2 if isinstance(first, list) else 1)
        form = ",.0f" if isinstance(first, int) else ".2f"
        said, rows[name] = "", {}
        for side, found in readings.items():
            middles = [statistics.median(values(found, name, kind)) for kind in kinds]
            processor = f"{middles[1]:.2f}" if len(kinds) > 1 else ""
            said += f"{spread(values(found, name, 0), form):>26s}{processor:>11s}"
            rows[name][side] = middles
        if len(readings) > 1 and all(compared(readings, name, kind) for kind in kinds):
            ratios = [compared(readings, name, kind) for kind in kinds]
            rows[name]["times better"] = [statistics.median(one) for one in ratios]
            said += "".join(
                f"{spread(one, '.2f'):>{width}s}"
                for one, width in zip(ratios, (26, 20), strict=False)
            )
        print(f"{name:46s}{said}", flush=True)
    return rows


def aims(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What is aimed at beside the earlier commit, and what came out, printed and returned."""
    print("\nAims: how many times better than before, by the clock (by the processor)")
    found: dict[str, Any] = {}
    for part, pattern, aim in AIMS:
        for name, row in rows.get(part, {}).items():
            if not fnmatch(name, pattern) or "times better" not in row:
                continue
            by_clock, *by_processor = row["times better"]
            found[f"{part}, {name}"] = (*row["times better"], aim)
            said = "".join(f" ({value:.2f})" for value in by_processor)
            reached = "reached" if by_clock >= aim else "MISSED "
            print(f"  {reached}  {part}, {name}: {by_clock:.2f}{said}, aim {aim}")
    if slowest := rows.get("python", {}).get(SLOWEST):
        found[SLOWEST] = (value := slowest[HERE][0], 2)
        print(f"  {'reached' if value <= 2 else 'MISSED '}  {SLOWEST}: {value:.2f}, aim at most 2")
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench start",
        description=__doc__,
    )
    parser.add_argument(
        "--before", metavar="COMMIT", help="measure the package of this commit, too, in turns"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each part (default 3)")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="names between commas (default: all)"
    )
    add_inputs(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("out/bench"), help="folder for the JSON"
    )
    chosen = parsed(parser)
    chosen.parts = chosen_of(chosen.parts, PARTS, ",", parser)
    return chosen


def main() -> None:
    chosen = arguments()
    if not Path("/proc/self/status").exists():
        sys.exit("scripts/bench start reads memory from /proc: it needs Linux.")
    checkpoint = checkpoint_at(chosen.checkpoint).resolve()
    photo = chosen.photo.read_bytes() if chosen.photo else drawn_photo()
    result = machine(os.cpu_count() or 1, chosen.rounds)
    with tempfile.TemporaryDirectory(prefix="bench_start_") as place:
        sides = Sides(Path(place), checkpoint, photo, chosen.before)
        names = list(sides.roots)[::-1]
        found = {"export": measured(sides.export, names, 1, chosen.lock)}
        result["rows"] = {"export": table("Export", found["export"])}
        for part in chosen.parts:
            found[part] = measured(getattr(sides, part), names, chosen.rounds, chosen.lock)
            result["rows"][part] = table(part.capitalize(), found[part])
    if chosen.before:
        result["aims"] = aims(result["rows"])
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "start.json").write_text(json.dumps(result | {"rounds_of": found}, indent=2))
    print(f"Wrote {chosen.output}/start.json")


if __name__ == "__main__":
    main()
