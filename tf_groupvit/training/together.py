"""Rounds of training on several devices or machines, as Keras' ``fit`` has them on one.

Keras' ``fit`` does not run under ``MultiWorkerMirroredStrategy``, and cannot split batches that
hold a vocabulary.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tf_groupvit.training.caption_batches import Position
from tf_groupvit.training.contrastive_model import TEXTS
from tf_groupvit.training.devices import Team
from tf_groupvit.training.replicas import AcrossReplicas, make_step


class Together:
    """Trains in rounds, after each of which all processes know the same.

    Args:
        start: batches that have been trained on before.
        position: step -> where this process stands in its data then; None where data have none.
    """

    def __init__(
        self,
        team: Team,
        model: AcrossReplicas,
        start: int = 0,
        position: Callable[[int], Position] | None = None,
    ) -> None:
        self.team, self.model, self.step, self._position = team, model, start, position
        self._positions: list[Position] = []

    def positions(self, step: int) -> list[Position]:
        """Where each process stands in its data at the end of a round; none where data do not."""
        if self._position is not None and self.team.strategy is None:
            return [self._position(step)]
        return self._positions

    def fit(
        self,
        batches: tf.data.Dataset,
        rounds: int,
        steps: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Train on this process's batches, ``steps`` a round, until a callback says so.

        What the first process's callbacks decide counts for all.

        Raises:
            TrainingError: another process is lost.
        """
        model = self.model
        if self.team.strategy is None:
            many = dict(epochs=rounds, steps_per_epoch=steps)
            model.fit(batches, **many, shuffle=False, verbose=0, callbacks=list(callbacks))
            return
        strategy = self.team.strategy
        hooks = keras.callbacks.CallbackList(list(callbacks), model=model)
        data = iter(batches)
        one_step = make_step(strategy, model)
        model.stop_training = False
        hooks.on_train_begin()
        for number in range(rounds):
            with self.team.waiting(f"Step {self.step + 1}"):
                model.reset_metrics()  # those of all replicas
            hooks.on_epoch_begin(number)
            for place in range(steps):
                with self.team.waiting(f"Step {self.step + 1}"):
                    logs = one_step(self.team.split(next(data), TEXTS["word"]))
                self.step += 1
                hooks.on_train_batch_end(place, logs)
                if model.stop_training:
                    break
            self._end_round(hooks, number, logs)
            if model.stop_training:
                break
        hooks.on_train_end()

    def _end_round(
        self, hooks: keras.callbacks.CallbackList, number: int, logs: dict[str, float]
    ) -> None:
        """Hear of all positions, have the first process save, and hear of what it decided."""
        what = f"What follows step {self.step}"
        if self._position is not None:
            row = list(self._position(self.step).to_dict().values())
            self._positions = [Position(*told) for told in self.team.exchange(what, row)]
        hooks.on_epoch_end(number, logs)
        stop = self.team.exchange(what, [int(self.model.stop_training)])[0][0]
        self.model.stop_training = bool(stop)
