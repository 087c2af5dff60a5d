"""What rounds gave in; a table on the terminal, the aims, a JSON file and a picture out."""

import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engines.rounds import Bench

OURS, LITE, INT8, OPENVINO = "ours", "ours, LiteRT", "ours, LiteRT in int8", "ours, OpenVINO"
SESSION = "ours, in a Session"
# The same at an earlier commit; and the engine alone, with the same weights.
BEFORE = {name: f"{name}, before" for name in (OURS, SESSION)}
BARE = {name: f"{name}, bare" for name in (LITE, OPENVINO)}
PRODUCT = 2 * 2048**3 / 1e9  # GFLOP of the matrix product that rates are measured with
KEYS = ("seconds", "cpu")  # of the clock, and of the processor


def machine(threads: int, rounds: int) -> dict[str, Any]:
    """What the numbers depend on, printed and kept."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    processor = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    print(
        f"{processor}, {os.cpu_count()} cores, load average {load:.1f}; {threads} threads an"
        f" engine, {rounds} rounds"
    )
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": threads,
        "rounds": rounds,
        "load_average": load,
    }


def medians(row: dict[str, Any]) -> dict[str, float]:
    return {key: statistics.median(round_[key] for round_ in row["rounds"]) for key in KEYS}


def ratios(row: dict[str, Any], base: dict[str, Any], key: str) -> list[float]:
    """Round by round, sorted; above 1: the base took less."""
    return sorted(a[key] / b[key] for a, b in zip(row["rounds"], base["rounds"], strict=True))


def shares(row: dict[str, Any], products: dict[str, Any], gflop: float, key: str) -> float:
    """Median share of the fastest matrix product's rate in the same round."""
    best = [
        min(rounds, key=lambda r: r[key])[key]
        for rounds in zip(*(p["rounds"] for p in products.values()), strict=True)
    ]
    return statistics.median(
        gflop / r[key] / (PRODUCT / b) for r, b in zip(row["rounds"], best, strict=True)
    )


def table(
    title: str,
    found: dict[str, Any],
    pieces: int,
    unit: str,
    products: dict[str, Any] | None = None,
    gflop: float = 0.0,
    base: str = OURS,
) -> dict[str, Any]:
    """Print and return a row an engine; with matrix products from the same rounds, what share of
    their rate it has.

    Ratios above 1: the base, ours, is faster. They are medians over rounds, with their range; of
    the best rounds, which a busy machine disturbs least; and medians by processor time.
    """
    print(
        f"\n{title}: {unit}/s (range); ratio (range), of the best, by the processor; its time;"
        " first call"
    )
    rows: dict[str, Any] = {}
    for name, row in found.items():
        rows[name], said = measured(row, found.get(base), pieces)
        if products:
            rows[name] |= {f"share_{key}": shares(row, products, gflop, key) for key in KEYS}
            said += (
                f"  {rows[name]['share_seconds']:.0%} ({rows[name]['share_cpu']:.0%}) of the matrix"
                " product"
            )
        compared = {
            key: value
            for key, value in row.items()
            if key.endswith("_within") or key.startswith("same_")
        }
        told = ", ".join(f"{key.replace('_', ' ')} {value:.2g}" for key, value in compared.items())
        print(f"  {name:32s} {said}  {told}", flush=True)
        rows[name] |= compared
    for name, row in (products or {}).items():
        rate, rate_cpu = (PRODUCT / medians(row)[key] for key in KEYS)
        print(f"  {name:32s} {rate:8.1f} GFLOP/s, {rate_cpu:.1f} a second of one processor")
        rows[name] = {"gflops": rate, "gflops_cpu": rate_cpu, "rounds": row["rounds"]}
    return rows


def measured(
    row: dict[str, Any], ours: dict[str, Any] | None, pieces: int
) -> tuple[dict[str, Any], str]:
    """One engine's numbers, and how the table says them."""
    middle, seconds = medians(row), sorted(round_["seconds"] for round_ in row["rounds"])
    kept = {"rounds": row["rounds"], "first_s": row["first_s"]}
    kept |= {"per_second": pieces / middle["seconds"], "cpu_ms": 1000 * middle["cpu"] / pieces}
    said = f"{kept['per_second']:8.2f} ({pieces / seconds[-1]:.2f} to {pieces / seconds[0]:.2f})"
    if ours:
        by_clock, by_cpu = (ratios(row, ours, key) for key in KEYS)
        kept |= {"ratio": statistics.median(by_clock), "ratio_cpu": statistics.median(by_cpu)}
        kept["ratio_best"] = seconds[0] / min(round_["seconds"] for round_ in ours["rounds"])
        said += f"  {kept['ratio']:5.2f} ({by_clock[0]:.2f} to {by_clock[-1]:.2f})"
        said += f" {kept['ratio_best']:5.2f} {kept['ratio_cpu']:5.2f}"
    return kept, f"{said}  {kept['cpu_ms']:8.1f} ms  {kept['first_s']:6.2f} s"


def exponent(cost: dict[int, float]) -> float:
    """Of the power law that fits cost over sizes."""
    return float(np.polyfit(np.log(list(cost)), np.log(list(cost.values())), 1)[0])


