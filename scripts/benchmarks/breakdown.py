"""Where the time of one image goes in the folded image tower, kind by kind of operation, against
the floor.

One thread, as a server's session runs it after TensorFlow's optimizer; each operation's time is its
least over the rounds, so that other work on the machine counts little. The floor is what the
tower's sums would take at the rate of a 2048-cubed matrix product, measured in the same process.
"""

import argparse
import collections
import time
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint import checkpoint_at

from tf_groupvit.cli.kernels import prefer_onednn

# of an image of 224 x 224, as the published model computes it; at larger sides without attention's
# square
GFLOP = 7.94


def frozen(folder: Path) -> Any:
    """The folded tower as a function of pixels whose weights are constants."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from tf_groupvit import TFGroupViTModel

    model = TFGroupViTModel.from_pretrained(folder).optimized()
    spec = [tf.TensorSpec([None, 3, None, None])]
    look = tf.function(
        lambda pixels: model.vision_model(pixels).last_hidden_state, input_signature=spec
    )
    return convert_variables_to_constants_v2(look.get_concrete_function())


def gemm_rate(session: Any, rounds: int) -> float:
    """GFLOP/s of one thread in a 2048-cubed product."""
    import tensorflow as tf

    square = np.random.default_rng(0).normal(size=(2048, 2048)).astype("float32")
    given = tf.compat.v1.placeholder(tf.float32, square.shape)  # of constants it would be made once
    product = tf.matmul(given, given)[0, 0]
    best = float("inf")
    for _ in range(rounds + 1):
        started = time.process_time()
        session.run(product, {given: square})
        best = min(best, time.process_time() - started)
    return 2 * 2048**3 / 1e9 / best


def least_times(
    session: Any, output: str, feeds: dict[str, np.ndarray], rounds: int
) -> tuple[dict, float]:
    """Operation -> (kind, least milliseconds); and the least processor time of a run, in
    milliseconds.
    """
    import tensorflow as tf

    v1, whole = tf.compat.v1, float("inf")
    least: dict[str, tuple[str, float]] = {}
    options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
    for _ in range(2):
        session.run(output, feeds)
    for _ in range(rounds):
        started = time.process_time()
        session.run(output, feeds)
        whole = min(whole, 1000 * (time.process_time() - started))
        told = v1.RunMetadata()
        session.run(output, feeds, options=options, run_metadata=told)
        for node in (node for device in told.step_stats.dev_stats for node in device.node_stats):
            kind = node.timeline_label.split("= ")[-1].split("(")[0].strip() or "other"
            spent = (node.op_end_rel_micros - node.op_start_rel_micros) / 1000
            least[node.node_name] = (kind, min(spent, least.get(node.node_name, (kind, spent))[1]))
    return least, whole


def show(least: dict[str, tuple[str, float]], whole: float, floor: float) -> None:
    total: dict[str, list[float]] = collections.defaultdict(list)
    for kind, spent in least.values():
        total[kind].append(spent)
    rows = sorted(total.items(), key=lambda row: -sum(row[1]))
    print(f"{'operation':28s} {'count':>6s} {'ms':>8s} {'share':>6s}")
    everything = sum(sum(times) for times in total.values())
    for kind, times in rows[:16]:
        print(f"{kind:28s} {len(times):6d} {sum(times):8.2f} {sum(times) / everything:6.1%}")
    products = sum(sum(times) for kind, times in rows if "MatMul" in kind)
    print(
        f"matrix products {products:.1f} ms, all else {everything - products:.1f} ms, together"
        f" {everything:.1f} ms"
    )
    print(f"processor time of a run {whole:.1f} ms")
    print(f"floor at the matrix product's rate {floor:.1f} ms, {floor / whole:.0%} of it")


def main() -> None:
    prefer_onednn()  # as the commands do
    import tensorflow as tf

    parser = argparse.ArgumentParser(prog="scripts/bench breakdown", description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder instead of the seeded full-size one"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    folder, v1 = checkpoint_at(chosen.checkpoint), tf.compat.v1
    tf.config.threading.set_intra_op_parallelism_threads(
        1
    )  # sessions share the threads of whoever asked first
    look = frozen(folder)
    config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    pixels = (
        np.random.default_rng(0)
        .normal(size=(chosen.batch, 3, chosen.side, chosen.side))
        .astype("float32")
    )
    with tf.Graph().as_default() as graph, v1.Session(graph=graph, config=config) as session:
        tf.import_graph_def(look.graph.as_graph_def(), name="")
        feeds = {look.inputs[0].name: pixels}
        least, whole = least_times(session, look.outputs[0].name, feeds, chosen.rounds)
        rate = gemm_rate(session, chosen.rounds)
    floor = 1000 * GFLOP * chosen.batch * (chosen.side / 224) ** 2 / rate
    print(
        f"one thread, batch {chosen.batch}, {chosen.side} x {chosen.side}; matrix product"
        f" {rate:.0f} GFLOP/s"
    )
    show(least, whole, floor)


if __name__ == "__main__":
    main()
