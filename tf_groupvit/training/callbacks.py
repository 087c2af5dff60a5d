"""Callbacks of a ``fit`` of ``TrainingModel``: progress, saved states, a loss that is no number,
TensorBoard.

Summaries are written as TensorBoard's own ``scalar`` and ``image`` would: those need its package,
this does not.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from tf_groupvit.errors import TrainingError
from tf_groupvit.files import atomic_write
from tf_groupvit.segmentation.image_encoding import png
from tf_groupvit.training.data import Position, Skipped
from tf_groupvit.training.state import save_state, step_of

TOLD_EVERY = 30.0  # seconds between two lines of progress, where a round takes longer
# Name of TensorBoard's plugin -> the class of its data, as its files have it.
CLASSES = {"scalars": 1, "images": 3}
UNSHOWN = ("step", "seconds")  # of a line of the history
Draw = Callable[[], Mapping[str, Sequence[Image.Image]]]


def say(line: str) -> None:
    """Write a line to standard error, above a bar that may be there."""
    tqdm.write(line, file=sys.stderr)


class Counted(keras.callbacks.Callback):
    """A callback that knows the step: ``self.step`` batches have been trained on, earlier runs
    included.
    """

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
        raise TrainingError(
            f"The loss is {logs['loss']} at step {self.step}; {good}: lower the rate, or clip"
            " lower."
        )


class SaveState(Counted):
    """Saves the state at the end of each round. It stands behind ``History``, so that no round's
    line is lost.
    """

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
            say(self.skipped.summary())


class History(Counted):
    """A line of JSON for each round in a file: step, the means of the losses, images a second, and
    what is measured.

    Args:
        measure: called in rounds that pass a multiple of ``measure_every`` steps, and at the
            ``last`` step; its numbers join the line.

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
        self.path, self.batch_size, self.measure, self.measure_every = (
            path,
            batch_size,
            measure,
            measure_every,
        )
        self.lines = [
            line for line in _lines(path) if line["step"] <= start
        ]  # a killed run may have written more

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began, self.first = time.monotonic(), self.step

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.monotonic() - self.began
        line = {
            "step": self.step,
            **{name: round(float(value), 5) for name, value in (logs or {}).items()},
        }
        line["images_per_second"] = round(
            (self.step - self.first) * self.batch_size / max(seconds, 1e-9), 1
        )
        line["seconds"] = round(seconds, 1)
        self.measured = (
            self.step // self.measure_every > self.first // self.measure_every
            or self.step == self.last
        )
        if self.measured:
            measured = self.measure()
            line |= measured
            if logs is not None:
                logs.update(measured)  # for callbacks behind this one: best checkpoint, early stop
        self.lines.append(line)
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Progress(Counted):
    """A bar on standard error with images per second and the loss.

    Where that is no terminal: a line after the second step, each round, and every ``TOLD_EVERY``
    seconds, with the loss and how long the rest will take.
    """

    def __init__(self, steps: int, batch_size: int, start: int = 0, bar: bool = True) -> None:
        super().__init__(start)
        self.steps, self.batch_size, self.bar = steps, batch_size, bar
        self.shown: Any = None
        self.since: tuple[int, float] | None = None  # step and time

    def on_train_begin(self, logs: Any = None) -> None:
        total, done = self.steps * self.batch_size, self.step * self.batch_size
        self.shown = tqdm(total=total, initial=done, unit="image", disable=not self.bar)

    def after_step(self, logs: Mapping[str, float]) -> None:
        self.shown.update(self.batch_size)
        self.shown.set_postfix_str(f"step {self.step}, loss {logs['loss']:.3f}", refresh=False)
        now = time.monotonic()
        if self.since is None:  # the first step traces the graph: it says nothing about the others
            self.since, self.told = (self.step, now), now
        elif self.step == self.since[0] + 1 or now - self.told > TOLD_EVERY:
            self._tell(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._tell(logs or {})

    def on_train_end(self, logs: Any = None) -> None:
        self.close()

    def close(self) -> None:
        """End the bar, if there is one: what is written next has a line of its own."""
        if self.shown is not None:
            self.shown.close()

    def _tell(self, logs: Mapping[str, float]) -> None:
        self.told = time.monotonic()
        if not self.bar:
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in logs.items())
            say(f"step {self.step} of {self.steps}: {numbers}{self._left()}")

    def _left(self) -> str:
        begun, at = self.since or (self.step, self.told)
        done, left = self.step - begun, self.steps - self.step
        if done < 1 or left < 1:
            return ""
        return f", about {_in_words((self.told - at) / done * left)} left"


def _in_words(seconds: float) -> str:
    """50 s, 14 min, 2 h 5 min."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class TensorBoard(keras.callbacks.Callback):
    """Stands behind ``History``: the numbers of its lines, and pictures in the rounds in which it
    measured.

    Args:
        folder: for ``tensorboard --logdir``; made if it is missing.
        draw: gives pictures by name.
    """

    def __init__(self, folder: Path, history: History, draw: Draw) -> None:
        super().__init__()
        self.folder, self.history, self.draw = folder, history, draw

    def on_train_begin(self, logs: Any = None) -> None:
        """Raises TrainingError for a folder that cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.writer = tf.summary.create_file_writer(str(self.folder))
        except (OSError, tf.errors.OpError) as error:
            raise TrainingError(
                f"{self.folder} cannot be written for TensorBoard: {error}."
            ) from error

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        line = self.history.lines[-1]
        with self.writer.as_default(step=line["step"]):
            for name, value in line.items():
                if name not in UNSHOWN:
                    _write(name, "scalars", tf.constant(float(value)))
            _write(
                "learning_rate", "scalars", tf.cast(self.model.optimizer.learning_rate, tf.float32)
            )
            if self.history.measured:
                for name, pictures in self.draw().items():
                    _write(name, "images", _as_images(pictures))
        self.writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self.writer.close()


def _as_images(pictures: Sequence[Image.Image]) -> tf.Tensor:
    """Width, height, and the PNG file of each, as the plugin has them."""
    width, height = pictures[0].size
    return tf.constant([str(width).encode(), str(height).encode(), *map(png, pictures)])


def _write(name: str, plugin: str, value: tf.Tensor) -> None:
    metadata = tf.compat.v1.SummaryMetadata(data_class=CLASSES[plugin])
    metadata.plugin_data.plugin_name = plugin
    tf.summary.write(name, value, metadata=metadata)
