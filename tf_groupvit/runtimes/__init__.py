"""What can run a traced function in TensorFlow's place, by name; importing this loads none of them.

A runtime is a file of this room with one function, ``prepare(function, shape, **options)``. It
makes a program of a TensorFlow function for inputs of one shape. To add one: its file, and a row of
``RUNTIMES``.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from tf_groupvit.errors import InputError, one_line

if TYPE_CHECKING:
    from tf_groupvit.runtimes.compiled import Function, Run

    Prepare = Callable[[Function, tuple[int, ...]], Run]

GRAPH, LITE, LITE_INT8 = "graph", "lite", "lite_int8"
OPENVINO, ONNX = "openvino", "onnx"
AUTO = "auto"  # the fastest of the exact ones, which segmentation/fastest.py finds


class Runtime(NamedTuple):
    """``title`` is its own name, ``module`` the file here, which gets the ``options``; ``packages``
    those that it needs, and ``extra`` the extra of this package that brings them.
    """

    title: str
    module: str = ""
    options: Mapping[str, Any] = {}
    extra: str = ""
    packages: tuple[str, ...] = ()


RUNTIMES = {
    GRAPH: Runtime("TensorFlow"),
    LITE: Runtime("LiteRT", "lite"),  # its interpreter is a part of TensorFlow, too
    LITE_INT8: Runtime("LiteRT", "lite", {"int8": True}),  # in 8 bits, which changes results
    OPENVINO: Runtime("OpenVINO", "openvino", extra="openvino", packages=("openvino",)),
    ONNX: Runtime("ONNX Runtime", "onnx", extra="onnx", packages=("tf2onnx", "onnxruntime")),
}
WITH_AUTO = (*RUNTIMES, AUTO)  # of a segmenter


def check_runtime(runtime: str, known: Iterable[str] = RUNTIMES) -> None:
    """Raises ``InputError`` for a name that is not known, and where what it names is not
    installed.
    """
    if runtime not in known:
        raise InputError(f"runtime is {runtime!r}: expected one of {', '.join(map(repr, known))}.")
    if runtime == AUTO:
        return
    title, extra = RUNTIMES[runtime].title, RUNTIMES[runtime].extra
    if any(find_spec(package) is None for package in RUNTIMES[runtime].packages):
        raise InputError(
            f"runtime {runtime!r} needs {title}, which is not installed: pip install"
            f" 'tf-groupvit[{extra}]'."
        )


def load(runtime: str) -> "Prepare":
    """What makes a program of a function for inputs (B, *shape), in some seconds at the published
    size; the program holds the weights as they are now.

    Raises ``InputError`` where the package that it needs cannot be loaded.
    """
    title, module, options, *_ = RUNTIMES[runtime]
    try:
        loaded = import_module(f"{__name__}.{module}")
    except Exception as error:  # a package may fail in any way
        raise InputError(
            f"runtime {runtime!r}: {title} is there and cannot be loaded ({one_line(error)}):"
            " install it again."
        ) from error
    return partial(loaded.prepare, **options)
