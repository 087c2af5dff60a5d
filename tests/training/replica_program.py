"""What each process of the tests of replicas runs: argument is the strategy, standard output ends with a JSON line."""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
from small import batch, fresh, weights_of, without_groups

from tf_groupvit.errors import InputError
from tf_groupvit.training.step import TrainingModel

STEPS, ROWS = 4, 8


def make() -> keras.Model:
    model = TrainingModel(fresh(without_groups()), {"caption": 1.0, "multi_label": 0.5})
    # Gradients are clipped at each step; every other optimizer hides wrong lengths.
    model.compile(optimizer=keras.optimizers.SGD(0.5, global_clipnorm=0.7), jit_compile=False)
    return model


def told(model: keras.Model, losses: list[dict[str, float]]) -> None:
    weights = {path: float(np.square(value).sum()) for path, value in weights_of(model.model).items()}
    print(json.dumps({"losses": losses, "weights": weights}))


def alone() -> None:
    model, losses = make(), []
    for step in range(STEPS):
        model.reset_metrics()
        losses.append(model.train_on_batch(batch(step), return_dict=True))
    told(model, [{name: float(value) for name, value in loss.items()} for loss in losses])


def mirrored() -> None:
    """Two devices of this process, through ``fit``; each epoch is one step, so that its losses are that step's."""
    from tf_groupvit.training.replicas import synchronise_norms

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = make()
        synchronise_norms(model)
    steps = [batch(step) for step in range(STEPS)]
    rows = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
    data = tf.data.Dataset.from_tensor_slices(rows).batch(ROWS, drop_remainder=True)
    try:
        model.fit(data.unbatch().batch(1, drop_remainder=True))
    except InputError as error:
        assert str(error) == "A batch of 1 is smaller than the 2 replicas: give at least 2."
    else:
        raise AssertionError("a batch of one row should be refused")
    history = model.fit(data.repeat(), epochs=STEPS, steps_per_epoch=1, verbose=0).history
    told(model, [{name: values[i] for name, values in history.items()} for i in range(STEPS)])


def workers() -> None:
    from tf_groupvit.training.workers import train_on_workers

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    losses: list[dict[str, float]] = []

    def batches(rows: int, share) -> tf.data.Dataset:
        steps = [{name: value[share.worker :: share.workers] for name, value in batch(i).items()} for i in range(STEPS)]
        assert all(len(value) == rows for step in steps for value in step.values())
        return tf.data.Dataset.from_tensor_slices({name: np.stack([step[name] for step in steps]) for name in steps[0]})

    model = train_on_workers(strategy, make, batches, ROWS, STEPS, lambda model, done, means: losses.append(means))
    told(model, losses)


if __name__ == "__main__":
    {"alone": alone, "mirrored": mirrored, "workers": workers}[sys.argv[1]]()
