"""The old place of ``SceneScores``, kept for one release."""

import warnings

from tf_groupvit.training.validation import SceneScores

__all__ = ["SceneScores"]

warnings.warn(
    "tf_groupvit.training.measuring is now tf_groupvit.training.validation.",
    DeprecationWarning,
    stacklevel=2,
)
