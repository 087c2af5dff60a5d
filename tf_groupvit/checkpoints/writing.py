"""The old place of ``write_checkpoint`` and ``write_safetensors``, kept for one release."""

import warnings

from tf_groupvit.checkpoints.safetensors_file import write_checkpoint, write_safetensors

__all__ = ["write_checkpoint", "write_safetensors"]

warnings.warn(
    "tf_groupvit.checkpoints.writing is now tf_groupvit.checkpoints.safetensors_file.",
    DeprecationWarning,
    stacklevel=2,
)
