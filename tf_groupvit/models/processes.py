"""Whether this process can run a model: not one that was forked from another in which a model was
made.

TensorFlow's threads stay behind in a fork, and whatever waits for them waits for ever. A process
that was spawned begins anew.
"""

import os

from tf_groupvit.errors import InputError

_first: list[int] = []  # the process in which TensorFlow has begun to work


def is_forked() -> bool:
    """Whether a model was made before this process was forked."""
    return _first != [] and _first != [os.getpid()]


def check_process() -> None:
    """Called before a model is made or run. Raises ``InputError`` where that would never end."""
    if is_forked():
        raise InputError(
            "This process was forked after a model was loaded, and TensorFlow would hang in it:"
            " start processes with multiprocessing.get_context('spawn'), or load the model in the"
            " new process alone."
        )
    if not _first:
        _first.append(os.getpid())
