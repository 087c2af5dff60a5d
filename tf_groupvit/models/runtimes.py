"""The names of what can run the folded vision tower. Without TensorFlow: a command refuses others before that loads."""

from tf_groupvit.errors import InputError

GRAPH, LITE = RUNTIMES = ("graph", "lite")  # TensorFlow's own graphs; LiteRT's interpreter (models/lite.py)


def check_runtime(runtime: str) -> None:
    """Raises ``InputError`` for a name that is none of ``RUNTIMES``."""
    if runtime not in RUNTIMES:
        raise InputError(f"runtime is {runtime!r}: expected {' or '.join(map(repr, RUNTIMES))}.")
