"""Images per second of the input pipeline: decoding, augmentation and words of pictures in a
WebDataset shard.

Pictures are JPEG of random scenes, so that no data set is needed; --path takes shards of one's own.
A training step never waits for its input where it takes fewer images per second than this: compare
with scripts/bench train.
"""

import argparse
import io
import json
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

AUGMENTED = {"plain": False, "published": True}


def write_shard(path: Path, count: int, size: int) -> None:
    """A shard of scenes, scaled up to photos of ``size`` x ``size`` pixels."""
    from PIL import Image

    from tf_groupvit.scenes.scene import scenes

    with tarfile.open(path, "w") as tar:
        for index, scene in enumerate(scenes(0, count)):
            file = io.BytesIO()
            Image.fromarray(scene.image).resize((size, size)).save(file, "JPEG", quality=90)
            for name, data in (
                (f"{index:06d}.jpg", file.getvalue()),
                (f"{index:06d}.txt", scene.caption.encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def measure(chosen: argparse.Namespace, path: str, published: bool) -> float:
    """Images per second over --batches batches, after the first few."""
    from tf_groupvit.preprocessing.tokenizer import Tokenizer
    from tf_groupvit.scenes.scene import CLASSES
    from tf_groupvit.training.augment import PLAIN, PUBLISHED
    from tf_groupvit.training.caption_batches import TrainingData
    from tf_groupvit.training.caption_sources import open_pairs
    from tf_groupvit.training.texts import Prompts, listed_words

    data = TrainingData(
        open_pairs(path),
        Tokenizer.from_pretrained(chosen.tokenizer),
        size=chosen.size,
        batch_size=chosen.batch_size,
        prompts=Prompts(listed_words(CLASSES)),
        augmentation=PUBLISHED if published else PLAIN,
    )
    batches = iter(data.batches())
    for _ in range(3):
        next(batches)
    began = time.perf_counter()
    for _ in range(chosen.batches):
        next(batches)
    return chosen.batches * chosen.batch_size / (time.perf_counter() - began)


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
        "--photo", type=int, default=400, help="side of the drawn pictures (default 400)"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=10, help="timed ones (default 10)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.path
        if path is None:
            path = str(Path(folder) / "shard.tar")
            write_shard(Path(path), 4 * chosen.batch_size, chosen.photo)
        for name, published in AUGMENTED.items():
            found[name] = measure(chosen, path, published)
            if not chosen.json:
                print(
                    f"{name:10s} {found[name]:8.1f} images/s at {chosen.size}x{chosen.size}",
                    flush=True,
                )
    if chosen.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
