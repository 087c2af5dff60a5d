"""A checkpoint folder and a photo in; what an export of it costs, on disk, in time, in memory and
on the wire, out.

    scripts/bench export FOLDER [PHOTO] [--mode whole|window] [--rounds 10]

Session and Python side take turns in the same run, on the same images; latencies are medians. The
session's process is the one of tests and of ``--check``, which holds TensorFlow and the model and
nothing else.
"""

import argparse
import base64
import io
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = "person, dog, cat, car, tree, grass, sky, water, road, building"
# In the session's process: load, warm up, answer as it is asked to, and say how much memory it has.
LOOP = """
import importlib.util, os, pickle, sys, time
out = os.fdopen(os.dup(1), "wb"); os.dup2(2, 1)
spec = importlib.util.spec_from_file_location("replay", sys.argv[1])
replay = importlib.util.module_from_spec(spec); spec.loader.exec_module(replay)
memory = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def say(value): pickle.dump(value, out); out.flush()
before, started = memory(), time.perf_counter()
model = replay.Model(sys.argv[2])
say((time.perf_counter() - started, memory() - before))
def answer(*request):
    began = time.process_time()
    return model.answer(*request) | {"cpu": time.process_time() - began}
answers = [answer(*request) for request in pickle.load(sys.stdin.buffer)]
assert all(one["error"] is None for one in answers)
say(([{key: one[key] for key in ("signature", "seconds", "cpu")} for one in answers], memory()))
while True:
    try: request = pickle.load(sys.stdin.buffer)
    except EOFError: break
    say(answer(*request))
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench export", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", help="a checkpoint with its tokenizer")
    parser.add_argument("photo", nargs="?", help="an image; a drawn one unless given")
    parser.add_argument("--mode", default="whole")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(arguments)
    from tf_groupvit.export import export_saved_model
    from tf_groupvit.segmentation.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(
        options.folder, classes=CLASSES, background=0.9, mode=options.mode
    )
    photo = as_jpeg(options.photo)
    with tempfile.TemporaryDirectory(prefix="bench_export_") as base:
        started = time.perf_counter()
        path = export_saved_model(segmenter, base)
        print(f"export: {time.perf_counter() - started:.1f} s")
        print_sizes(path, segmenter)
        with Session(path) as session:
            print_latencies(session, segmenter, photo, options.rounds)
            print_answer(session, photo)


def as_jpeg(photo: str | None) -> bytes:
    """The photo, or a drawn picture, at 640x480."""
    blocks = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))
    content, picture = io.BytesIO(), Image.open(photo) if photo else blocks
    picture.convert("RGB").resize((640, 480), Image.Resampling.BICUBIC).save(
        content, "JPEG", quality=90
    )
    return content.getvalue()


def print_sizes(path: Path, segmenter: Any) -> None:
    weights = sum(v.numpy().nbytes for v in segmenter.model.weights)
    total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    graph = (path / "saved_model.pb").stat().st_size
    print(
        f"on disk: {total:,} bytes, {total / weights:.3f} times the weights; the graph alone"
        f" {graph:,}"
    )


class Session:
    """The export in a process of its own."""

    def __init__(self, path: Path) -> None:
        from tf_groupvit.export import replay
        from tf_groupvit.export.version_folder import read_warmup

        command = [sys.executable, "-I", "-c", LOOP, str(replay.__file__), str(path)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.send(read_warmup(path))

    def __enter__(self) -> "Session":
        seconds, held = self.hear()
        print(f"load: {seconds:.1f} s, {held / 2**20:.0f} MiB more than TensorFlow alone")
        answers, held = self.hear()
        first = {
            one["signature"]: one for one in reversed(answers)
        }  # a graph is optimised when it is first run
        for name, one in reversed(first.items()):
            print(f"first run of {name}: {one['seconds']:.1f} s, {one['cpu']:.1f} s of a core")
        seconds = sum(one["seconds"] for one in answers)
        print(f"warm-up of all signatures: {seconds:.1f} s; {held / 2**20:.0f} MiB in all then")
        return self

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return pickle.load(self.process.stdout)

    def send(self, value: Any) -> None:
        assert self.process.stdin is not None
        pickle.dump(value, self.process.stdin)
        self.process.stdin.flush()

    def ask(self, signature: str, inputs: dict[str, np.ndarray]) -> dict:
        self.send((signature, inputs))
        return self.hear()

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def print_latencies(session: Session, segmenter: Any, photo: bytes, rounds: int) -> None:
    for count in (1, 8):
        images = {"image_bytes": np.array([photo] * count, object)}
        theirs, ours, cores = [], [], []
        for _ in range(rounds + 1):
            answer = session.ask("serving_default", images)
            theirs.append(answer["seconds"])
            cores.append(answer["cpu"])
            started = time.perf_counter()
            segmenter([photo] * count)
            ours.append(time.perf_counter() - started)
        there, here = (1000 * statistics.median(seconds[1:]) for seconds in (theirs, ours))
        each = 1000 * statistics.median(cores[1:]) / count
        print(
            f"batch {count}: session {there:.0f} ms, Python side {here:.0f} ms, {there / here:.2f}"
            f" times; {each:.0f} ms of a core for each image in the session"
        )


def print_answer(session: Session, photo: bytes) -> None:
    """The bytes of a REST answer to one 640x480 image."""
    outputs = session.ask("serving_default", {"image_bytes": np.array([photo], object)})["outputs"]
    row = {
        "mask_bytes": {"b64": base64.b64encode(outputs["mask_bytes"][0]).decode()},
        "class_scores": outputs["class_scores"][0].tolist(),
        "class_areas": outputs["class_areas"][0].tolist(),
        "class_names": [name.decode() for name in outputs["class_names"][0]],
        "error": outputs["error"][0].decode(),
    }
    print(f"answer to a 640x480 image: {len(json.dumps({'predictions': [row]})):,} bytes of JSON")


if __name__ == "__main__":
    main()
