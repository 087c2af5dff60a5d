"""A TensorFlow function whose calls another runtime answers, with a program for each input shape.

TensorFlow's own products pack the weights anew at every call, which costs one image a fifth. A
program is made when a shape is seen for the first time, and the last three are kept.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_groupvit.runtimes import load
from tf_groupvit.types import Tensor

# A tensor (B, ...) -> tensors of B rows each.
Function = Callable[[Tensor], list[Tensor]]
# An array (B, ...), one row or more, float32 -> arrays of B rows each.
Run = Callable[[np.ndarray], list[np.ndarray]]

SIZES = 3  # kept: each holds the weights themselves, and packed twice or more
# Programs that share a batch: between small products their threads wait less for each other.
STREAMS = 2


class CompiledFunction:
    """Calls are those of ``function``: a tensor (B, ...), float32 -> a list of tensors, B rows
    each.

    ``shapes`` are those of the results, without B. It works eagerly, and in graphs that run where
    they were made. Calls from several threads wait for each other.

    Raises ``InputError`` where the runtime cannot be loaded.
    """

    def __init__(
        self, function: Function, shapes: Sequence[tuple[int | None, ...]], runtime: str
    ) -> None:
        self.function, self.shapes, self.prepare = function, shapes, load(runtime)
        self.programs: OrderedDict[tuple[int, ...], Run] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> list[Tensor]:
        kinds = [tf.float32] * len(self.shapes)
        results = tf.nest.flatten(tf.numpy_function(self.run, [x], kinds, stateful=False))
        return [
            tf.ensure_shape(result, (None, *shape))
            for result, shape in zip(results, self.shapes, strict=True)
        ]

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """The same of an array (B, ...), which may have no rows."""
        rows = x if len(x) else np.zeros((1, *x.shape[1:]), np.float32)
        with self._lock:
            results = self._program(rows.shape[1:])(rows)
        return [result[: len(x)] for result in results]

    def _program(self, shape: tuple[int, ...]) -> Run:
        if shape not in self.programs:
            while len(self.programs) >= SIZES:
                self.programs.popitem(last=False)
            self.programs[shape] = self.prepare(self.function, shape)
        self.programs.move_to_end(shape)
        return self.programs[shape]


def traced(
    function: Function, shape: tuple[int | None, ...]
) -> tf.types.experimental.ConcreteFunction:
    """The function of one tensor of this shape, float32, as a graph."""
    signature = [tf.TensorSpec(shape, tf.float32)]
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()


def inputs_of(graph: tf.types.experimental.ConcreteFunction) -> list[tf.TensorSpec]:
    """The inputs of a function of tensors, in their order."""
    positional, named = graph.structured_input_signature
    return [*positional, *named.values()]


def thread_count() -> int:
    """As many threads as TensorFlow was told to take, or one for each processor."""
    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
