"""Rows of one replica in, rows of all replicas out; and what else training on several devices or
machines needs.
"""

from functools import partial
from typing import Any

import keras
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.grouping import AssignAttention, Stage

LIMITS = ("clipnorm", "global_clipnorm", "clipvalue")  # of an optimizer


def gathered(rows: Any) -> tuple[Any, Any]:
    """This replica's rows (B, ...) -> those of all replicas (A, ...), in their order, and where
    this one's begin.

    Gradients flow through: what any replica's loss asks of a row comes back to the replica that
    made it. Outside of ``tf.distribute``, and on other backends than TensorFlow, the rows are all
    there are.
    """
    context = _context()
    if context is None:
        return rows, 0
    import tensorflow as tf

    placed = tf.identity(
        rows
    )  # what came with the batch lies on no device yet, which the gather refuses
    return context.all_gather(placed, axis=0), context.replica_id_in_sync_group * ops.shape(rows)[0]


def own_share(rows: Any) -> Any:
    """Of rows (n, ...) that all replicas have alike, those that are this one's to work on.

    ``gathered`` puts what became of them together again, in their order. The shares differ by one
    row at most, so that each row is worked on once, as in one process: batch normalisation counts
    it once.
    """
    context = _context()
    if context is None:
        return rows
    N, number, n = (
        context.num_replicas_in_sync,
        context.replica_id_in_sync_group,
        ops.shape(rows)[0],
    )
    return rows[number * n // N : (number + 1) * n // N]


def _context() -> Any:
    """The replica that this code runs in, if there are others."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def synchronise(model: keras.Model, workers: int = 1) -> None:
    """Let each replica do what one process does with the global batch, where a layer looks beyond
    single rows.

    Batch normalisation takes its statistics over the rows of all replicas, as published (SyncBN).
    Noise is drawn for the rows of all, as often as there are replicas, and each takes that of its
    own: every replica's generator starts alike, so that without this they would all meet the same
    noise.

    Args:
        workers: among which records are shared in turn (``data.Share``); a worker's replicas take
            its batches in turn. With one worker, the global batch is what its replicas have, in
            their order.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
        elif isinstance(layer, AssignAttention):
            layer.uniform = partial(_uniform, axis=0, workers=workers)  # (B, G, P)
        elif isinstance(layer, Stage):
            layer.uniform = partial(_uniform, axis=1, workers=workers)  # (2, B)


def _uniform(shape: Any, seed: Any, axis: int, workers: int, **keywords: Any) -> Any:
    """``keras.random.uniform`` for the global batch, of which this replica's rows, along ``axis``."""
    context = _context()
    if context is None:
        return keras.random.uniform(shape, seed=seed, **keywords)
    N, sizes = context.num_replicas_in_sync, [*shape]
    rows, each = sizes[axis], N // workers  # replicas
    worker, number = (
        context.replica_id_in_sync_group // each,
        context.replica_id_in_sync_group % each,
    )
    sizes[axis] = rows * N
    places = (number * rows + ops.arange(rows)) * workers + worker
    return ops.take(keras.random.uniform(sizes, seed=seed, **keywords), places, axis=axis)


def rows_each(batch_size: int, count: int) -> int:
    """How many rows of a global batch are each replica's.

    Raises InputError for a batch that is smaller than the number of replicas, or that they cannot
    share evenly.
    """
    if batch_size < count:
        raise InputError(
            f"A batch of {batch_size} is smaller than the {count} replicas: give at least {count}."
        )
    if batch_size % count:
        raise InputError(
            f"A batch of {batch_size} cannot be shared evenly by {count} replicas: take"
            f" {batch_size // count * count}."
        )
    return batch_size // count


class AcrossReplicas(keras.Model):
    """A keras.Model whose training step under ``tf.distribute`` is that of one process with the
    global batch.

    ``compute_loss`` gives the mean over this replica's rows; the mean of the replicas is the loss.
    Gradients are summed before they are clipped, where Keras clips those of each replica.
    """

    def compile(self, *arguments: Any, **keywords: Any) -> None:
        """As Keras' own; the optimizer's thresholds of clipping are those of the whole gradient."""
        super().compile(*arguments, **keywords)
        self._limits = {name: getattr(_inner(self.optimizer), name, None) for name in LIMITS}

    def fit(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``fit``. With several replicas it splits each batch of a dataset, row by row.

        Batches that hold more than rows, such as the words of a vocabulary, are made for each
        replica instead, in turn: ``strategy.distribute_datasets_from_function``. Raises InputError
        for a batch that the replicas cannot share.
        """
        if keras.backend.backend() == "tensorflow":
            count, rows = (
                self.distribute_strategy.num_replicas_in_sync,
                _rows_of(x, keywords.get("batch_size")),
            )
            if count > 1 and len(rows) > 1:
                raise InputError(
                    f"A batch with parts of {rows[0]} and of {rows[1]} rows cannot be split among"
                    f" {count} replicas: make one for each with"
                    " strategy.distribute_datasets_from_function."
                )
            if count > 1 and rows:
                rows_each(rows[0], count)
        return super().fit(x, *arguments, **keywords)

    def train_step(self, *arguments: Any) -> Any:
        """One step on a batch that is a dict. What the loss does not reach, or is frozen, is left
        without a word.
        """
        if keras.backend.backend() != "tensorflow":
            return super().train_step(*arguments)
        import tensorflow as tf

        batch, _, _ = keras.utils.unpack_x_y_sample_weight(*arguments)
        with tf.GradientTape() as tape:
            found = self(batch, training=True)
            loss = self.compute_loss(batch, y_pred=found)
            scaled = self.optimizer.scale_loss(loss)
        self._loss_tracker.update_state(loss)
        variables = self.trainable_variables
        there = [
            (g, v)
            for g, v in zip(tape.gradient(scaled, variables), variables, strict=True)
            if g is not None
        ]
        self._update(
            [tf.convert_to_tensor(gradient) for gradient, _ in there],
            [variable for _, variable in there],
        )
        return self.compute_metrics(batch, None, found)

    def _update(self, gradients: list[Any], variables: list[Any]) -> None:
        """Apply the mean of all replicas' gradients. Each hands the optimizer its share of it,
        which it sums.

        The thresholds of clipping shrink likewise, while the step is traced. Replicas of one
        process trace in threads that take turns, so what they shrink from must not be read off the
        optimizer here.
        """
        import tensorflow as tf

        context, optimizer = _context(), self.optimizer
        if context is None:
            optimizer.apply(gradients, variables)
            return
        N = context.num_replicas_in_sync
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
        try:
            for name, limit in self._limits.items():
                setattr(_inner(optimizer), name, limit / N if limit else limit)
            optimizer.apply([mean / N for mean in means], variables)
        finally:
            for name, limit in self._limits.items():
                setattr(_inner(optimizer), name, limit)


def _inner(optimizer: Any) -> Any:
    """The optimizer itself, where mixed precision has wrapped it to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _rows_of(x: Any, batch_size: int | None) -> list[int]:
    """Rows of a batch that ``fit`` would split, as far as they are known, each number once."""
    import tensorflow as tf

    if isinstance(x, tf.data.Dataset):
        shapes = [spec.shape for spec in keras.tree.flatten(x.element_spec)]
        return sorted({shape[0] for shape in shapes if shape.rank and shape[0]}, reverse=True)
    return [] if batch_size is None or hasattr(x, "element_spec") else [batch_size]
