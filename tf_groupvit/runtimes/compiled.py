"""A function of images or features in; the same out, run by another runtime than TensorFlow,
prepared once.

TensorFlow's own products pack the weights anew at every call, which costs one image a fifth. A
program runs images of one size; it is made when a size comes for the first time, which takes some
seconds at the published size.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_groupvit.runtimes import building_for

SIZES = 3  # kept: each holds the weights as they came, and packed twice or more
STREAMS = (
    2  # programs that share a batch: between small products their threads wait less for each other
)

Program = Callable[
    [np.ndarray], list[np.ndarray]
]  # images (B, C, H, W), one or more -> results, B rows each


class CompiledFunction:
    """Calls are those of ``function``: pixels (B, C, H, W), or features (B, G, C), -> a list of
    float32 tensors with B rows each.

    ``shapes`` are those of the results, without B; ``make`` has the program for images of one
    shape, B aside. Works eagerly, and in graphs that run where they were made. Calls from several
    threads wait for each other.
    """

    def __init__(
        self,
        function: Callable[[Any], list[Any]],
        shapes: list[tuple[int | None, ...]],
        make: Callable[[Callable[[Any], list[Any]], tuple[int, ...]], Program],
    ) -> None:
        self.function, self.shapes, self.make = function, shapes, make
        self._sizes: OrderedDict[tuple[int, ...], Program] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, pixels: Any) -> list[Any]:
        results = tf.numpy_function(
            self.run, [pixels], [tf.float32] * len(self.shapes), stateful=False
        )
        results = tf.nest.flatten(results)  # of one it made no list
        return [
            tf.ensure_shape(result, (None, *shape))
            for result, shape in zip(results, self.shapes, strict=True)
        ]

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        images = pixels if len(pixels) else np.zeros((1, *pixels.shape[1:]), np.float32)
        with self._lock:
            results = self._of_size(images.shape[1:])(images)
        return [result[: len(pixels)] for result in results]

    def _of_size(self, shape: tuple[int, ...]) -> Program:
        if shape not in self._sizes:
            while len(self._sizes) >= SIZES:
                self._sizes.popitem(last=False)
            self._sizes[shape] = self.make(self.function, shape)
        self._sizes.move_to_end(shape)
        return self._sizes[shape]


def traced(
    function: Callable[[Any], list[Any]], shape: tuple[int | None, ...], runtime: str
) -> Any:
    """The function of images (B or None, C, H, W) as a graph for a runtime."""
    with building_for(runtime):
        signature = [tf.TensorSpec(shape, tf.float32)]
        return tf.function(
            function, input_signature=signature, autograph=False
        ).get_concrete_function()


def thread_count() -> int:
    """As many threads as TensorFlow was told to take, or one for each processor."""
    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
