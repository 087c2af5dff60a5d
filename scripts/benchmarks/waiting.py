"""The share of a training's time in which a step waits for its batch: 0 where the input keeps ahead
of it.

Takes a recipe and data as tf-groupvit train does, and trains for some steps. Input is made on the
same cores as the step runs on: what it takes there shows in the time of a step, which is also
measured on one batch, again and again.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WARM_UP = 3  # steps that trace, and that find the buffers full


def measure(
    step: Callable[[Any], None], batches: Iterator[Any], steps: int
) -> tuple[list[float], list[float]]:
    """Seconds that each step waited for its batch, and that it then took."""
    for _ in range(WARM_UP):
        step(next(batches))
    waits, works = [], []
    for _ in range(steps):
        began = time.perf_counter()
        batch = next(batches)
        came = time.perf_counter()
        step(batch)
        waits.append(came - began)
        works.append(time.perf_counter() - came)
    return waits, works


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench waiting", description=__doc__)
    parser.add_argument(
        "--recipe", default="demo", help="demo, finetune, or a TOML file (default demo)"
    )
    parser.add_argument(
        "--data", help="a folder with captions, shards or TFRecord files, instead of the recipe's"
    )
    parser.add_argument("--model", help="the checkpoint to begin at, instead of the recipe's")
    parser.add_argument("--steps", type=int, default=30, help="timed ones (default 30)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def measured(chosen: argparse.Namespace) -> dict[str, float]:
    import tensorflow as tf

    from tf_groupvit.training.recipe import read_recipe
    from tf_groupvit.training.trainer import build

    changes: dict[str, Any] = {"data": {"source": chosen.data}} if chosen.data else {}
    if chosen.model:
        changes["start"] = {"checkpoint": chosen.model}
    with tempfile.TemporaryDirectory() as folder:
        run = build(read_recipe(chosen.recipe, **changes), Path(folder))
        traced = tf.function(run.training.train_step)

        def step(batch: Any) -> None:
            float(traced(batch)["loss"])

        batches = iter(run.data.batches())
        waits, works = measure(step, batches, chosen.steps)
        same = next(batches)
        del batches  # and with it what was made ahead
        _, alone = measure(step, iter(tf.data.Dataset.from_tensors(same).repeat()), chosen.steps)
    total = sum(waits) + sum(works)
    return {
        "share_waited": sum(waits) / total,
        "images_per_second": chosen.steps * run.recipe.batch_size / total,
        "wait": statistics.median(waits),
        "step": statistics.median(works),
        "step_on_one_batch": statistics.median(alone),
    }


def main() -> None:
    chosen = arguments()
    found = measured(chosen)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"waiting for a batch  {100 * found['share_waited']:5.1f} % of the time,"
        f" {found['wait']:.4f} s in the median"
    )
    print(
        f"a step               {found['step']:7.3f} s; {found['step_on_one_batch']:.3f} s on one"
        " batch, again and again"
    )
    print(f"together             {found['images_per_second']:7.1f} images/s")


if __name__ == "__main__":
    main()
