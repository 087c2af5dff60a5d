"""The old place of ``training.contrastive_model``, kept for one release."""

import warnings

from tf_groupvit.training.contrastive_model import TrainingModel

__all__ = ["TrainingModel"]

warnings.warn(
    "tf_groupvit.training.step is now tf_groupvit.training.contrastive_model.",
    DeprecationWarning,
    stacklevel=2,
)
