"""The names of what can run the folded vision tower. Without TensorFlow: a command refuses others before that loads.

graph: TensorFlow's own. lite: LiteRT's interpreter. lite_int8: the same with weights and what is multiplied with them
in 8 bits, which changes results.
"""

from tf_groupvit.errors import InputError

GRAPH, LITE_INT8 = "graph", "lite_int8"
RUNTIMES = (GRAPH, "lite", LITE_INT8)


def check_runtime(runtime: str) -> None:
    """Raises ``InputError`` for a name that is none of ``RUNTIMES``."""
    if runtime not in RUNTIMES:
        raise InputError(f"runtime is {runtime!r}: expected one of {', '.join(map(repr, RUNTIMES))}.")
