"""The place of ``tf_groupvit.scenes.scene`` in 0.1, for one release more."""

import warnings

from tf_groupvit.scenes.scene import CLASSES, Scene, caption, scene, scenes

__all__ = ["CLASSES", "Scene", "caption", "scene", "scenes"]

warnings.warn(
    "tf_groupvit.evaluation.scenes is now tf_groupvit.scenes.scene.",
    DeprecationWarning,
    stacklevel=2,
)
