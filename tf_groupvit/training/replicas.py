"""Training on several devices or machines, so that all replicas together learn as one process.

Embeddings are gathered from all replicas before they are compared; batch normalization, noise and
gradient clipping are those of the global batch. ``together.Together`` is the loop.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.grouping import AssignAttention, Stage
from tf_groupvit.types import Tensor

if TYPE_CHECKING:
    import tensorflow as tf


def gathered(rows: Tensor) -> tuple[Tensor, int | Tensor]:
    """This replica's rows (B, ...) -> those of all replicas (A, ...), and where this one's begin.

    Gradients flow through: what any replica's loss asks of a row comes back to the replica that
    made it. Outside of ``tf.distribute``, and on other backends than TensorFlow, the rows are all
    there are.
    """
    context = _replica_context()
    if context is None:
        return rows, 0
    import tensorflow as tf

    # Rows of the batch have no device yet, which the gather refuses; nor does it take bfloat16.
    placed = tf.cast(rows, tf.float32) if rows.dtype == tf.bfloat16 else tf.identity(rows)
    found = tf.cast(context.all_gather(placed, axis=0), rows.dtype)
    return found, context.replica_id_in_sync_group * ops.shape(rows)[0]


def own_share(rows: Tensor) -> Tensor:
    """Of rows (N, ...) that all replicas have alike, those that this one works on.

    ``gathered`` puts the results together again, in their order. The shares differ by one row at
    most and do not overlap: batch normalization counts each row once, as in one process.
    """
    context = _replica_context()
    if context is None:
        return rows
    N, number = context.num_replicas_in_sync, context.replica_id_in_sync_group
    n = ops.shape(rows)[0]
    return rows[number * n // N : (number + 1) * n // N]


def _replica_context() -> "tf.distribute.ReplicaContext | None":
    """The replica that this code runs in, if there are others."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def _replica_count() -> int:
    context = _replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def synchronize(model: keras.Model, workers: int = 1) -> None:
    """Let each replica do what one process does with the global batch, where layers mix rows.

    Batch normalization takes its statistics over the rows of all replicas, as published (SyncBN).
    Noise is drawn for the rows of all replicas, and each takes that of its own rows: every
    replica's generator starts alike, so that without this they would all have the same noise.

    Args:
        workers: among which records are shared in turn (``caption_batches.Share``); a worker's
            replicas take its batches in turn. With one worker, the global batch is what its
            replicas have, in their order.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
        elif isinstance(layer, AssignAttention):
            layer.uniform = partial(_uniform, axis=0, workers=workers)  # (B, G, P)
        elif isinstance(layer, Stage):
            layer.uniform = partial(_uniform, axis=1, workers=workers)  # (2, B)


def _uniform(
    shape: Sequence[int | Tensor],
    seed: keras.random.SeedGenerator,
    axis: int,
    workers: int,
    **keywords: Any,
) -> Tensor:
    """This replica's rows, along ``axis``, of ``keras.random.uniform`` for the global batch."""
    context = _replica_context()
    if context is None:
        return keras.random.uniform(shape, seed=seed, **keywords)
    N, sizes = context.num_replicas_in_sync, [*shape]
    rows, each = sizes[axis], N // workers  # replicas of a worker
    worker = context.replica_id_in_sync_group // each
    number = context.replica_id_in_sync_group % each
    sizes[axis] = rows * N
    places = (number * rows + ops.arange(rows)) * workers + worker
    return ops.take(keras.random.uniform(sizes, seed=seed, **keywords), places, axis=axis)


def rows_per_replica(batch_size: int, replicas: int) -> int:
    """How many rows of a global batch are each replica's.

    Raises:
        InputError: a batch smaller than the number of replicas, or that they cannot share evenly.
    """
    if batch_size < replicas:
        raise InputError(
            f"A batch of {batch_size} is smaller than the {replicas} replicas: give at least"
            f" {replicas}."
        )
    if batch_size % replicas:
        raise InputError(
            f"A batch of {batch_size} cannot be shared evenly by {replicas} replicas: take"
            f" {batch_size // replicas * replicas}."
        )
    return batch_size // replicas


