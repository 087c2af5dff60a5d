"""What the run of recipe published asks of machines: images a second, bytes that are read, sent and
kept, and hours on other devices.

Figures follow from the recipe and the options, but for what a step sends: that is read off its
graph, as two workers trace it at the recipe's batch and model, which takes minutes. With --rows, a
process trains that model instead for --steps of so many pictures, in float32 on a CPU, and writes
its state: its memory is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train import tf_configs

WORKERS = 2  # that trace
PAIRS = 28_663_147


def operations(graph: Any, seen: set[str]) -> Iterator[Any]:
    """Those of a function's graph, and of all functions that it calls, each once."""
    yield from graph.get_operations()
    for name, function in graph._functions.items():
        inner = getattr(function, "graph", None)
        if name not in seen and inner is not None:
            seen.add(name)
            yield from operations(inner, seen)


def worker(chosen: argparse.Namespace) -> None:
    """In a process of its own: print what is known of a step as JSON."""
    import keras
    import tensorflow as tf

    if chosen.rows:  # it takes longer than it saves in a few steps
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    from tf_groupvit import GroupViTConfig, TFGroupViTModel
    from tf_groupvit.training.contrastive_model import TrainingModel
    from tf_groupvit.training.model_setup import compile_for, set_drop_path
    from tf_groupvit.training.recipe import read_recipe
    from tf_groupvit.training.replicas import synchronize
    from tf_groupvit.training.state import save_state, variables_of

    recipe = read_recipe("published", data={"source": "none"}, steps=1000, epochs=0)
    rows = chosen.rows or recipe.batch_size // strategy.num_replicas_in_sync
    precision = "float32" if chosen.rows else recipe.precision
    with strategy.scope():
        model = TFGroupViTModel(GroupViTConfig(), dtype=precision)
        set_drop_path(model, recipe.drop_path)
        training = TrainingModel(model, recipe.losses)
        synchronize(training, strategy.num_replicas_in_sync)
        compile_for(training, recipe)
    S, T = model.config.vision_config.image_height_width[0], recipe.vocabulary.text_length
    specs = {"pixel_values": tf.TensorSpec((rows, 3, S, S), tf.float32)}
    for kind, shape in (("input", (rows, T)), ("label", (rows, recipe.data.word_count, T))):
        mask = "attention_mask" if kind == "input" else "label_mask"
        specs |= dict.fromkeys((f"{kind}_ids", mask), tf.TensorSpec(shape, tf.int32))

    def step(batch: Any) -> None:
        training.train_step(batch)

    traced = tf.function(lambda batch: strategy.run(step, args=(batch,)), autograph=False)
    learned = training.trainable_variables
    found: dict[str, Any] = {"parameters": sum(keras.ops.size(v) for v in learned)}
    kept = variables_of(training).values()
    found["state"] = sum(v.value.dtype.size * v.value.shape.num_elements() for v in kept)
    if chosen.rows:
        batch = {name: tf.ones(spec.shape, spec.dtype) for name, spec in specs.items()}
        for _ in range(chosen.steps):
            traced(batch)
        with tempfile.TemporaryDirectory() as folder:
            save_state(Path(folder) / "state", training, chosen.steps, {})
        status = Path("/proc/self/status").read_text().split()
        found["resident"] = int(status[status.index("VmHWM:") + 1]) * 1024
    else:
        found |= volume(traced.get_concrete_function(specs).graph, found["parameters"])
    print(json.dumps(found, default=int))


