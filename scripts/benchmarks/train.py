"""Images per second of a training step, beside transformers' PyTorch class: same sizes, same loss,
same run.

A step is forward, the contrastive loss, backward, clipping and AdamW. Each side runs in a process
of its own with as many threads, or, as two workers, in two processes with half of the batch and of
the threads each. They take turns, so that a busy machine is busy for all. The median of the turns
counts; the lowest and the highest turn, and how busy the machine was, are printed with it.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "demo": dict(batch=64, width=64, depths=[2, 0], tokens=[16, 0], groups=[16, 16], heads=4, image=60, patch=6,
                 text=64, layers=1, vocabulary=800, length=24, projection=64, hidden=256),
    "published": dict(batch=8, width=384, depths=[6, 3, 3], tokens=[64, 8, 0], groups=[64, 8, 8], heads=6, image=224,
                      patch=16, text=256, layers=12, vocabulary=49408, length=77, projection=256, hidden=4096),
}  # fmt: skip

# Runs in the measured process, once for each side: sizes as JSON, steps, threads. Prints seconds of
# each step.
SHARED = """
import json, sys, time
import numpy as np
size, steps, threads = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
B, T, end = size["batch"], size["length"], size["vocabulary"] - 1
pixels = rng.standard_normal((B, 3, size["image"], size["image"]), np.float32)
ids = rng.integers(1, end, (B, T))
ids[:, -1] = end
mask = np.ones((B, T), np.int64)
vision = dict(hidden_size=size["width"], intermediate_size=4 * size["width"], num_hidden_layers=sum(size["depths"]),
              depths=size["depths"], num_group_tokens=size["tokens"], num_output_groups=size["groups"],
              num_attention_heads=size["heads"], image_size=size["image"], patch_size=size["patch"])
text = dict(vocab_size=end + 1, hidden_size=size["text"], intermediate_size=4 * size["text"],
            num_hidden_layers=size["layers"], num_attention_heads=4, max_position_embeddings=max(T, 77),
            bos_token_id=end - 1, eos_token_id=end)
joint = dict(projection_dim=size["projection"], projection_intermediate_dim=size["hidden"])
def timed(step):
    for _ in range(3):
        step()
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps(seconds))
"""

OURS = """
import keras, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(threads)
from tf_groupvit import GroupViTConfig, TFGroupViTModel
from tf_groupvit.training.model_setup import adamw
from tf_groupvit.training.contrastive_model import TrainingModel
config = GroupViTConfig.from_dict(dict(vision_config=vision, text_config=text, **joint))
training = TrainingModel(TFGroupViTModel(config))
training.compile(adamw(training, 1e-4))
batch = dict(pixel_values=pixels, input_ids=ids.astype("int32"), attention_mask=mask.astype("int32"))
batch = {name: tf.constant(value) for name, value in batch.items()}
dataset = iter(tf.data.Dataset.from_tensors(batch).repeat())
training.make_train_function()
timed(lambda: float(training.train_function(dataset)["loss"]))
"""

WORKERS = 2
OF_WORKERS = """
import keras, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(threads)
strategy = tf.distribute.MultiWorkerMirroredStrategy()
from tf_groupvit import GroupViTConfig, TFGroupViTModel
from tf_groupvit.training.model_setup import adamw
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.replicas import make_step, synchronize
config = GroupViTConfig.from_dict(dict(vision_config=vision, text_config=text, **joint))
with strategy.scope():
    training = TrainingModel(TFGroupViTModel(config))
    synchronize(training, strategy.num_replicas_in_sync)
    training.compile(adamw(training, 1e-4))
    training.optimizer.build(training.trainable_variables)
own = slice(strategy.cluster_resolver.task_id, None, strategy.num_replicas_in_sync)
batch = dict(pixel_values=pixels, input_ids=ids.astype("int32"), attention_mask=mask.astype("int32"))
batch = {name: tf.constant(value[own]) for name, value in batch.items()}
given = strategy.experimental_distribute_values_from_function(lambda _: batch)
step = make_step(strategy, training)
timed(lambda: step(given))
"""

PEER = """
import torch
from transformers import GroupViTConfig, GroupViTModel
torch.set_num_threads(threads)
config = GroupViTConfig(text_config=text, vision_config=vision, **joint)
model = GroupViTModel(config).train()
bare = [p for p in model.parameters() if p.ndim < 2]
rest = [p for p in model.parameters() if p.ndim >= 2]
optimizer = torch.optim.AdamW([dict(params=rest, weight_decay=0.05), dict(params=bare, weight_decay=0.0)], lr=1e-4)
batch = dict(pixel_values=torch.tensor(pixels), input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
def step():
    loss = model(**batch, return_loss=True).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss)
timed(step)
"""


def measure(
    python: str, side: str, size: dict, steps: int, threads: int, workers: int = 1
) -> list[float]:
    """Seconds of each step of one side, in fresh processes: those of the first."""
    processes = []
    for variables in tf_configs(workers):
        share = str(max(1, threads // workers))
        command = [python, "-c", SHARED + side, json.dumps(size), str(steps), share]
        processes.append(
            subprocess.Popen(
                command,
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        if process.returncode:
            sys.exit(f"A measurement failed:\n{errors[-2000:]}")
    return json.loads(said[0][0].splitlines()[-1])


def tf_configs(workers: int) -> list[dict[str, str]]:
    """What each worker has in its environment; nothing for one."""
    if workers == 1:
        return [{}]
    sockets = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    hosts = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    tasks = [{"type": "worker", "index": index} for index in range(workers)]
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": hosts}, "task": task})} for task in tasks
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench train", description=__doc__)
    parser.add_argument(
        "--size", choices=SIZES, default="demo", help="of the model and batch (default demo)"
    )
    parser.add_argument("--steps", type=int, default=10, help="timed in each turn (default 10)")
    parser.add_argument("--turns", type=int, default=5, help="of each side (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="of each side (default 2)")
    parser.add_argument(
        "--peer",
        default=sys.executable,
        help="a Python with the extra [bench]: torch, transformers",
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    size = SIZES[chosen.size]
    sides: dict[str, tuple[str, str, int]] = {
        "tf_groupvit": (sys.executable, OURS, 1),
        f"{WORKERS} workers": (sys.executable, OF_WORKERS, WORKERS),
        "transformers": (chosen.peer, PEER, 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    load = []
    for _ in range(chosen.turns):
        for name, (python, side, workers) in sides.items():
            load.append(os.getloadavg()[0])
            seconds = measure(python, side, size, chosen.steps, chosen.threads, workers)
            rates[name].append(size["batch"] / statistics.median(seconds))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    peer = medians["transformers"]
    ratios = {name: median / peer for name, median in medians.items()}
    if chosen.json:
        found = {"size": chosen.size, "images_per_second": medians, "turns": rates}
        found |= {"ratio": ratios["tf_groupvit"], "ratios": ratios, "load": load}
        print(json.dumps(found, indent=2))
        return
    for name, turns in rates.items():
        print(
            f"{name:14s} {medians[name]:8.1f} images/s ({min(turns):.1f} to {max(turns):.1f}),"
            f" {ratios[name]:.2f} times transformers"
        )
    print(
        f"(medians of {chosen.turns} turns of {chosen.steps} steps, {chosen.threads} threads; load of"
        f" the machine before each turn {min(load):.1f} to {max(load):.1f})"
    )


if __name__ == "__main__":
    main()
