"""This package beside PyTorch, ONNX Runtime, OpenVINO and transformers' TensorFlow class on the
CPU, in one run.

Image and text towers, photos to label maps, windows, and how cost grows. Each engine has a process
of its own, with the same weights, inputs and threads. Outputs are compared before anything is
timed; rounds are interleaved; ratios are taken round by round, and so is the share of the rate of a
2048-cubed matrix product, which runs in the same rounds. Processor time counts what an engine's
threads burn while they wait, too.
"""

import argparse
import io
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint import ROOT, checkpoint_at
from engines.earlier import package_at
from engines.process import Engine, MissingError
from engines.report import (
    BARE,
    BEFORE,
    INT8,
    LITE,
    OPENVINO,
    OURS,
    SESSION,
    aims,
    exponent,
    facts,
    machine,
    medians,
    table,
    write,
)
from engines.rounds import Bench, Job, pixels_of
from engines.starting import add_inputs, chosen_of, parsed, start
from PIL import Image

GFLOP = 7.94  # of the image tower, an image of 224 x 224, as the published model computes it
# What folds the weights of a snapshot -> the same with weights as they are.
NOT_FOLDED = {name: f"{name}, not folded" for name in (OURS, SESSION, LITE, OPENVINO)}
EAGER, COMPILED = "torch, eager", "torch, compile"
TF4 = ROOT / ".venv-bench-tf4"  # made by scripts/bench
ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}  # as the commands run (tf_groupvit/cli/kernels.py)
# Name -> environment variables.
ENGINES: dict[str, dict[str, str]] = {
    OURS: ONEDNN,
    LITE: ONEDNN,
    OPENVINO: ONEDNN,
    INT8: ONEDNN,
    "ours, Eigen's kernels": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    SESSION: ONEDNN,
    **dict.fromkeys(BEFORE.values(), ONEDNN),
    **dict.fromkeys(BARE.values(), ONEDNN),
    **dict.fromkeys(NOT_FOLDED.values(), ONEDNN),
    EAGER: {},
    COMPILED: {},
    "onnxruntime": {},
    "onnxruntime, int8": {},
    "openvino": {},
    "transformers TF, graph": {"TF_USE_LEGACY_KERAS": "1"},
    "transformers TF, XLA": {"TF_USE_LEGACY_KERAS": "1"},
}
WORKS = ("tower", "text", "photo", "batch", "window", "scaling")
SLOW_TO_START = ("compile", "XLA")
WARM = 2  # calls after which a segmenter has traced what it runs
BATCHES, SIDES, CLASSES, IMAGES = (
    (1, 8, 32),
    (224, 320, 448, 496, 896),
    (1, 10, 100, 1000),
    (1, 2, 4, 8, 16, 32),
)
MOST_TOKENS = 1024  # up to there cost is to be linear; beyond, attention's square shows


def made(name: str, folder: Path, threads: int, spin: bool, before: Path) -> Engine:
    """The engine of that name, in the environment that has what it needs; ``before`` has the
    package of an earlier commit. Raises MissingError.
    """
    python = str(TF4 / "bin" / "python") if name.startswith("transformers TF") else ""
    if python and not (TF4 / "groupvit-stamp").exists():
        raise MissingError(
            "transformers 4.57 for TensorFlow is not installed: scripts/bench tower tries to"
        )
    settings = ENGINES[name] | ({"PYTHONPATH": str(before)} if name in BEFORE.values() else {})
    return Engine(name, folder, threads, settings, python, spin)


def towers(bench: Bench, batches: list[int]) -> dict[str, Any]:
    products = {
        f"matrix product, {name}": Job(name, "gemm", False)
        for name in (OURS, EAGER)
        if name in bench.engines
    }
    result = {}
    for batch in batches:
        names = [name for name in bench.engines if batch == 1 or name not in BARE.values()]
        found = bench.run({**bench.same("tower", names), **products}, pixels=pixels_of(batch))
        rates = {name: found.pop(name) for name in products if name in found}
        title = f"Image tower, batch {batch}"
        result[str(batch)] = table(title, found, batch, "images", rates, GFLOP * batch)
    return result


