"""What each round measured in; the best checkpoint in a folder, and an early stop, out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tf_groupvit.models.groupvit import TFGroupViTModel

BETTER = {"val_miou": 1, "val_loss": -1}  # measured -> 1 where more is better


class KeepBest(keras.callbacks.Callback):
    """Stands behind ``History``, whose measurements it reads.

    Args:
        folder: where the best checkpoint goes, each time that one is measured.
        model: what is saved.
        keep: whether it is saved at all.
        patience: measurements in a row without a better one, after which training stops; 0: it does not.
        lines: the history of a run that goes on.

    Attribute ``enough``: whether training has been stopped.
    """

    def __init__(
        self, folder: Path, model: TFGroupViTModel, keep: bool, patience: int, lines: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        super().__init__()
        self.folder, self.kept_model, self.keep, self.patience = folder, model, keep, patience
        self.best, self.since = float("-inf"), 0
        for line in lines:
            self._is_better(line)

    @property
    def enough(self) -> bool:
        return 0 < self.patience <= self.since

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._is_better(logs or {}) and self.keep:
            self.kept_model.save_pretrained(self.folder)
        if self.enough:
            self.model.stop_training = True

    def _is_better(self, numbers: Mapping[str, float]) -> bool:
        """Counts a measurement, where there is one."""
        for name, sign in BETTER.items():
            if name in numbers:
                better = sign * numbers[name] > self.best
                self.best = max(self.best, sign * numbers[name])
                self.since = 0 if better else self.since + 1
                return better
        return False
