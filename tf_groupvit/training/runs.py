"""The old place of ``training.trainer``, kept for one release."""

import warnings

from tf_groupvit.training.trainer import HISTORY, STATE, Run, build, train

__all__ = ["HISTORY", "STATE", "Run", "build", "train"]

warnings.warn(
    "tf_groupvit.training.runs is now tf_groupvit.training.trainer.",
    DeprecationWarning,
    stacklevel=2,
)