class AcrossReplicas(keras.Model):
    """A keras.Model whose step under ``tf.distribute`` is that of one process.

    ``compute_loss`` gives the mean over this replica's rows; the mean of the replicas is the loss.
    Gradients are summed before they are clipped, where Keras clips those of each replica.
    """

    def compile(self, *arguments: Any, **keywords: Any) -> None:
        """Compile as Keras does; the optimizer clips the whole gradient."""
        super().compile(*arguments, **keywords)
        self._accumulation = getattr(_inner(self.optimizer), "gradient_accumulation_steps", None)

    def fit(self, x: object = None, *arguments: Any, **keywords: Any) -> keras.callbacks.History:
        """Keras' ``fit``; several replicas split each batch (B, ...) of a dataset, row by row.

        Batches that hold more than rows, such as the words of a vocabulary, are made for each
        replica instead, in turn: ``strategy.distribute_datasets_from_function``.

        Raises:
            InputError: a batch that the replicas cannot share.
        """
        if keras.backend.backend() == "tensorflow":
            count = self.distribute_strategy.num_replicas_in_sync
            rows = _row_counts(x, keywords.get("batch_size"))
            if count > 1 and len(rows) > 1:
                raise InputError(
                    f"A batch with parts of {rows[0]} and of {rows[1]} rows cannot be split among"
                    f" {count} replicas: make one for each with"
                    " strategy.distribute_datasets_from_function."
                )
            if count > 1 and rows:
                rows_per_replica(rows[0], count)
        return super().fit(x, *arguments, **keywords)

    def train_step(self, *arguments: Any) -> dict[str, Tensor]:
        """One step on a batch that is a dict -> means of the losses, scalars.

        Variables that the loss does not reach, or that are frozen, are left without a warning.
        """
        if keras.backend.backend() != "tensorflow":
            return super().train_step(*arguments)
        import tensorflow as tf

        batch, _, _ = keras.utils.unpack_x_y_sample_weight(*arguments)
        with tf.GradientTape() as tape:
            found = self(batch, training=True)
            loss = self.compute_loss(batch, y_pred=found)
            # This replica's part of the loss: half floats then overflow as in one process.
            scaled = self.optimizer.scale_loss(loss / _replica_count())
        self._loss_tracker.update_state(loss)
        variables = self.trainable_variables
        pairs = zip(tape.gradient(scaled, variables), variables, strict=True)
        there = [(tf.convert_to_tensor(g), variable) for g, variable in pairs if g is not None]
        self._update([gradient for gradient, _ in there], [variable for _, variable in there])
        return self.compute_metrics(batch, None, found)

    def compute_metrics(self, *_: object, **__: object) -> dict[str, Tensor]:
        """The means so far, scalars: ``compute_loss`` has updated them."""
        return self.get_metrics_result()

    def _update(self, gradients: list[Tensor], variables: list[keras.Variable]) -> None:
        """Apply the sum of all replicas' gradients."""
        import tensorflow as tf

        context, optimizer = _replica_context(), self.optimizer
        if context is None:
            optimizer.apply(gradients, variables)
            return
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if self._accumulation:
            context.merge_call(self._accumulate, (sums, variables))
        else:
            with _summed(optimizer):
                optimizer.apply(sums, variables)

    def _accumulate(
        self, strategy: "tf.distribute.Strategy", gradients: list[Tensor], variables: object
    ) -> None:
        """Keep the gradients, or apply the mean of those kept: Keras' accumulation.

        Keras chooses between the two within a replica, where ``tf.distribute`` refuses an update.
        """
        import tensorflow as tf

        optimizer, steps = self.optimizer, self._accumulation
        each = strategy.extended.call_for_each_replica

        def sums(variables: list[keras.Variable]) -> list[keras.Variable]:
            places = map(optimizer._get_variable_index, variables)
            return [optimizer._accumulated_gradients[place] for place in places]

        def apply(gradients: list[Tensor], variables: list[keras.Variable]) -> None:
            pairs = zip(gradients, sums(variables), strict=True)
            found = [(gradient + total) / steps for gradient, total in pairs]
            with _summed(optimizer):  # what Keras does when its own choice is this one
                found = optimizer._clip_gradients(found)
                optimizer._apply_weight_decay(variables)
                optimizer._backend_update_step(found, variables, optimizer.learning_rate)
            for variable in variables:
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable))
            for total in sums(variables):
                total.assign(ops.zeros_like(total))
            optimizer._iterations.assign_add(1)

        def keep(gradients: list[Tensor], variables: list[keras.Variable]) -> None:
            for gradient, total in zip(gradients, sums(variables), strict=True):
                total.assign(total + gradient)
            optimizer._iterations.assign_add(1)

        def chosen(function: Callable[..., None]) -> Callable[[], int]:
            def run() -> int:
                each(function, (gradients, variables))
                return 0  # both branches must give the same kind

            return run

        due = (optimizer._iterations + 1) % steps == 0
        tf.cond(due, chosen(apply), chosen(keep))


@contextmanager
def _summed(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """A block in which Keras does not sum gradients over the replicas: they are summed.

    Replicas of one process trace in threads, which leave the block after all have been in it.
    """
    own = vars(_inner(optimizer))
    own["_all_reduce_sum_gradients"] = list
    try:
        yield
    finally:
        own.pop("_all_reduce_sum_gradients", None)


def _inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, where mixed precision has wrapped it to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _row_counts(x: object, batch_size: int | None) -> list[int]:
    """Rows of a batch that ``fit`` would split, as far as they are known, each number once."""
    import tensorflow as tf

    if isinstance(x, tf.data.Dataset):
        shapes = [spec.shape for spec in keras.tree.flatten(x.element_spec)]
        return sorted({shape[0] for shape in shapes if shape.rank and shape[0]}, reverse=True)
    return [] if batch_size is None or hasattr(x, "element_spec") else [batch_size]


def make_step(
    strategy: "tf.distribute.Strategy", model: keras.Model
) -> Callable[[object], dict[str, float]]:
    """A step on the batches of all replicas -> the means of the losses since metrics were reset."""
    import tensorflow as tf

    def one_step(batch: dict[str, Tensor]) -> None:
        model.train_step(batch)

    traced = tf.function(
        lambda batch: strategy.run(one_step, args=(batch,)), autograph=False, reduce_retracing=True
    )

    def step(batch: object) -> dict[str, float]:
        traced(batch)
        return {name: float(value) for name, value in model.get_metrics_result().items()}

    return step
