"""Rows of one replica in, rows of all replicas out; and what else training on several devices or machines needs."""

from typing import Any

import keras
from keras import ops

from tf_groupvit.errors import InputError

LIMITS = ("clipnorm", "global_clipnorm", "clipvalue")  # of an optimizer


def gathered(rows: Any) -> tuple[Any, Any]:
    """This replica's rows (B, ...) -> those of all replicas (A, ...), in their order, and where this one's begin.

    Gradients flow through: what any replica's loss asks of a row comes back to the replica that made it. Outside of
    ``tf.distribute``, and on other backends than TensorFlow, the rows are all there are.
    """
    context = _context()
    if context is None:
        return rows, 0
    return context.all_gather(rows, axis=0), context.replica_id_in_sync_group * ops.shape(rows)[0]


def replicas() -> int:
    """How many replicas take part in the step that is being traced."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def _context() -> Any:
    """The replica that this code runs in, if there are others."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def synchronise_norms(model: keras.Model) -> None:
    """Let batch normalisation take its statistics over the rows of all replicas, as published (SyncBN)."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def rows_each(batch_size: int, count: int) -> int:
    """How many rows of a global batch are each replica's.

    Raises InputError for a batch that is smaller than the number of replicas, or that they cannot share evenly.
    """
    if batch_size < count:
        raise InputError(f"A batch of {batch_size} is smaller than the {count} replicas: give at least {count}.")
    if batch_size % count:
        raise InputError(
            f"A batch of {batch_size} cannot be shared evenly by {count} replicas: take {batch_size // count * count}."
        )
    return batch_size // count


class AcrossReplicas(keras.Model):
    """A keras.Model whose training step under ``tf.distribute`` is that of one process with the global batch.

    ``compute_loss`` gives the mean over this replica's rows; the mean of the replicas is the loss. Gradients are summed
    before they are clipped, where Keras clips those of each replica.
    """

    def compile(self, *arguments: Any, **keywords: Any) -> None:
        """As Keras' own; the optimizer's thresholds of clipping are those of the whole gradient."""
        super().compile(*arguments, **keywords)
        self._limits = {name: getattr(_inner(self.optimizer), name, None) for name in LIMITS}

    def fit(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``fit``. Raises InputError, as ``rows_each`` does, for a batch that the replicas cannot share."""
        if keras.backend.backend() == "tensorflow":
            count, rows = self.distribute_strategy.num_replicas_in_sync, _rows_of(x, keywords.get("batch_size"))
            if count > 1 and rows:
                rows_each(rows, count)
        return super().fit(x, *arguments, **keywords)

    def train_step(self, *arguments: Any) -> Any:
        """One step on a batch that is a dict. What the loss does not reach, or is frozen, is left without a word."""
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
        there = [(g, v) for g, v in zip(tape.gradient(scaled, variables), variables, strict=True) if g is not None]
        self._update([tf.convert_to_tensor(gradient) for gradient, _ in there], [variable for _, variable in there])
        return self.compute_metrics(batch, None, found)

    def _update(self, gradients: list[Any], variables: list[Any]) -> None:
        """Apply the mean of all replicas' gradients. Each hands the optimizer its share of it, which it sums.

        The thresholds of clipping shrink likewise, while the step is traced. Replicas of one process trace in threads
        that take turns, so what they shrink from must not be read off the optimizer here.
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


def _rows_of(x: Any, batch_size: int | None) -> int | None:
    """Rows of a batch that ``fit`` would take from arrays, or from a dataset whose batches have a known size."""
    if not hasattr(x, "element_spec"):
        return batch_size
    first = keras.tree.flatten(x.element_spec)[0]
    return first.shape[0] if first.shape.rank else None
