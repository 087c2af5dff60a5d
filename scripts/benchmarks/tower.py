"""This package beside PyTorch, ONNX Runtime and OpenVINO on the CPU: images, texts and photos a second, in one run.

Each engine has a process of its own, with the same weights, inputs and threads. Outputs are compared before anything
is timed. Rounds are interleaved (A B C A B C), so that a busy machine is busy for all; what counts are the ratios,
taken round by round. The rate of a 2048-cubed matrix product is measured in the same rounds: it is the floor.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from engines.process import Engine, MissingError
from load import make_checkpoint

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench" / "full_size"
GFLOP = 7.94  # of the image tower, an image of 224 x 224, as the published model computes it
OURS = "ours, folded"
# Name -> whether oneDNN is on in TensorFlow; None: as TensorFlow finds best for this processor.
ENGINES: dict[str, str | None] = {
    OURS: None,
    "ours, folded, oneDNN": "1",
    "ours, folded, in a Session": None,
    "ours, plain": None,
    "torch, eager": None,
    "torch, compile": None,
    "onnxruntime": None,
    "openvino": None,
}
BATCHES = (1, 8, 32)
SIDES = (224, 448, 896)
CLASSES = (1, 10, 100, 1000)


def start(names: list[str], folder: Path, threads: int) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that run here, and why the others do not."""
    running, skipped = {}, {}
    for name in names:
        try:
            running[name] = Engine(name.replace(",", ""), folder, threads, ENGINES[name])
        except MissingError as why:
            skipped[name] = str(why)
        print(f"  {name}: {skipped.get(name, 'ready')}", file=sys.stderr, flush=True)
    return running, skipped


class Bench:
    """Works, each with inputs of its own, run by all engines in turn."""

    def __init__(self, engines: dict[str, Engine], skipped: dict[str, str], place: Path, rounds: int) -> None:
        self.engines, self.skipped, self.place, self.rounds = engines, skipped, place, rounds

    def run(self, work: str, names: list[str] | None = None, **inputs: np.ndarray) -> dict[str, Any]:
        """Seconds of each engine and round; the largest difference from ours first."""
        file, output = self.place / "inputs.npz", self.place / "output.npz"
        np.savez(file, **inputs)  # type: ignore[arg-type]
        found: dict[str, Any] = {}
        expected: dict[str, np.ndarray] = {}
        for name in names or self.engines:
            try:
                first = self.engines[name].ask(work, file, output)
            except (MissingError, KeyError) as why:
                self.skipped[f"{name}: {work}"] = str(why)
                continue
            outputs = dict(np.load(output))
            expected = expected or outputs
            found[name] = {"first_s": first["seconds"], "rounds": [], **differences(outputs, expected)}
        for _ in range(self.rounds):
            for name, row in found.items():
                row["rounds"].append(self.engines[name].ask(work, file))
        return found


