"""What watches a ``fit`` of ``TrainingModel``: progress, states to go on from, a loss that is no number, mIoU."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from tf_groupvit.errors import TrainingError
from tf_groupvit.training.skipped import Skipped
from tf_groupvit.training.state import save_state, step_of
from tf_groupvit.training.stream import Position


class Counted(keras.callbacks.Callback):
    """A callback that knows the step: ``self.step`` batches have been trained on, earlier runs included."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.step = start

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        self.after_step(logs or {})

    def after_step(self, logs: Mapping[str, float]) -> None:
        """What is to be done after each step."""


class StopOnNaN(Counted):
    """Stops with the step and the last good state named, once the loss is NaN or infinite."""

    def __init__(self, state: Path | None = None, start: int = 0) -> None:
        super().__init__(start)
        self.state = state

    def after_step(self, logs: Mapping[str, float]) -> None:
        if math.isfinite(logs["loss"]):
            return
        good = "no state was saved before it"
        if self.state is not None and self.state.exists():
            good = f"the last good state is of step {step_of(self.state)}, {self.state}"
        raise TrainingError(f"The loss is {logs['loss']} at step {self.step}; {good}: lower the rate, or clip lower.")


class SaveState(Counted):
    """Saves the state at the end of each round. It stands behind ``History``, so that no round's line is lost."""

    def __init__(
        self,
        path: Path,
        recipe: Mapping[str, Any],
        start: int = 0,
        position: Callable[[int], Position] | None = None,
    ) -> None:
        super().__init__(start)
        self.path, self.recipe, self.position = path, recipe, position

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        position = self.position(self.step) if self.position else None
        save_state(self.path, self.model, self.step, self.recipe, position)


class StopAt(Counted):
    """Ends the training at a step, also in the middle of a round."""

    def __init__(self, steps: int, start: int = 0) -> None:
        super().__init__(start)
        self.steps = steps

    def after_step(self, logs: Mapping[str, float]) -> None:
        if self.step >= self.steps:
            self.model.stop_training = True


class TellSkipped(keras.callbacks.Callback):
    """Tells at the end which records were left out, on standard error."""

    def __init__(self, skipped: Skipped | None) -> None:
        super().__init__()
        self.skipped = skipped

    def on_train_end(self, logs: Any = None) -> None:
        if self.skipped:
            tqdm.write(self.skipped.summary(), file=sys.stderr)


class History(Counted):
    """A line of JSON for each round in a file: step, the means of the losses, images a second, and what is measured.

    Args:
        measure: called in rounds that pass a multiple of ``measure_every`` steps, and at the ``last`` step; its numbers
            join the line.

    Attributes: ``lines``, of all rounds; ``measured``, whether the last one was such a round.
    """

    def __init__(
        self,
        path: Path,
        batch_size: int,
        measure: Callable[[], dict[str, float]],
        measure_every: int,
        start: int = 0,
        last: int | None = None,
    ) -> None:
        super().__init__(start)
        self.last, self.measured = last, False
        self.path, self.batch_size, self.measure, self.measure_every = path, batch_size, measure, measure_every
        self.lines = [line for line in _lines(path) if line["step"] <= start]  # a killed run may have written more

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began, self.first = time.monotonic(), self.step

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.monotonic() - self.began
        line = {"step": self.step, **{name: round(float(value), 5) for name, value in (logs or {}).items()}}
        line["images_per_second"] = round((self.step - self.first) * self.batch_size / max(seconds, 1e-9), 1)
        line["seconds"] = round(seconds, 1)
        self.measured = self.step // self.measure_every > self.first // self.measure_every or self.step == self.last
        if self.measured:
            measured = self.measure()
            line |= measured
            if logs is not None:
                logs.update(measured)  # for callbacks behind this one: best checkpoint, early stop
        self.lines.append(line)
        beside = self.path.with_suffix(".tmp")
        beside.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        beside.replace(self.path)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Progress(Counted):
    """A bar on standard error with images per second and the loss; a line a round where that is no terminal."""

    def __init__(self, steps: int, batch_size: int, start: int = 0, bar: bool = True) -> None:
        super().__init__(start)
        self.steps, self.batch_size, self.bar = steps, batch_size, bar

    def on_train_begin(self, logs: Any = None) -> None:
        total, done = self.steps * self.batch_size, self.step * self.batch_size
        self.shown = tqdm(total=total, initial=done, unit="image", disable=not self.bar)

    def after_step(self, logs: Mapping[str, float]) -> None:
        self.shown.update(self.batch_size)
        self.shown.set_postfix_str(f"step {self.step}, loss {logs['loss']:.3f}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self.bar:
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in (logs or {}).items())
            tqdm.write(f"step {self.step} of {self.steps}: {numbers}", file=sys.stderr)

    def on_train_end(self, logs: Any = None) -> None:
        self.shown.close()
