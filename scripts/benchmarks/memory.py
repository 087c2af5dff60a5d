"""A checkpoint in; the memory that an exported model takes at most for one picture, by the
picture's size, out.

    scripts/bench memory [FOLDER] [--export VERSION_FOLDER] [--mode whole|window] [--megapixels 1 12
    50 81]

Each picture is asked for in a process of its own, a session that holds TensorFlow and the model and
nothing else (that of tests and of ``export --check``), after a small picture has warmed it up.
Linux alone tells a process' peak.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = "person, dog, cat, car, tree, grass, sky, water, road, building"
SIZES = {1: (1200, 800), 12: (4000, 3000), 50: (8660, 5773), 81: (9000, 9000)}  # by megapixels
# In the session's process: load, ask for the small picture, then for the large one, and say what
# that took.
ASK = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("replay", sys.argv[1])
replay = importlib.util.module_from_spec(spec); spec.loader.exec_module(replay)
import numpy as np
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024
model = replay.Model(sys.argv[2])
def ask(path):
    answer = model.answer("segment", {"image_bytes": np.array([open(path, "rb").read()], object)})
    assert answer["error"] is None and not any(answer["outputs"].get("error", [])), answer
    return answer["seconds"]
ask(sys.argv[3])
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted anew
seconds = ask(sys.argv[4])
print(f"{before:.0f} {status('VmHWM') - before:.0f} {status('VmRSS') - before:.0f} {seconds:.1f}")
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench memory", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "folder", nargs="?", help="a checkpoint with its tokenizer; the demo unless given"
    )
    parser.add_argument("--export", type=Path, help="a version that is exported already")
    parser.add_argument("--mode", default="whole")
    parser.add_argument("--megapixels", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench_memory_") as folder:
        version = options.export or exported(options.folder, options.mode, folder)
        small = written(picture(60, 40), Path(folder, "small.png"))
        print("picture: held before, at most more, more afterwards (MiB); time")
        for name, image, kind in pictures(options.megapixels):
            path = written(image, Path(folder, f"large.{kind}"))
            print(f"{name}: {asked(version, small, path)}", flush=True)


def exported(checkpoint: str | None, mode: str, folder: str) -> Path:
    from tf_groupvit.export import export_saved_model
    from tf_groupvit.hub import demo_checkpoint
    from tf_groupvit.segmentation.segmenter import Segmenter

    source = checkpoint or str(demo_checkpoint())
    segmenter = Segmenter.from_pretrained(source, classes=CLASSES, background=0.9, mode=mode)
    path: Path = export_saved_model(segmenter, Path(folder, "model"))
    return path


def picture(width: int, height: int) -> Image.Image:
    """Blocks of color with soft edges and some noise, as in photos."""
    random = np.random.default_rng(0)
    blocks = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    fine = Image.fromarray(random.integers(0, 256, (600, 800, 3), np.uint8))
    size = (width, height)
    return Image.blend(blocks.resize(size, Image.Resampling.BICUBIC), fine.resize(size), 0.1)


def pictures(sizes: list[int]) -> Iterator[tuple[str, Image.Image, str]]:
    """Name, picture, and the ending of its file's name."""
    for megapixels in sizes:
        image = picture(*SIZES[megapixels])
        for kind in ("jpg", "png"):
            yield f"{megapixels} megapixels, {kind}", image, kind
        yield f"{megapixels} megapixels, png of one bit", image.convert("1"), "png"


def written(image: Image.Image, path: Path) -> Path:
    content = io.BytesIO()
    options = {"quality": 90} if path.suffix == ".jpg" else {"compress_level": 1}
    image.save(content, {".jpg": "JPEG", ".png": "PNG"}[path.suffix], **options)
    path.write_bytes(content.getvalue())
    return path


def asked(version: Path, small: Path, large: Path) -> str:
    from tf_groupvit.export import replay

    command = [
        sys.executable,
        "-I",
        "-c",
        ASK,
        str(replay.__file__),
        str(version),
        str(small),
        str(large),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1]}"
    before, most, after, seconds = done.stdout.split()
    return f"{before}, {most}, {after}; {seconds} s"


if __name__ == "__main__":
    main()
