"""Keras callbacks of a training run: when it stops, what it keeps, and what it reports.

They take the place of Keras' own where a run must resume in the middle: ``EarlyStopping`` forgets
its count and warns in rounds without a measurement, ``TerminateOnNaN`` stops without an error,
``CSVLogger`` is not cut back to the saved step, and ``TensorBoard`` needs its package.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from tf_groupvit.errors import TrainingError
from tf_groupvit.files import atomic_write
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.segmentation.image_encoding import png
from tf_groupvit.training.caption_batches import Position
from tf_groupvit.training.run_folder import STATE, RunFolder
from tf_groupvit.training.state import save_state

REPORT_EVERY = 30.0  # seconds between two lines of progress, where a round takes longer
BETTER = {"val_miou": 1, "val_loss": -1}  # measured -> 1 where more is better
NOT_PLOTTED = ("step", "seconds")  # of a line of the history
# Name of TensorBoard's plugin -> the class of its data, as its files have it.
DATA_CLASSES = {"scalars": 1, "images": 3}
Draw = Callable[[], Mapping[str, Sequence[Image.Image]]]
Logs = dict[str, float]


def log(line: str) -> None:
    """Write a line to standard error, above a progress bar that may be there."""
    tqdm.write(line, file=sys.stderr)


class StepCallback(keras.callbacks.Callback):
    """A callback that knows the step: ``self.step`` batches have been trained on in all runs."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.step = start

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Count, and call ``after_step``."""
        self.step += 1
        self.after_step(logs or {})

    def after_step(self, logs: Logs) -> None:
        """What is to be done after each step."""


class StopAt(StepCallback):
    """Ends the training at a step, also in the middle of a round, or once the loss is not finite.

    Raises:
        TrainingError: the loss is NaN or infinite; with the step and the last good state.
    """

    def __init__(self, steps: int, folder: RunFolder, start: int = 0) -> None:
        super().__init__(start)
        self.steps, self.folder = steps, folder

    def after_step(self, logs: Logs) -> None:
        """Check the loss and the step."""
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"The loss is {logs['loss']} at step {self.step}; {self.folder.kept()}: lower the"
                " rate, or clip lower."
            )
        if self.step >= self.steps:
            self.model.stop_training = True


class SaveState(StepCallback):
    """Saves the state after each round. It goes after ``History``, so that no line is lost.

    Args:
        positions: step -> the positions of all workers in their data at that step, if they have
            any.
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Mapping[str, object],
        start: int = 0,
        positions: Callable[[int], Sequence[Position]] = lambda step: (),
    ) -> None:
        super().__init__(start)
        self.folder, self.recipe, self.positions = folder, recipe, positions

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save."""
        state, positions = self.folder.local / STATE, self.positions(self.step)
        save_state(state, self.model, self.step, self.recipe, positions)
        self.folder.keep(self.step)


class History(StepCallback):
    """Writes a line of JSON a round: step, mean losses, images a second, and what is measured.

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
        self.path, self.batch_size = path, batch_size
        self.measure, self.measure_every = measure, measure_every
        self.last, self.measured = last, False
        written = path.read_text().splitlines() if path.exists() else []
        # A killed run may have written more than it saved.
        self.lines = [line for line in map(json.loads, written) if line["step"] <= start]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Start the clock."""
        self.began, self.first = time.monotonic(), self.step

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Measure, and write the line; ``logs`` get what was measured, for callbacks after this."""
        logs = {} if logs is None else logs
        seconds = time.monotonic() - self.began
        images = (self.step - self.first) * self.batch_size
        line: dict[str, float] = {"step": self.step}
        line |= {name: round(float(value), 5) for name, value in logs.items()}
        line["images_per_second"] = round(images / max(seconds, 1e-9), 1)
        line["seconds"] = round(seconds, 1)
        passed = self.step // self.measure_every > self.first // self.measure_every
        self.measured = passed or self.step == self.last
        if self.measured:
            measured = self.measure()
            line |= measured
            logs.update(measured)
        self.lines.append(line)
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))


