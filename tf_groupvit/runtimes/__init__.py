"""What can run the folded vision tower, by name. Without TensorFlow: a command refuses others
before that loads.

graph: TensorFlow's own. lite: LiteRT's interpreter. lite_int8: the same with weights and what is
    multiplied with them in 8 bits, which changes results. openvino: Intel's runtime, of the extra
    ``openvino``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

from tf_groupvit.errors import InputError

GRAPH, LITE, LITE_INT8, OPENVINO = "graph", "lite", "lite_int8", "openvino"
TITLES = {GRAPH: "TensorFlow", LITE: "LiteRT", LITE_INT8: "LiteRT", OPENVINO: "OpenVINO"}
RUNTIMES = tuple(TITLES)

_built_for = ContextVar("built_for", default=GRAPH)


def check_runtime(runtime: str) -> None:
    """Raises ``InputError`` for a name that is none of ``RUNTIMES``, and where what it names is not
    installed.
    """
    if runtime not in RUNTIMES:
        raise InputError(
            f"runtime is {runtime!r}: expected one of {', '.join(map(repr, RUNTIMES))}."
        )
    if runtime == OPENVINO and find_spec("openvino") is None:
        raise InputError(
            "runtime 'openvino' needs OpenVINO, which is not installed: pip install"
            " 'tf-groupvit[openvino]'."
        )


@contextmanager
def building_for(runtime: str) -> Iterator[None]:
    """Inside, layers are folded and traced for a runtime: each has operations, and fuses patterns,
    of its own.
    """
    token = _built_for.set(runtime)
    try:
        yield
    finally:
        _built_for.reset(token)


def built_for() -> str:
    return _built_for.get()
