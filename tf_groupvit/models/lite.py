"""A function of pixels in; the same, run by LiteRT's interpreter, which packs the weights for its products once, out.

TensorFlow's own products pack them anew at every call, which for one image costs a fifth of it. One program runs one
image of one size; it is made when a size comes for the first time, which takes some seconds at the published size.
"""

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

PROGRAMS = 3  # sizes kept: each holds the weights twice, as they came and packed

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
    from several threads wait for each other.
    """

    def __init__(self, function: Callable[[Any], list[Any]], shapes: list[tuple[int | None, ...]]) -> None:
        self.function, self.shapes = function, shapes
        self._programs: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, pixels: Any) -> list[Any]:
        results = tf.numpy_function(self.run, [pixels], [tf.float32] * len(self.shapes), stateful=False)
        return [tf.ensure_shape(result, (None, *shape)) for result, shape in zip(results, self.shapes, strict=True)]

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        images = pixels if len(pixels) else np.zeros((1, *pixels.shape[1:]), np.float32)
        with self._lock:
            program = self._program(images.shape[1:])
            rows = [_answers(program, images[i : i + 1]) for i in range(len(images))]
        return [np.concatenate(parts)[: len(pixels)] for parts in zip(*rows, strict=True)]

    def _program(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._programs:
            while len(self._programs) >= PROGRAMS:
                self._programs.popitem(last=False)
            self._programs[shape] = _program_of(self.function, shape)
        self._programs.move_to_end(shape)
        return self._programs[shape]


def _program_of(function: Callable[[Any], list[Any]], shape: tuple[int, ...]) -> Any:
    with for_lite():
        signature = [tf.TensorSpec((1, *shape), tf.float32)]
        traced = tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
    converter.exclude_conversion_metadata = True  # which takes a second to be written in
    converted = converter.convert()
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated", UserWarning)
        program = tf.lite.Interpreter(model_content=converted, num_threads=threads)
    program.allocate_tensors()
    return program


def _answers(program: Any, image: np.ndarray) -> list[np.ndarray]:
    program.set_tensor(program.get_input_details()[0]["index"], image)
    program.invoke()
    return [program.get_tensor(detail["index"]) for detail in program.get_output_details()]