class KeepBest(keras.callbacks.Callback):
    """Early stopping and the best checkpoint, by what ``History``, which comes first, measured.

    Args:
        folder: where the best checkpoint goes, each time that one is measured.
        model: what is saved.
        keep: whether it is saved at all.
        patience: measurements in a row without a better one, after which training stops; 0: never.
        lines: the history of a run that is resumed.

    Attribute ``enough``: whether training has been stopped.
    """

    def __init__(
        self,
        folder: Path,
        model: TFGroupViTModel,
        keep: bool,
        patience: int,
        lines: Sequence[Logs] = (),
    ) -> None:
        super().__init__()
        self.folder, self.kept_model, self.keep, self.patience = folder, model, keep, patience
        self.best, self.since = float("-inf"), 0
        for line in lines:
            self._is_better(line)

    @property
    def enough(self) -> bool:
        """Whether ``patience`` measurements brought nothing better."""
        return 0 < self.patience <= self.since

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save the model if it is better; stop when patience has run out."""
        if self._is_better(logs or {}) and self.keep:
            self.kept_model.save_pretrained(self.folder)
        if self.enough:
            self.model.stop_training = True

    def _is_better(self, numbers: Logs) -> bool:
        """Count a measurement, where there is one."""
        for name, sign in BETTER.items():
            if name in numbers:
                better = sign * numbers[name] > self.best
                self.best = max(self.best, sign * numbers[name])
                self.since = 0 if better else self.since + 1
                return better
        return False


class Progress(StepCallback):
    """A bar on standard error with images per second and the loss.

    If that is not a terminal: a line after the second step, after each round, and every
    ``REPORT_EVERY`` seconds, with the loss and how long the rest will take.
    """

    def __init__(self, steps: int, batch_size: int, start: int = 0, bar: bool = True) -> None:
        super().__init__(start)
        self.steps, self.batch_size, self.bar = steps, batch_size, bar
        self.shown: tqdm | None = None
        self.since: tuple[int, float] | None = None  # step and time

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Show the bar."""
        total, done = self.steps * self.batch_size, self.step * self.batch_size
        self.shown = tqdm(total=total, initial=done, unit="image", disable=not self.bar)

    def after_step(self, logs: Logs) -> None:
        """Move the bar, or write a line when it is time."""
        if self.shown is not None:
            self.shown.update(self.batch_size)
            self.shown.set_postfix_str(f"step {self.step}, loss {logs['loss']:.3f}", refresh=False)
        now = time.monotonic()
        if self.since is None:  # the first step traces the graph: it says nothing about the others
            self.since, self.reported = (self.step, now), now
        elif self.step < self.steps and (  # at the last step the line of the round follows
            self.step == self.since[0] + 1 or now - self.reported > REPORT_EVERY
        ):
            self._report(logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the line of the round."""
        self._report(logs or {})

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """End the bar, if there is one: what is written next has a line of its own."""
        if self.shown is not None:
            self.shown.close()

    def _report(self, logs: Logs) -> None:
        self.reported = time.monotonic()
        if not self.bar:
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in logs.items())
            log(f"step {self.step} of {self.steps}: {numbers}{self._time_left()}")

    def _time_left(self) -> str:
        begun, at = self.since or (self.step, self.reported)
        done, left = self.step - begun, self.steps - self.step
        if done < 1 or left < 1:
            return ""
        seconds = (self.reported - at) / done * left
        if seconds < 90:
            return f", about {round(seconds)} s left"
        minutes = round(seconds / 60)
        short = f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
        return f", about {short} left"


class TensorBoard(keras.callbacks.Callback):
    """Writes the numbers of ``History``, before this, and images in the rounds that measured.

    Args:
        folder: for ``tensorboard --logdir``; made if it is missing.
        draw: gives images by name.

    Raises:
        TrainingError: when training begins, if the folder cannot be written.
    """

    def __init__(self, folder: Path, history: History, draw: Draw) -> None:
        super().__init__()
        self.folder, self.history, self.draw = folder, history, draw

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Open the event file."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.writer = tf.summary.create_file_writer(str(self.folder))
        except (OSError, tf.errors.OpError) as error:
            raise TrainingError(
                f"{self.folder} cannot be written for TensorBoard: {error}."
            ) from error

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the line of the round."""
        line = self.history.lines[-1]
        rate = self.model.optimizer.learning_rate
        with self.writer.as_default(step=line["step"]):
            for name, value in {**line, "learning_rate": float(rate)}.items():
                if name not in NOT_PLOTTED:
                    _write_summary(name, "scalars", tf.constant(float(value)))
            if self.history.measured:
                for name, images in self.draw().items():
                    # Width, height, and the PNG file of each, as the plugin has them.
                    sizes = [str(side).encode() for side in images[0].size]
                    _write_summary(name, "images", tf.constant([*sizes, *map(png, images)]))
        self.writer.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Close the event file."""
        self.writer.close()


def _write_summary(name: str, plugin: str, value: tf.Tensor) -> None:
    """As ``tf.summary.scalar`` and ``image`` would; those need TensorBoard's package."""
    metadata = tf.compat.v1.SummaryMetadata(data_class=DATA_CLASSES[plugin])
    metadata.plugin_data.plugin_name = plugin
    tf.summary.write(name, value, metadata=metadata)
