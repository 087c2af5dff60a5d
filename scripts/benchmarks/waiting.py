"""The share of a training's time in which a step waits for its batch: 0 where the input keeps ahead
of it.

Takes a recipe and data as tf-groupvit train does, and trains for some steps. Input is made on the
same cores as the step runs on: what it takes there shows in the time of a step, which is also
measured on one batch, again and again.

With --times, no model computes: a step sleeps for as long as a device would take that is so many
times as fast as the input is here, as that of one beside these cores would. An input that is as fast
as it would ideally be makes it wait for 1 - 1 / times of the time, from 1 on; not at all below.
"""

import argparse
import json
import os
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
    parser.add_argument(
        "--times", type=float, nargs="+", help="speeds of a device, the input's being 1"
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def built(chosen: argparse.Namespace, folder: str) -> Any:
    from tf_groupvit.training.recipe import read_recipe
    from tf_groupvit.training.trainer import build

    changes: dict[str, Any] = {"data": {"source": chosen.data}} if chosen.data else {}
    if chosen.model:
        changes["start"] = {"checkpoint": chosen.model}
    return build(read_recipe(chosen.recipe, **changes), Path(folder))


def asleep(seconds: float) -> Callable[[Any], None]:
    """A step that leaves the cores alone."""
    return lambda batch: time.sleep(seconds)


def beside_devices(chosen: argparse.Namespace) -> dict[str, float]:
    """Images per second that the input gives, and the share waited for each of --times."""
    with tempfile.TemporaryDirectory() as folder:
        run = built(chosen, folder)
        batches, found, rates = iter(run.data.batches()), dict[str, float](), []
        measure(asleep(0), batches, chosen.steps)  # empties what was made before
        for times in sorted(chosen.times, reverse=True):  # the slower ones let buffers fill
            waits, _ = measure(asleep(0), batches, chosen.steps)
            pace = sum(waits) / len(waits)  # seconds a batch, as busy as the machine is now
            rates.append(run.recipe.batch_size / pace)
            waits, works = measure(asleep(pace / times), batches, chosen.steps)
            found[f"share_waited_at_{times:g}"] = sum(waits) / (sum(waits) + sum(works))
        found["images_per_second"] = statistics.median(rates)
    return found


def measured(chosen: argparse.Namespace) -> dict[str, float]:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        run = built(chosen, folder)
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
    load = os.getloadavg()[0]
    found = beside_devices(chosen) if chosen.times else measured(chosen)
    found |= {"load_before": load, "load_after": os.getloadavg()[0]}
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(f"load {load:.1f} before, {found['load_after']:.1f} after; {os.cpu_count()} cores")
    if chosen.times:
        print(f"the input alone      {found['images_per_second']:7.1f} images/s")
        for times in chosen.times:
            share, ideal = found[f"share_waited_at_{times:g}"], max(0, 1 - 1 / times)
            print(
                f"{times:g} times as fast: waits {100 * share:.0f} % of the time; ideally {100 * ideal:.0f} %"
            )
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