def facts(bench: Bench) -> dict[str, Any]:
    """Import and load times, and memory after loading and at its peak so far."""
    print("\nImport, load, memory after loading, memory at most so far")
    found = {}
    for name, engine in bench.engines.items():
        row = {**engine.facts, "peak": engine.ask("memory")["peak"]}
        found[name] = row
        seconds = f"{row['import_s']:5.1f} s {row['load_s']:6.1f} s"
        print(
            f"  {name:32s} {seconds} {row['loaded'] / 2**20:7.0f} MiB {row['peak'] / 2**20:7.0f}"
            f" MiB  {row['version']}"
        )
    return found


def peers_of(rows: dict[str, Any], mine: str) -> dict[str, float]:
    """Of each peer with as many bits, how many times as long it took as ``mine``, the median of the
    rounds.
    """
    peers = [
        n
        for n in rows
        if "cpu_ms" in rows[n] and not n.startswith("ours") and ("int8" in n) == ("int8" in mine)
    ]
    return {n: statistics.median(ratios(rows[n], rows[mine], "seconds")) for n in peers}


def times_as_fast(
    other: dict[str, Any], mine: dict[str, Any], aim: float
) -> tuple[tuple[float, str, float], str]:
    """How many times as fast as the other a row is, with the aim; and its range over the rounds."""
    by_clock, by_cpu = (ratios(other, mine, key) for key in KEYS)
    middle, of_cpu = statistics.median(by_clock), statistics.median(by_cpu)
    said = f" ({by_clock[0]:.2f} to {by_clock[-1]:.2f}; by the processor {of_cpu:.2f})"
    return (middle, ">=", aim), said


def aims(result: dict[str, Any]) -> dict[str, Any]:
    """What is aimed at, and what came out, printed and returned."""
    found: dict[str, Any] = {}
    ranges: dict[str, str] = {}
    for batch, rows in result.get("tower", {}).items():
        for mine in (name for name in (OURS, LITE, OPENVINO, INT8) if name in rows):
            peers = peers_of(rows, mine)
            if peers:
                best = min(peers, key=lambda name: peers[name])
                found[f"{mine}: tower, batch {batch}, beside {best}"] = (peers[best], ">=", 1.0)
        if batch == "32" and "share_seconds" in rows.get(OURS, {}):
            found["share of the matrix product, batch 32"] = (
                rows[OURS]["share_seconds"],
                ">=",
                0.75,
            )
    for rows in result.get("photo", {}).values():
        for mine in (name for name in (OURS, LITE, OPENVINO) if name in rows):
            for name, ratio in peers_of(rows, mine).items():
                found[f"{mine}: photo, beside {name}"] = (
                    ratio,
                    ">=",
                    4.0 if "documented" in name else 1.0,
                )
    for work in ("tower", "photo", "batch"):
        for size, rows in result.get(work, {}).items():
            session, before = rows.get(SESSION, {}), rows.get(BEFORE[SESSION], {})
            if "ratio" in session and work != "batch":
                found[f"{work} {size}, Session beside in-process"] = (session["ratio"], "<=", 1.05)
            if session and before:
                aim = 1.25 if work == "photo" or size == "1" else 0.97
                name = f"{work} {size}, Session: times before"
                found[name], ranges[name] = times_as_fast(before, session, aim)
    for mine in (LITE, OPENVINO):
        rows = result.get("tower", {}).get("1", {})
        for alone in (BARE[mine], mine.removeprefix("ours, ").lower()):
            if mine in rows and alone in rows:
                name = f"tower 1, {mine}: times {alone}"
                found[name], ranges[name] = times_as_fast(rows[alone], rows[mine], 0.95)
    for name, row in result.get("scaling", {}).items():
        found[f"exponent over {name}"] = (row["seconds"], "<=", 1.1)
    print("\nAims")
    for name, (value, sign, aim) in found.items():
        reached = value >= aim if sign == ">=" else value <= aim
        print(
            f"  {'reached' if reached else 'MISSED '}  {name}: {value:.2f}{ranges.get(name, '')}, aim {sign} {aim:g}"
        )
    return found


def write(result: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "tower.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"Wrote {output}/tower.json")
    if "tower" not in result:
        return
    try:
        picture(result, output / "tower.png")
        print(f"Wrote {output}/tower.png")
    except ImportError:
        print(
            "No picture: matplotlib is missing, it comes with the extra [bench].", file=sys.stderr
        )


def picture(result: dict[str, Any], file: Path) -> None:
    """Bars of images, texts and photos a second."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plot

    panels = {f"images/s, batch {batch}": rows for batch, rows in result["tower"].items()}
    panels |= {f"prompts/s, {count}": rows for count, rows in result.get("text", {}).items()}
    panels |= {
        f"photos/s, {count} classes": rows for count, rows in result.get("photo", {}).items()
    }
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plot.subplots(lines, columns, figsize=(6 * columns, 3.6 * lines), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, rows) in zip(axes.flat, panels.items(), strict=False):
        bars = {name: row["per_second"] for name, row in rows.items() if "per_second" in row}
        colours = ["tab:green" if name.startswith("ours") else "tab:gray" for name in bars]
        axis.bar_label(
            axis.barh(list(bars), list(bars.values()), color=colours),
            fmt="%.1f",
            padding=2,
            fontsize=8,
        )
        axis.set_title(title)
        axis.tick_params(labelsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.15)
    figure.suptitle(f"{result['processor']}, {result['threads']} threads")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