def volume(graph: Any, parameters: int) -> dict[str, Any]:
    """Bytes that a step sums over the workers, how often that is all gradients, and operations.

    Those on embeddings have no known size in the graph.
    """
    used: Counter[str] = Counter()
    reduced = 0
    for one in operations(graph, set()):
        if not one.type.startswith("Collective"):
            continue
        used[one.type] += 1
        size = one.inputs[0].shape.num_elements()
        if one.type.startswith("CollectiveReduce") and size is not None:
            reduced += size * one.inputs[0].dtype.size
    return {"reduced": reduced, "times": reduced // (4 * parameters), "operations": used}


def ask(workers: int, *more: str) -> dict[str, Any]:
    """What the first of some workers prints, which are processes of their own."""
    command = [sys.executable, __file__, "--worker", *more]
    processes = [
        subprocess.Popen(
            command,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for variables in tf_configs(workers)
    ]
    said = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        if process.returncode:
            sys.exit(f"A worker failed:\n{errors[-2000:]}")
    found: dict[str, Any] = json.loads(said[0][0].splitlines()[-1])
    return found


def derived(chosen: argparse.Namespace) -> dict[str, Any]:
    """What follows from the recipe, the number of pairs, and how long it took."""
    from tf_groupvit.training.recipe import read_recipe

    recipe = read_recipe("published", data={"source": "none"})
    images, seconds = recipe.epochs * PAIRS, 3600 * chosen.hours
    steps = images // recipe.batch_size
    return {
        "images": images,
        "images_per_second": images / seconds,
        "per_device": images / seconds / chosen.devices,
        "steps": steps,
        "steps_per_second": steps / seconds,
        "seconds_per_step": seconds / steps,
        "batch": recipe.batch_size,
        # Images, captions and the words' prompts in the shared space, float32.
        "embeddings": 4 * 256 * recipe.batch_size * (2 + recipe.data.word_count),
    }


def sent(found: dict[str, Any], counted: dict[str, Any], devices: int) -> dict[str, float]:
    """Bytes that each device sends in a step, around a ring."""
    share = (devices - 1) / devices
    return {
        "gradients, summed": 2 * share * counted["reduced"],
        "embeddings, gathered": share * found["embeddings"],
        "their gradients, summed": 2 * share * found["embeddings"],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench published_run", description=__doc__)
    parser.add_argument("--hours", type=float, default=48, help="that the run took (default 48)")
    parser.add_argument("--devices", type=int, default=16, help="that it took (default 16)")
    parser.add_argument(
        "--kilobytes",
        type=float,
        nargs="+",
        default=[42.8, 93.4],
        help="of an encoded picture; several for several rows (default 42.8 93.4)",
    )
    parser.add_argument(
        "--rows", type=int, default=0, help="of a worker that trains, for its memory"
    )
    parser.add_argument("--steps", type=int, default=2, help="of that training (default 2)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    if chosen.worker:
        worker(chosen)
        return
    if chosen.rows:
        memory = ask(1, "--rows", str(chosen.rows), "--steps", str(chosen.steps))
        shown = f"{memory['resident'] / 1e9:.2f} GB resident at most, a state of {memory['state'] / 1e6:,.1f} MB"
        print(json.dumps(memory, indent=2) if chosen.json else shown)
        return
    found, counted = derived(chosen), ask(WORKERS)
    found |= {"counted": counted, "sent": sent(found, counted, chosen.devices)}
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['images']:,} images, {found['steps']:,} steps of {found['batch']:,}")
    print(
        f"{found['images_per_second']:,.0f} images/s, {found['per_device']:,.1f} a device of"
        f" {chosen.devices}; a step in {found['seconds_per_step']:.3f} s"
    )
    for kilobytes in chosen.kilobytes:
        rate, all_pairs = kilobytes * 1e3 * found["images_per_second"], kilobytes * 1e3 * PAIRS
        print(
            f"{kilobytes:g} kB a picture: {rate / 1e6:,.0f} MB/s ({rate * 8 / 1e9:.2f} Gbit/s),"
            f" {all_pairs / 1e12:.2f} TB an epoch"
        )
    print(f"{counted['parameters']:,} parameters; a state has {counted['state'] / 1e6:,.1f} MB")
    print(
        f"a step sums {counted['reduced'] / 1e6:,.1f} MB over the workers, all gradients"
        f" {counted['times']} times; operations: {counted['operations']}"
    )
    for name, size in found["sent"].items():
        speed = size * 8 * found["steps_per_second"] / 1e9
        print(f"sent, {name}: {size / 1e6:,.1f} MB a device and step, {speed:.2f} Gbit/s")


if __name__ == "__main__":
    main()
