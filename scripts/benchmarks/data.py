"""Images per second of the input pipeline: decoding, augmentation and words of pictures in a
WebDataset shard.

Pictures are JPEG of random scenes, so that no data set is needed; --photos cuts them out of photos,
and --path takes shards of one's own. A training step never waits for its input where it takes fewer
images per second than this: compare with scripts/bench train, and see scripts/bench waiting.

Decoding alone, without words or augmentation, stands beside. The three take turns, so that a busy
machine is busy for all; the processor's time a picture hardly depends on what else runs. Cores that
a device needs: its images per second times that.
"""

import argparse
import io
import json
import os
import random
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

KINDS = ("decoded alone", "plain", "published")
DRAWN = 512  # pictures, which a larger shard repeats
WARM_UP = 3  # batches that trace, and that fill the buffers


def pictures(
    count: int, size: int, photos: Path | None, quality: int
) -> Iterator[tuple[bytes, str]]:
    """JPEG files with captions: cut-outs of photos, their shorter side ``size`` pixels, or scenes."""
    from PIL import Image

    from tf_groupvit.scenes.scene import scenes

    draw = random.Random(0)
    paths = sorted(photos.glob("*.jpg")) if photos else []
    for scene in scenes(0, count):
        image, shape = Image.fromarray(scene.image), (size, size)
        if paths:
            image, shape = Image.open(draw.choice(paths)).convert("RGB"), (size * 4 // 3, size)
            high = round(image.height * draw.uniform(0.6, 0.75))
            wide = high * 4 // 3
            left = draw.randrange(image.width - wide + 1)
            top = draw.randrange(image.height - high + 1)
            image = image.crop((left, top, left + wide, top + high))
        file = io.BytesIO()
        image.resize(shape, Image.Resampling.LANCZOS).save(file, "JPEG", quality=quality)
        yield file.getvalue(), scene.caption


def write_shard(path: Path, pairs: Iterator[tuple[bytes, str]]) -> None:
    with tarfile.open(path, "w") as tar:
        for index, (image, caption) in enumerate(pairs):
            for suffix, data in (("jpg", image), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{index:06d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def batches_of(chosen: argparse.Namespace, path: str, kind: str) -> Iterator[Any]:
    """Batches without an end: of ``TrainingData``, or of pictures that are decoded and no more."""
    import tensorflow as tf

    from tf_groupvit.preprocessing.image_graph import decode
    from tf_groupvit.preprocessing.tokenizer import Tokenizer
    from tf_groupvit.scenes.scene import CLASSES
    from tf_groupvit.training.augment import PLAIN, PUBLISHED
    from tf_groupvit.training.caption_batches import TrainingData
    from tf_groupvit.training.caption_sources import open_pairs, records_of
    from tf_groupvit.training.texts import Prompts, listed_words

    if kind == "decoded alone":
        records = islice(records_of(open_pairs(path)), DRAWN)
        held = tf.data.Dataset.from_tensor_slices([record.load()[0] for record in records])
        sizes = held.repeat().map(lambda file: tf.shape(decode(file)), tf.data.AUTOTUNE)
        return iter(sizes.batch(chosen.batch_size).prefetch(tf.data.AUTOTUNE))
    data = TrainingData(
        open_pairs(path),
        Tokenizer.from_pretrained(chosen.tokenizer),
        size=chosen.size,
        batch_size=chosen.batch_size,
        prompts=Prompts(listed_words(CLASSES)),
        augmentation=PUBLISHED if kind == "published" else PLAIN,
    )
    return iter(data.batches())


def measure(chosen: argparse.Namespace, path: str, kind: str) -> tuple[float, float]:
    """Images per second, and seconds of the processor a picture, after the first few batches."""
    batches = batches_of(chosen, path, kind)
    for _ in range(WARM_UP):
        next(batches)
    began, worked = time.perf_counter(), time.process_time()
    for _ in range(chosen.batches):
        next(batches)
    count = chosen.batches * chosen.batch_size
    return count / (time.perf_counter() - began), (time.process_time() - worked) / count


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench data", description=__doc__)
    tokenizer = Path(__file__).resolve().parents[2] / "tests/golden/tokenizer/vocabularies/trained"
    parser.add_argument(
        "--path", help="shards, or a folder with a captions file, instead of drawn pictures"
    )
    parser.add_argument(
        "--tokenizer", type=Path, default=tokenizer, help="a folder with a tokenizer"
    )
    parser.add_argument(
        "--size", type=int, default=224, help="side of the images in the batch (default 224)"
    )
    parser.add_argument(
        "--photo", type=int, default=400, help="shorter side of the pictures (default 400)"
    )
    parser.add_argument(
        "--photos", type=Path, help="a folder of JPEG to cut pictures out of, 4 to 3"
    )
    parser.add_argument("--quality", type=int, default=90, help="of the JPEG (default 90)")
    parser.add_argument("--count", type=int, help="pictures in the shard (default four batches)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--turns", type=int, default=5, help="of each kind (default 5)")
    parser.add_argument("--batches", type=int, default=10, help="timed ones (default 10)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    turns: dict[str, list[tuple[float, float]]] = {kind: [] for kind in chosen.kinds}
    load, found = [], dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.path
        if path is None:
            path = str(Path(folder) / "shard.tar")
            count = chosen.count or 4 * chosen.batch_size
            made = [*pictures(min(count, DRAWN), chosen.photo, chosen.photos, chosen.quality)]
            write_shard(Path(path), (made[i % len(made)] for i in range(count)))
            found["bytes"] = statistics.mean(len(image) for image, _ in made)
            del made
        for _ in range(chosen.turns):
            for kind, values in turns.items():
                load.append(os.getloadavg()[0])
                values.append(measure(chosen, path, kind))
    # A process of TensorFlow keeps what it had at most; Linux counts in units of 1024 bytes.
    found["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found |= {"turns": turns, "load": load}
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    base = next(iter(turns.values()))
    for kind, values in turns.items():
        rates, worked = zip(*values, strict=True)
        ratio = statistics.median(a / b for a, (b, _) in zip(rates, base, strict=True))
        print(
            f"{kind:14s} {statistics.median(rates):8.1f} images/s ({min(rates):.1f} to {max(rates):.1f}),"
            f" {ratio:.2f} times the first; {1e3 * statistics.median(worked):.2f} ms of the processor"
            f" each ({1e3 * min(worked):.2f} to {1e3 * max(worked):.2f})"
        )
    if "bytes" in found:
        print(f"a picture has {found['bytes'] / 1e3:.1f} kB in the mean")
    print(
        f"(medians of {chosen.turns} turns of {chosen.batches} batches of {chosen.batch_size} at"
        f" {chosen.size} x {chosen.size}; {os.cpu_count()} cores, load {min(load):.1f} to"
        f" {max(load):.1f}; {found['resident'] / 1e9:.2f} GB resident at most)"
    )


if __name__ == "__main__":
    main()
