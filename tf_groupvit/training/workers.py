"""A model and its data in every worker's hands in; the model trained by all of them together out.

Keras' ``fit`` does not run under ``MultiWorkerMirroredStrategy``: this loop stands in its place.
Each worker is a process that runs the same program, with ``TF_CONFIG`` saying who the others are
and which one it is.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.training.data import Share
from tf_groupvit.training.replicas import rows_each, synchronise


def train_on_workers(
    strategy: tf.distribute.Strategy,
    make_model: Callable[[], keras.Model],
    make_batches: Callable[[int, Share], tf.data.Dataset],
    batch_size: int,
    steps: int,
    after_step: Callable[[keras.Model, int, dict[str, float]], None] | None = None,
) -> keras.Model:
    """Train for so many steps and return the model, the same in every worker.

    Statistics of batch normalisation are those of the global batch, and so are the losses and the
    noise: what is learned is what one process would learn from the same records.

    Args:
        strategy: ``tf.distribute.MultiWorkerMirroredStrategy()``, made before anything else of
            TensorFlow; others work.
        make_model: makes and compiles the training model; called under the strategy. Every worker
            must start from the same weights: TensorFlow hands out those of the first.
        make_batches: rows of a replica and a worker's share of the records -> its batches, such as
            ``TrainingData(..., batch_size=rows, share=share).batches()``.
        batch_size: of all workers together.
        after_step: called with the model, the number of steps done, and the means of the losses in
            that step.

    Raises:
        InputError: a batch that the replicas cannot share, or fewer than one step.
    """
    rows = rows_each(batch_size, strategy.num_replicas_in_sync)
    if steps < 1:
        raise InputError(f"The number of steps should be 1 or more, {steps} came.")
    with strategy.scope():
        model = make_model()
        synchronise(model, _count(strategy))
        model.optimizer.build(model.trainable_variables)

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return make_batches(rows, Share(context.input_pipeline_id, context.num_input_pipelines))

    data = iter(strategy.distribute_datasets_from_function(batches))

    def one_step(rows: dict[str, tf.Tensor]) -> None:
        model.train_step(rows)

    step = tf.function(
        lambda batch: strategy.run(one_step, args=(batch,)), autograph=False, reduce_retracing=True
    )
    for done in range(1, steps + 1):
        model.reset_metrics()
        step(next(data))
        if after_step is not None:
            after_step(
                model,
                done,
                {name: float(value) for name, value in model.get_metrics_result().items()},
            )
    return model


def _count(strategy: tf.distribute.Strategy) -> int:
    """How many workers there are; a strategy without a cluster has one."""
    cluster = (
        strategy.cluster_resolver.cluster_spec().as_dict() if strategy.cluster_resolver else {}
    )
    return max(1, sum(len(cluster.get(kind, ())) for kind in ("chief", "worker")))
