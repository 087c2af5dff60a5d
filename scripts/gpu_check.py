"""Labels on a GPU compared with the CPU's, and memory watched; `scripts/gpu` runs this in its
environment.

Each device has a process of its own, which sees no other. TensorFlow computes float32 products in
TF32 on newer GPUs, with about three decimal digits: the comparison turns that off, and a second
one, which is only printed, leaves it on.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, dict[str, Any]] = {
    "whole": {},
    "window": {"mode": "window"},
    "transformers": {"protocol": "hf"},
    "background": {"background": 0.5},
}
LEAST_EQUAL = 0.999  # of the pixels: sums in another order flip some where two classes are level
WARM = 40  # images before memory is first read: traces, kernels and pools are made in these
MOST_GROWTH = {"GPU": 8, "process": 96}  # MiB over the images that follow
SIZES = ((224, 224), (480, 640), (333, 500), (1080, 1920))


def pictures() -> list[np.ndarray]:
    """Twenty drawn scenes, and noise of several sizes: uint8 (H, W, 3) each."""
    from tf_groupvit.scenes.scene import scene

    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    return [scene(7, number, 256).image for number in range(20)] + noise


def checkpoints(model: str | None) -> Iterator[tuple[str, str]]:
    """Name and place of each checkpoint that is compared."""
    if model:
        yield model, model
        return
    sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
    from checkpoint import checkpoint_at

    from tf_groupvit.hub import demo_checkpoint

    yield "demo", str(demo_checkpoint())
    yield "published size, random weights", str(checkpoint_at())


def write_labels(output: Path, model: str | None) -> None:
    """The labels of every checkpoint, setting and picture, into one .npz file."""
    from tf_groupvit import Segmenter
    from tf_groupvit.scenes.scene import CLASSES

    found: dict[str, Any] = {}
    for name, place in checkpoints(model):
        for setting, choices in SETTINGS.items():
            segmenter = Segmenter.from_pretrained(place, classes=list(CLASSES), **choices)
            for number, result in enumerate(segmenter(pictures())):
                found[f"{name}, {setting}, {number:02d}"] = result.labels
            print(f"  {name}, {setting}", file=sys.stderr)
    np.savez(output, **found)


def labels_on(device: str, tf32: bool, model: str | None) -> dict[str, np.ndarray]:
    """Run this script again in a process that sees one kind of device."""
    print(f"Segmenting on {device}{' with TF32' if tf32 else ''} ...", file=sys.stderr)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if device == "CPU":
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "labels.npz")
        command = [sys.executable, __file__, "--write-labels", str(file)]
        command += ["--tf32"] * tf32 + (["--model", model] if model else [])
        subprocess.run(command, check=True, env=environment)
        with np.load(file) as content:
            return dict(content)


def compare(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """For each checkpoint and setting the share of equal pixels, picture by picture."""
    equal: dict[str, list[float]] = {}
    for name, labels in one.items():
        equal.setdefault(name.rpartition(", ")[0], []).append(float(np.mean(labels == other[name])))
    return equal


def print_shares(title: str, equal: dict[str, list[float]]) -> bool:
    """Print a line for each setting; whether every picture of every setting has enough equal
    pixels.
    """
    print(f"\n{title}: equal pixels, mean and worst picture")
    for name, shares in equal.items():
        print(f"  {name:50} {np.mean(shares):.5f} {min(shares):.5f}")
    return min(map(min, equal.values())) >= LEAST_EQUAL


def memory() -> dict[str, float]:
    """MiB in use on the GPU, if TensorFlow sees one, and of this process."""
    import tensorflow as tf

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    found = {"process": pages * os.sysconf("SC_PAGE_SIZE") / 2**20}
    if tf.config.list_physical_devices("GPU"):
        found["GPU"] = tf.config.experimental.get_memory_info("GPU:0")["current"] / 2**20
    return found


def watch_memory(images: int, model: str | None) -> bool:
    """Segment images of random sizes, print the memory now and then; whether it stayed."""
    from tf_groupvit import Segmenter

    place = model or dict(checkpoints(None))["demo"]
    segmenter = Segmenter.from_pretrained(place, classes=["grass", "sky", "star", "tree"])
    random = np.random.default_rng(1)
    first: dict[str, float] = {}
    began = time.monotonic()
    print(f"\nMemory over {images} images of sizes from 64 to 1,024 pixels, in MiB")
    for number in range(WARM + images + 1):
        if number >= WARM and (number - WARM) % max(images // 6, 1) == 0:
            now = memory()
            first = first or now
            told = ", ".join(f"{name} {size:.0f}" for name, size in now.items())
            print(f"  after {number:4d} images, {time.monotonic() - began:4.0f} s: {told}")
        height, width = random.integers(64, 1025, 2)
        segmenter(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).labels  # noqa: B018
    last = memory()
    return all(last[name] - first[name] <= MOST_GROWTH[name] for name in last)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/gpu", description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--model")
    parser.add_argument("--write-labels", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tf32", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(chosen.tf32)
    if chosen.write_labels:
        write_labels(chosen.write_labels, chosen.model)
        return
    if not chosen.cpu and not tf.config.list_physical_devices("GPU"):
        raise SystemExit(
            "nvidia-smi lists a GPU, but TensorFlow sees none: its CUDA libraries do not load."
        )
    device = "CPU" if chosen.cpu else "GPU"
    expected = labels_on("CPU", False, chosen.model)
    same = print_shares(
        f"{device} and CPU", compare(labels_on(device, False, chosen.model), expected)
    )
    if device == "GPU":
        print_shares(
            "GPU with TF32 and CPU", compare(labels_on(device, True, chosen.model), expected)
        )
    stays = watch_memory(chosen.images, chosen.model)
    print(f"\nLabels {'agree' if same else 'DIFFER'}; memory {'stays' if stays else 'GROWS'}.")
    raise SystemExit(not (same and stays))


if __name__ == "__main__":
    main()
