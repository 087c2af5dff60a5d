"""Numbers of each round and a few pictures as the model sees them in, what TensorBoard shows out.

Summaries are written as TensorBoard's own ``scalar`` and ``image`` would: those need its package, this does not.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from PIL import Image

from tf_groupvit.errors import TrainingError
from tf_groupvit.segmentation.picture import png
from tf_groupvit.training.callbacks import History

# Name of TensorBoard's plugin -> the class of its data, as its files have it.
CLASSES = {"scalars": 1, "images": 3}
UNSHOWN = ("step", "seconds")  # of a line of the history

Draw = Callable[[], Mapping[str, Sequence[Image.Image]]]


class TensorBoard(keras.callbacks.Callback):
    """Stands behind ``History``: the numbers of its lines, and pictures in the rounds in which it measured.

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
            raise TrainingError(f"{self.folder} cannot be written for TensorBoard: {error}.") from error

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        line = self.history.lines[-1]
        with self.writer.as_default(step=line["step"]):
            for name, value in line.items():
                if name not in UNSHOWN:
                    _write(name, "scalars", tf.constant(float(value)))
            _write("learning_rate", "scalars", tf.cast(self.model.optimizer.learning_rate, tf.float32))
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
