"""What each process of the tests of replicas runs: the argument is the strategy; each training
prints a JSON line.
"""

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf
from small import OF_ALL, batch, fresh, one_grouping, weights_of

from tf_groupvit.errors import InputError
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.devices import Team, make_team, read_cluster
from tf_groupvit.training.model_setup import adamw, set_drop_path, warm_up_then_cosine
from tf_groupvit.training.replicas import (
    AcrossReplicas,
    gathered,
    make_step,
    synchronize,
)
from tf_groupvit.training.together import Together

STEPS, ROWS = 4, 8
EVERY = {"caption": 1.0, "multi_label": 0.5, "vocabulary": 0.5, "group_word": 0.5}


def make() -> keras.Model:
    """With every loss, groups and their noise, and branches that are left out."""
    model = TrainingModel(fresh(one_grouping()), EVERY)
    set_drop_path(model.model, 0.3)
    # Gradients are clipped at each step; every other optimizer hides wrong lengths.
    model.compile(optimizer=keras.optimizers.SGD(0.5, global_clipnorm=0.7), jit_compile=False)
    return model


def tell(model: keras.Model, losses: list[dict[str, float]]) -> None:
    weights = {
        path: float(np.square(value).sum()) for path, value in weights_of(model.model).items()
    }
    print(json.dumps({"losses": losses, "weights": weights}))


def alone() -> None:
    model, losses = make(), []
    for step in range(STEPS):
        model.reset_metrics()
        losses.append(model.train_on_batch(batch(step), return_dict=True))
    tell(model, [{name: float(value) for name, value in loss.items()} for loss in losses])


def part(step: int, rows: slice) -> dict[str, np.ndarray]:
    """A replica's rows of a batch, and what all replicas have alike."""
    return {name: value if name in OF_ALL else value[rows] for name, value in batch(step).items()}


def dataset(parts: list[dict[str, np.ndarray]]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(
        {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    )


HALVES = (slice(ROWS // 2), slice(ROWS // 2, ROWS))


def mirrored() -> None:
    """Two devices of this process, through ``fit``; each epoch is one step, so that its losses are
    that step's.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = make()
        synchronize(model)
    check_how_batches_are_split(strategy, model)
    check_half_precision(strategy)
    parts = [
        part(step, half) for step in range(STEPS) for half in HALVES
    ]  # given to the devices in turn
    data = strategy.distribute_datasets_from_function(lambda _: dataset(parts).repeat())
    history = model.fit(data, epochs=STEPS, steps_per_epoch=1, verbose=0).history
    tell(model, [{name: values[i] for name, values in history.items()} for i in range(STEPS)])


def check_how_batches_are_split(strategy: tf.distribute.Strategy, model: keras.Model) -> None:
    """Of rows alone, ``fit`` makes the same halves by itself; what it cannot share is refused."""
    whole = {name: value for name, value in batch(0).items() if name not in OF_ALL}
    (found,) = strategy.experimental_distribute_dataset(dataset([whole]))
    for rows, half in zip(
        strategy.experimental_local_results(found["pixel_values"]), HALVES, strict=True
    ):
        assert np.array_equal(rows, whole["pixel_values"][half])
    single = tf.data.Dataset.from_tensor_slices(whole).batch(1, drop_remainder=True)
    for data, start in (
        (single, "A batch of 1 is smaller"),
        (dataset([batch(0)]), "A batch with parts of 8 and of 5"),
    ):
        try:
            model.fit(data)
        except InputError as error:
            assert str(error).startswith(start), error
        else:
            raise AssertionError("a batch that two devices cannot share should be refused")


def check_half_precision(strategy: tf.distribute.Strategy) -> None:
    """TensorFlow gathers no bfloat16."""
    found = strategy.run(lambda: gathered(tf.ones((2, 3), tf.bfloat16))[0])
    for rows in strategy.experimental_local_results(found):
        assert rows.dtype == tf.bfloat16 and rows.shape == (4, 3)


def workers() -> None:
    team = make_team("all", read_cluster(os.environ["TF_CONFIG"]))
    with team.scope():
        model = make()
        model.optimizer.build(model.trainable_variables)
        synchronize(model, team.cluster.workers)
    losses: list[dict[str, float]] = []
    tell_losses = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: losses.append(logs))
    mine = slice(team.cluster.worker, None, team.cluster.workers)
    data = dataset([part(step, mine) for step in range(STEPS)])
    Together(team, model).fit(data, rounds=STEPS, steps=1, callbacks=[tell_losses])
    tell(model, losses)


class Line(AcrossReplicas):
    """The least that can be trained: y from x (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 4))
        self.built = True

    def call(self, batch, training=None):
        return keras.ops.tanh(self.dense(batch["x"]))

    def compute_loss(self, x=None, y=None, y_pred=None, **_):
        return keras.ops.mean((keras.ops.cast(y_pred[:, 0], "float32") - x["y"]) ** 2)


def accumulated() -> None:
    """Six steps whose gradients are applied two by two, on one device and on two: the losses, and
    how often the devices of a step without accumulation ask for sums. Then, in mixed_float16, a
    step whose gradients would overflow if they were twice as large: the losses and their scales.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    draw = np.random.default_rng(0)
    batches = [
        {
            "x": draw.normal(size=(8, 4)).astype("float32"),
            "y": draw.normal(size=8).astype("float32"),
        }
        for _ in range(6)
    ]

    def fresh_line(accumulation: int = 2) -> Line:
        keras.utils.set_random_seed(0)
        model = Line()
        rate = warm_up_then_cosine(1e-1, 2, 6)
        model.compile(adamw(model, rate, 0.05, 0.5, accumulation), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        return model

    one, strategy = fresh_line(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        two, other = fresh_line(), fresh_line(accumulation=1)
    step, losses = make_step(strategy, two), []
    for values in batches:
        one.reset_metrics(), two.reset_metrics()
        mine = float(one.train_step(values)["loss"])
        losses.append((mine, step(Team(strategy).split(values, ()))["loss"]))
    sums, all_reduce = [], tf.distribute.ReplicaContext.all_reduce

    def noted(context, *arguments, **keywords):
        sums.append(context.replica_id_in_sync_group)
        return all_reduce(context, *arguments, **keywords)

    tf.distribute.ReplicaContext.all_reduce = noted
    given = Team(strategy).split(batches[0], ())
    traced = tf.function(lambda rows: strategy.run(other.train_step, (rows,)), autograph=False)
    traced.get_concrete_function(given)
    count = len(sums)
    keras.config.set_dtype_policy("mixed_float16")
    half = fresh_line(accumulation=1)
    with strategy.scope():
        halves = fresh_line(accumulation=1)
    values = {"x": batches[0]["x"] / 10, "y": np.array([4, -4] * 4, "float32")}
    mine = float(half.train_step(values)["loss"])
    found = [mine, make_step(strategy, halves)(Team(strategy).split(values, ()))["loss"]]
    scales = [float(model.optimizer.dynamic_scale.numpy()) for model in (half, halves)]
    told = {"losses": losses, "sums": count, "half losses": found, "scales": scales}
    print(json.dumps(told))


if __name__ == "__main__":
    {"alone": alone, "accumulated": accumulated, "mirrored": mirrored, "workers": workers}[
        sys.argv[1]
    ]()