def texts(bench: Bench, counts: list[int]) -> dict[str, Any]:
    result = {}
    names = [
        name for name in bench.engines if not name.startswith((SESSION, LITE, OPENVINO))
    ]  # which run no texts
    for count in counts:
        ids = np.random.default_rng(0).integers(1000, 40000, (count, 9))
        ids[:, 0], ids[:, -1] = 49406, 49407
        result[str(count)] = table(
            f"Text tower, {count} prompts",
            bench.run(bench.same("text", names), ids=ids),
            count,
            "texts",
        )
    return result


def photos(bench: Bench, jpeg: np.ndarray, count: int) -> dict[str, Any]:
    """JPEG bytes to label map, against the documented call and its best rewrite."""
    jobs = {
        name: Job(name, "photo")
        for name in bench.engines
        if name.startswith("ours") and name not in (*NOT_FOLDED.values(), *BARE.values())
    }
    documented = (EAGER, "transformers TF, graph")
    jobs |= {
        f"{name}, documented": Job(name, "photo") for name in documented if name in bench.engines
    }
    rewritten = (EAGER, COMPILED)
    jobs |= {
        f"{name}, rewritten": Job(name, "photo_cached")
        for name in rewritten
        if name in bench.engines
    }
    found = bench.run(jobs, warm=WARM, jpeg=jpeg, classes=things(count))
    return {
        str(count): table(f"JPEG to label map, {count} classes, mode whole", found, 1, "photos")
    }


def batches(bench: Bench, jpeg: np.ndarray, counts: list[int]) -> dict[str, Any]:
    """Requests to an export, of one photo and of several."""
    result = {}
    for count in counts:
        found = bench.run(
            bench.same("batch", [SESSION, BEFORE[SESSION]]),
            jpeg=jpeg,
            count=np.array(count),
            classes=things(20),
        )
        title = f"JPEG to mask in a Session, 20 classes, batch {count}"
        result[str(count)] = table(title, found, count, "photos", base=SESSION)
    return result


def windows(bench: Bench, jpeg: np.ndarray) -> dict[str, Any]:
    """Mode window, which nobody else has."""
    jobs = bench.same("windows", [OURS, LITE, OPENVINO, INT8, "ours, Eigen's kernels"])
    found = bench.run(jobs, warm=WARM, jpeg=jpeg, classes=things(20))
    return {"20": table("JPEG to label map, 20 classes, mode window", found, 1, "photos")}


def things(count: int) -> np.ndarray:
    return np.array([f"thing {i}" for i in range(count)])