def differences(outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest difference as a part of the largest value; for label maps and assignments the share of equal ones."""
    kept = {}
    for name, value in outputs.items():
        theirs = expected.get(name, value)
        if name == "labels":
            kept["same_labels"] = float(np.mean(value == theirs))
            continue
        kept[f"{name}_within"] = float(np.abs(value - theirs).max() / max(np.abs(theirs).max(), 1e-9))
        if name == "assignment":
            kept["same_groups"] = float(np.mean(value.argmax(1) == theirs.argmax(1)))
    return kept


def table(title: str, found: dict[str, Any], pieces: int, unit: str, key: str = "seconds") -> list[dict[str, Any]]:
    """Print and return a row an engine; ratios are medians over rounds, above 1: ours is faster."""
    print(f"\n{title}", flush=True)
    base = [round_[key] for round_ in found[OURS]["rounds"]] if OURS in found else []
    rows = []
    for name, row in found.items():
        seconds = [round_[key] for round_ in row["rounds"]]
        cpu = [round_["cpu"] for round_ in row["rounds"]]
        middle = statistics.median(seconds)
        ratio = statistics.median(s / b for s, b in zip(seconds, base, strict=True)) if base else 1.0
        compared = {k: v for k, v in row.items() if k not in ("rounds", "first_s")}
        said = ", ".join(f"{k.replace('_', ' ')} {v:.2g}" for k, v in compared.items())
        rows.append(dict(engine=name, per_second=pieces / middle, ratio=ratio, rounds=row["rounds"], **compared))
        spread = f"({pieces / max(seconds):.2f} to {pieces / min(seconds):.2f})"
        spent = f"cpu {1000 * statistics.median(cpu) / pieces:.1f} ms"
        words = [
            f"{pieces / middle:.2f} {unit}/s",
            spread,
            spent,
            f"ratio {ratio:.2f}",
            f"first {row['first_s']:.2f} s",
        ]
        print(f"  {name:28s}", "  ".join([*words, said]), flush=True)
    return rows


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Of the power law that fits seconds over sizes."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def gemm_rate(bench: Bench) -> float:
    """GFLOP/s of the fastest engine's matrix product."""
    square = np.random.default_rng(0).normal(size=(2048, 2048)).astype("float32")
    names = [name for name in (OURS, "torch, eager") if name in bench.engines]
    found = bench.run("gemm", names, a=square)
    rates = {n: 2 * 2048**3 / 1e9 / min(r["seconds"] for r in row["rounds"]) for n, row in found.items()}
    print("\n2048-cubed matrix product, best: " + ", ".join(f"{n} {r:.0f} GFLOP/s" for n, r in rates.items()))
    return max(rates.values(), default=float("nan"))


def towers(bench: Bench, batches: list[int], rate: float) -> dict[str, Any]:
    result = {}
    for batch in batches:
        pixels = np.random.default_rng(batch).normal(size=(batch, 3, 224, 224)).astype("float32")
        rows = table(f"image tower, batch {batch}", bench.run("tower", pixels=pixels), batch, "images")
        for row in rows:
            row["share_of_gemm"] = row["per_second"] * GFLOP / rate
        best = max(rows, key=lambda row: row["per_second"])
        print(f"  fastest: {best['engine']}, {best['share_of_gemm']:.0%} of the matrix product's rate")
        result[str(batch)] = rows
    return result


def texts(bench: Bench, counts: list[int]) -> dict[str, Any]:
    result, names = {}, [name for name in bench.engines if "torch, eager" in name or name in (OURS, "ours, plain")]
    for count in counts:
        ids = np.random.default_rng(0).integers(1000, 40000, (count, 9))
        ids[:, 0], ids[:, -1] = 49406, 49407
        result[str(count)] = table(f"text tower, {count} prompts", bench.run("text", names, ids=ids), count, "texts")
    return result


def photos(bench: Bench, photo: Path) -> dict[str, Any]:
    """JPEG bytes to label map, 20 classes, against the documented call and its best rewrite."""
    jpeg = np.frombuffer(photo.read_bytes(), np.uint8)
    classes = np.array([f"thing {i}" for i in range(20)])
    found = bench.run("photo", [OURS, "torch, eager"], jpeg=jpeg, classes=classes)
    cached = bench.run("photo_cached", ["torch, eager"], jpeg=jpeg, classes=classes)
    if "torch, eager" in cached:
        found["torch, prompts cached"] = cached["torch, eager"]
    return {"20": table("photo to label map, 20 classes", found, 1, "photos")}


def scaling(bench: Bench, sides: list[int], batches: list[int]) -> dict[str, float]:
    """Exponents of our cost over images and over tokens."""
    random, result = np.random.default_rng(0), {}
    shapes = {"images": [(n, 224) for n in batches], "tokens": [(1, side) for side in sides]}
    for name, cases in shapes.items():
        seconds, sizes = [], []
        for batch, side in cases:
            pixels = random.normal(size=(batch, 3, side, side)).astype("float32")
            rounds = bench.run("tower", [OURS], pixels=pixels)[OURS]["rounds"]
            seconds.append(statistics.median(r["cpu"] for r in rounds))
            sizes.append(batch * (side // 16) ** 2)
        result[name] = exponent(sizes, seconds)
        spent = ", ".join(f"{second:.3f}" for second in seconds)
        print(f"cost over {name} {sizes}: {spent} s of the processor, exponent {result[name]:.2f}")
    return result


def picture(result: dict[str, Any], file: Path) -> None:
    """Bars of images a second by batch."""
    import matplotlib.pyplot as plot

    _, axes = plot.subplots(1, len(result["tower"]), figsize=(4 * len(result["tower"]), 4), squeeze=False)
    for axis, (batch, rows) in zip(axes[0], result["tower"].items(), strict=True):
        axis.barh([row["engine"] for row in rows], [row["per_second"] for row in rows])
        axis.set_title(f"images/s, batch {batch}")
        axis.invert_yaxis()
    plot.tight_layout()
    plot.savefig(file)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench tower", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="batch 1 and 8, three rounds, no compiled peer, 20 texts")
    parser.add_argument("--rounds", type=int, help="of each work (default 7, quick 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each engine (default: all cores)")
    parser.add_argument("--engines", default=",,".join(ENGINES), help="names between double commas")
    parser.add_argument("--checkpoint", type=Path, help="a folder instead of the seeded full-size one")
    parser.add_argument("--photo", type=Path, help="a JPEG to segment; needs a checkpoint with a tokenizer")
    parser.add_argument("--output", type=Path, default=Path("out/bench"), help="folder for the JSON and the picture")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    folder = chosen.checkpoint or CACHE
    if not folder.exists():
        print("Making the full-size checkpoint, once ...", file=sys.stderr)
        make_checkpoint(folder)
    names = [name for name in chosen.engines.split(",,") if not (chosen.quick and "compile" in name)]
    rounds = chosen.rounds or (3 if chosen.quick else 7)
    print(f"{chosen.threads} threads, {rounds} rounds; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    engines, skipped = start(names, folder, chosen.threads)
    with tempfile.TemporaryDirectory(prefix="bench_tower_") as place:
        bench = Bench(engines, skipped, Path(place), rounds)
        rate = gemm_rate(bench)
        result: dict[str, Any] = {"threads": chosen.threads, "gemm_gflops": rate}
        result["tower"] = towers(bench, list(BATCHES[:2] if chosen.quick else BATCHES), rate)
        result["text"] = texts(bench, [20] if chosen.quick else [20, 1000])
        if chosen.photo:
            result["photo"] = photos(bench, chosen.photo)
        result["exponents"] = scaling(bench, list(SIDES[:2] if chosen.quick else SIDES), [1, 2, 4, 8])
        result["engines"] = facts(bench, place)
    for name, why in skipped.items():
        print(f"skipped {name}: {why}")
    write(result | {"skipped": skipped}, chosen.output)


def facts(bench: Bench, place: str) -> dict[str, Any]:
    """Import and load times, and memory after loading and at its peak."""
    print()
    found = {}
    for name, engine in bench.engines.items():
        peak = engine.ask("peak", Path(place, "inputs.npz"))["memory"]
        found[name] = {**engine.facts, "peak": peak}
        seconds = f"import {engine.facts['import_s']:.1f} s, load {engine.facts['load_s']:.1f} s"
        print(f"{name:28s} {seconds}, {engine.facts['memory'] / 2**20:.0f} MiB then, {peak / 2**20:.0f} MiB at most")
        engine.close()
    return found


def write(result: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "tower.json").write_text(json.dumps(result, indent=2) + "\n")
    try:
        picture(result, output / "tower.png")
    except ImportError:
        print("No picture: matplotlib is missing, it comes with the extra [bench].", file=sys.stderr)
    print(f"Wrote {output}/tower.json")


if __name__ == "__main__":
    main()
