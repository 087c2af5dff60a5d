"""The files of an export without TensorFlow, in 32 and in 8 bits: their size, pictures per second
at batch 1, and what is left of groups, labels and mIoU.

Each file has a process of its own, which holds the format's runtime and neither TensorFlow nor this
package, with all cores. Rounds are interleaved. Groups and labels are compared with those of the
segmenter in Python, on drawn scenes, whose mIoU means something with the demo checkpoint only.
transformers' model stands beside, exported to ONNX, with masks made as its segmentation_logits.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from engines.process import HERE, Engine, MissingError
from engines.report import machine, medians
from engines.rounds import Bench
from engines.starting import alone, start

PEER = "transformers, ONNX"
COLUMNS = ("File", "MB", "pictures/s (range)", "ms of processor", "groups", "labels", "mIoU")


def segmenter_of(checkpoint: Path | None) -> Any:
    from tf_groupvit.hub import demo_checkpoint
    from tf_groupvit.scenes.scene import CLASSES
    from tf_groupvit.segmentation.segmenter import Segmenter

    return Segmenter.from_pretrained(checkpoint or demo_checkpoint(), list(CLASSES))


def scenes_of(seed: int, count: int, side: int, stream: str = "evaluation") -> list[Any]:
    from tf_groupvit.scenes.scene import scenes

    return list(scenes(seed, count, side, stream))


def owners_of(portable: Any) -> Any:
    """The function of an export that gives the group of each patch (B, P)."""
    import tensorflow as tf

    from tf_groupvit.models.operations import first_argmax
    from tf_groupvit.segmentation.protocol import encode_image

    shape = (portable.batch, *portable.settings.size, 3)

    def owners(pixels: Any) -> dict[str, Any]:
        maps = encode_image(portable.model, portable._normalized(pixels))["maps"][-1]
        found = tf.squeeze(first_argmax(maps, 1), 1)
        return {"owners": tf.reshape(found, (-1, found.shape[1] * found.shape[2]))}

    signature = [tf.TensorSpec(shape, tf.uint8, "pixels")]
    graph = tf.function(owners, input_signature=signature, autograph=False)
    return graph.get_concrete_function()


def written(
    segmenter: Any, folder: Path, format: str, int8: bool, pictures: Sequence[np.ndarray] = ()
) -> Path:
    """An export with a second file, which gives the groups of patches."""
    from tf_groupvit.export.portable import FORMATS, Portable, export_portable, write_file

    export_portable(segmenter, folder, format, int8=int8, calibration=pictures)
    row, portable = FORMATS[format], Portable(segmenter, FORMATS[format].batch)
    name, settings = row.file.format("owners"), folder / "settings.json"
    examples = [{"pixels": one[None]} for one in pictures]
    write_file(row, owners_of(portable), folder / name, int8, examples)
    content = json.loads(settings.read_text())
    content["files"]["owners"] = {"file": name}
    settings.write_text(json.dumps(content))
    return folder


def written_by_transformers(segmenter: Any, checkpoint: Path, folder: Path, python: str) -> Path:
    folder.mkdir()
    texts = segmenter.text_embeds
    np.save(folder / "texts.npy", texts / np.linalg.norm(texts, axis=1, keepdims=True))
    statistics = [segmenter.settings.mean, segmenter.settings.std]
    np.save(folder / "statistics.npy", np.array(statistics, "float32"))
    command = [python, str(HERE / "transformers_to_onnx.py"), str(checkpoint), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(done.stderr.strip().splitlines()[-1])
    return folder


def size_of(folder: Path) -> int:
    """Bytes of the vision file, weights included."""
    return sum(file.stat().st_size for file in folder.rglob("vision*") if file.is_file())


def quality(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], masks: Any) -> Any:
    """Shares of pixels and patches that are as expected, and mIoU."""
    from tf_groupvit.evaluation.scores import ConfusionMatrix
    from tf_groupvit.scenes.scene import CLASSES

    matrix = ConfusionMatrix(list(CLASSES))
    for mask, labels in zip(masks, found["labels"], strict=True):
        matrix.update(mask, labels)
    return {
        "labels": float((found["labels"] == expected["labels"]).mean()),
        "groups": float((found["owners"] == expected["owners"]).mean()),
        "miou": matrix.miou,
    }


def line(name: str, row: dict[str, Any]) -> str:
    """What the table says of a file, for people and for a page."""
    rates, told = row["rates"], row["quality"]
    return (
        f"| {name} | {row['bytes'] / 1e6:.1f} | {row['rate']:.1f} ({rates[0]:.1f} to"
        f" {rates[-1]:.1f}) | {row['cpu_ms']:.1f} | {100 * told['groups']:.2f}% |"
        f" {100 * told['labels']:.2f}% | {told['miou']:.4f} |"
    )


def measure(chosen: argparse.Namespace, place: Path) -> dict[str, Any]:
    from tf_groupvit.errors import ExportError
    from tf_groupvit.export.portable import FORMATS, Portable
    from tf_groupvit.hub import demo_checkpoint

    segmenter = segmenter_of(chosen.checkpoint)
    side = segmenter.settings.size[0]
    drawn = scenes_of(5, chosen.scenes, side)
    squares, masks = np.stack([one.image for one in drawn]), [one.mask for one in drawn]
    labels = np.stack([result.labels for result in segmenter(list(squares))])
    owners = owners_of(Portable(segmenter, None))
    own = [owners(squares[start : start + 8])["owners"] for start in range(0, len(squares), 8)]
    expected = {"labels": labels, "owners": np.concatenate([one.numpy() for one in own])}
    pictures = [one.image for one in scenes_of(6, chosen.calibrated, side, "training")]
    kinds: dict[str, tuple[Any, ...]] = {
        "32 bits": (False,),
        "8 bits": (True,),
        "8 bits, calibrated": (True, pictures),
    }
    makers: dict[str, Any] = {
        f"{row.title}, {bits}": partial(
            written, segmenter, place / f"{format} {bits}", format, *how
        )
        for format, row in FORMATS.items()
        for bits, how in kinds.items()
    }
    makers[PEER] = partial(
        written_by_transformers,
        segmenter,
        chosen.checkpoint or demo_checkpoint(),
        place / "transformers",
        chosen.torch,
    )
    folders, skipped = {}, {}
    for name, make in makers.items():
        try:
            folders[name] = make()
        except (ExportError, MissingError) as error:
            skipped[name] = str(error)
    threads = os.cpu_count() or 1
    result: dict[str, Any] = machine(threads, chosen.rounds)
    engines, missing = start(
        {name: partial(Engine, f"file {name}", at, threads, {}) for name, at in folders.items()}
    )
    bench = Bench(engines, skipped | missing, place, chosen.rounds, lock=chosen.lock)
    found = bench.run(bench.same("look"), warm=2, pixels=squares[:1])
    inputs, outputs = place / "scenes.npz", place / "found.npz"
    np.savez(inputs, pixels=squares)
    result["files"] = {}
    print("\n| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    own_quality = quality(expected, expected, masks)
    print(f"| in Python {'| ' * (len(COLUMNS) - 2)}| {own_quality['miou']:.4f} |")
    for name, timed in found.items():
        with alone(chosen.lock):
            engines[name].ask("look_one_by_one", inputs, outputs)
        rates = sorted(1 / one["seconds"] for one in timed["rounds"])
        result["files"][name] = row = {
            "bytes": size_of(folders[name]),
            "rate": 1 / medians(timed)["seconds"],
            "cpu_ms": 1000 * medians(timed)["cpu"],
            "rates": rates,
            "quality": quality(dict(np.load(outputs)), expected, masks),
        }
        print(line(name, row), flush=True)
        engines[name].close()
    for name, why in bench.skipped.items():
        print(f"skipped {name}: {why}")
    return result | {"python": own_quality, "skipped": bench.skipped}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench formats", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="the demo's where none is given")
    parser.add_argument("--scenes", type=int, default=300, help="default 300")
    parser.add_argument(
        "--calibrated", type=int, default=100, help="scenes that are calibrated on (default 100)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="default 15")
    parser.add_argument(
        "--torch",
        default=sys.executable,
        metavar="PYTHON",
        help="an interpreter that has torch, transformers and onnx (default: this one)",
    )
    parser.add_argument(
        "--lock", type=Path, metavar="FILE", help="hold a lock on this file while files run"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all as JSON, too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench_formats_") as place:
        result = measure(chosen, Path(place))
    if chosen.output:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
