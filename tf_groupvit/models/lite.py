"""A function of pixels in; the same, run by LiteRT's interpreter, which packs the weights for its products once, out.

TensorFlow's own products pack them anew at every call, which for one image costs a fifth of it. A program runs one
image of one size; it is made when a size comes for the first time, which takes some seconds at the published size.
"""

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

SIZES = 3  # kept: each holds the weights as they came, packed, and for batches packed twice more
STREAMS = 2  # programs that share a batch: between small products their threads wait less for each other

_asked = ContextVar("for_lite", default=False)


@contextmanager
def for_lite(asked: bool = True) -> Iterator[None]:
    """Inside, what is built or traced is for LiteRT, which has fewer operations than TensorFlow."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def is_for_lite() -> bool:
    return _asked.get()


class LiteFunction:
    """Calls are those of ``function``: pixels (B, C, H, W) -> a list of float32 tensors with B rows each.

    ``shapes`` are those of the results, without B. Works eagerly, and in graphs that run where they were made. Calls
    from several threads wait for each other. ``int8``: products with weights run in 8 bits (``_converted``).
    """

    def __init__(
        self, function: Callable[[Any], list[Any]], shapes: list[tuple[int | None, ...]], int8: bool = False
    ) -> None:
        self.function, self.shapes, self.int8 = function, shapes, int8
        self._sizes: OrderedDict[tuple[int, ...], Programs] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, pixels: Any) -> list[Any]:
        results = tf.numpy_function(self.run, [pixels], [tf.float32] * len(self.shapes), stateful=False)
        return [tf.ensure_shape(result, (None, *shape)) for result, shape in zip(results, self.shapes, strict=True)]

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        images = pixels if len(pixels) else np.zeros((1, *pixels.shape[1:]), np.float32)
        with self._lock:
            rows = self._of_size(images.shape[1:])(images)
        return [np.concatenate(parts)[: len(pixels)] for parts in zip(*rows, strict=True)]

    def _of_size(self, shape: tuple[int, ...]) -> "Programs":
        if shape not in self._sizes:
            while len(self._sizes) >= SIZES:
                self._sizes.popitem(last=False)
            self._sizes[shape] = Programs(self.function, shape, self.int8)
        self._sizes.move_to_end(shape)
        return self._sizes[shape]


class Programs:
    """What runs images (n, C, H, W) of one size: one program with all threads, or several that share the images and the
    threads. They are made when they are needed. Measured on two cores: a batch of 8 takes 0.93 of the time.
    """

    def __init__(self, function: Callable[[Any], list[Any]], shape: tuple[int, ...], int8: bool) -> None:
        self.content = _converted(function, shape, int8)
        self.threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1

    def __call__(self, images: np.ndarray) -> list[list[np.ndarray]]:
        """A row for each image: its results."""
        if len(images) < STREAMS or self.threads < STREAMS:
            return _answers(self._alone, images)
        parts = self._pool.map(_answers, self._beside, np.array_split(images, STREAMS))
        return [row for rows in parts for row in rows]

    @cached_property
    def _alone(self) -> Any:
        return _interpreter(self.content, self.threads)

    @cached_property
    def _beside(self) -> list[Any]:
        return [_interpreter(self.content, self.threads // STREAMS) for _ in range(STREAMS)]

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(STREAMS)


def _converted(function: Callable[[Any], list[Any]], shape: tuple[int, ...], int8: bool) -> bytes:
    """The function of one image of that shape as LiteRT's program.

    ``int8``: weights of 1,024 numbers or more are rounded to 8 bits, with a scale for each output; so are the rows that
    they are multiplied with, each with a scale of its own that is found when it comes. All else stays float32.
    """
    with for_lite():
        signature = [tf.TensorSpec((1, *shape), tf.float32)]
        traced = tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
    converter.exclude_conversion_metadata = True  # which takes a second to be written in
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]  # without examples: "dynamic range quantization"
    return converter.convert()


def _interpreter(content: bytes, threads: int) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated", UserWarning)
        program = tf.lite.Interpreter(model_content=content, num_threads=threads)
    program.allocate_tensors()
    return program


def _answers(program: Any, images: np.ndarray) -> list[list[np.ndarray]]:
    rows = []
    for number in range(len(images)):
        program.set_tensor(program.get_input_details()[0]["index"], images[number : number + 1])
        program.invoke()
        rows.append([program.get_tensor(detail["index"]) for detail in program.get_output_details()])
    return rows