def scaling(bench: Bench, jpeg: np.ndarray, quick: bool) -> dict[str, Any]:
    """Cost of ours over images, tokens and classes, and the exponents of fitted power laws."""
    if OURS not in bench.engines:
        return {}
    jobs, random = bench.same("tower", [OURS]), np.random.default_rng(0)
    seconds: dict[str, dict[int, dict[str, float]]] = {}
    for name, cases in {
        "images": {n: (n, 224) for n in (IMAGES[:4] if quick else IMAGES)},
        "tokens": {(side // 16) ** 2: (1, side) for side in (SIDES[:3] if quick else SIDES)},
    }.items():
        seconds[name] = {}
        for size, (batch, side) in cases.items():
            pixels = random.normal(size=(batch, 3, side, side)).astype("float32")
            seconds[name][size] = medians(bench.run(jobs, pixels=pixels)[OURS])
    jobs = bench.same("photo", [OURS])
    seconds["classes"] = {
        n: medians(bench.run(jobs, warm=WARM, jpeg=jpeg, classes=things(n))[OURS])
        for n in (CLASSES[:3] if quick else CLASSES)
    }
    print("\nHow cost grows, ours: seconds of the clock (of the processor)")
    result = {}
    for name, cost in seconds.items():
        fitted = {size: row for size, row in cost.items() if name != "tokens" or size < MOST_TOKENS}
        result[name] = {
            "cost": cost,
            **{
                key: exponent({n: row[key] for n, row in fitted.items()})
                for key in ("seconds", "cpu")
            },
        }
        said = ", ".join(
            f"{size}: {row['seconds']:.3f} ({row['cpu']:.3f})" for size, row in cost.items()
        )
        print(
            f"  {name} {said}; exponent {result[name]['seconds']:.2f} ({result[name]['cpu']:.2f})"
        )
    return result


def drawn_photo() -> bytes:
    """A JPEG of 640 x 480, for those who have no photo at hand."""
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((640, 480), Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=90
    )
    return file.getvalue()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench tower", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="less of everything, no engine that compiles for minutes",
    )
    parser.add_argument("--rounds", type=int, help="of each work (default 5, quick 3)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of each engine (default: all cores)"
    )
    parser.add_argument(
        "--spin", action="store_true", help="let waiting threads spin: for a machine that is idle"
    )
    parser.add_argument(
        "--engines", default="|".join(ENGINES), help="names between bars (default: all)"
    )
    parser.add_argument(
        "--before", metavar="COMMIT", help="measure the package of this commit, too"
    )
    parser.add_argument(
        "--folding",
        action="store_true",
        help="only what folding the weights of snapshots gains: each runtime with and without it",
    )
    parser.add_argument(
        "--works", default=",".join(WORKS), help="names between commas (default: all)"
    )
    add_inputs(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("out/bench"), help="folder for the JSON and the picture"
    )
    chosen = parsed(parser)
    if chosen.folding:
        chosen.works, chosen.engines = "tower", "|".join([*NOT_FOLDED, *NOT_FOLDED.values()])
    chosen.works = chosen_of(chosen.works, WORKS, ",", parser)
    chosen.engines = chosen_of(chosen.engines, ENGINES, "|", parser)
    return chosen


def main() -> None:
    chosen = arguments()
    folder = checkpoint_at(chosen.checkpoint)
    names = [
        name
        for name in chosen.engines
        if not (chosen.quick and any(w in name for w in SLOW_TO_START))
        and (chosen.before or name not in BEFORE.values())
    ]
    sizes = BATCHES[:2] if chosen.quick else BATCHES
    works, rounds = chosen.works, chosen.rounds or (3 if chosen.quick else 5)
    jpeg = np.frombuffer(chosen.photo.read_bytes() if chosen.photo else drawn_photo(), np.uint8)
    result = machine(chosen.threads, rounds)
    with tempfile.TemporaryDirectory(prefix="bench_tower_") as place:
        before = Path(place, "before")
        if chosen.before:
            package_at(chosen.before, before)
        given = folder, chosen.threads, chosen.spin, before
        engines, skipped = start({name: partial(made, name, *given) for name in names})
        bench = Bench(engines, skipped, Path(place), rounds, lock=chosen.lock)
        if "tower" in works:
            result["tower"] = towers(bench, list(sizes))
        result["engines"] = facts(bench)
        if "text" in works:
            result["text"] = texts(bench, [20] if chosen.quick else [20, 1000])
        if "photo" in works:
            result["photo"] = photos(bench, jpeg, 20)
        if "batch" in works:
            result["batch"] = batches(bench, jpeg, list(sizes))
        if "window" in works:
            result["window"] = windows(bench, jpeg)
        if "scaling" in works:
            result["scaling"] = scaling(bench, jpeg, chosen.quick)
        for engine in engines.values():
            engine.close()
    for name, why in skipped.items():
        print(f"skipped {name}: {why}")
    result |= {"aims": aims(result), "skipped": skipped}
    write(result, chosen.output)


if __name__ == "__main__":
    main()
