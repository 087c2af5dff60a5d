"""Programs of LiteRT's interpreter, which is a part of TensorFlow: one image at a time."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from tf_groupvit.runtimes import LITE
from tf_groupvit.runtimes.compiled import STREAMS, thread_count, traced


class LiteProgram:
    """Runs images of one shape (C, H, W), by one interpreter with all threads or by several that
    share images and threads. They are made when they are needed. Measured on two cores: a batch of
    8 takes 0.93 of the time.

    ``int8``: products with weights run in 8 bits (``_converted``).
    """

    def __init__(
        self, function: Callable[[Any], list[Any]], shape: tuple[int, ...], int8: bool = False
    ) -> None:
        self.content = _converted(traced(function, (1, *shape), LITE), int8)
        self.threads = thread_count()

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        if len(images) < STREAMS or self.threads < STREAMS:
            rows = _answers(self._alone, images)
        else:
            parts = self._pool.map(_answers, self._beside, np.array_split(images, STREAMS))
            rows = [row for rows in parts for row in rows]
        return [np.concatenate(results) for results in zip(*rows, strict=True)]

    @cached_property
    def _alone(self) -> Any:
        return _interpreter(self.content, self.threads)

    @cached_property
    def _beside(self) -> list[Any]:
        return [_interpreter(self.content, self.threads // STREAMS) for _ in range(STREAMS)]

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(STREAMS)


def _converted(graph: Any, int8: bool) -> bytes:
    """The graph of one image as LiteRT's program.

    ``int8``: weights of 1,024 numbers or more are rounded to 8 bits, with a scale for each output;
        so are the rows that they are multiplied with, each with a scale of its own that is found
        when it comes. All else stays float32.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module())
    converter.exclude_conversion_metadata = True  # which takes a second to be written in
    if int8:
        converter.optimizations = [
            tf.lite.Optimize.DEFAULT
        ]  # without examples: "dynamic range quantization"
    return converter.convert()


def _interpreter(content: bytes, threads: int) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated", UserWarning)
        program = tf.lite.Interpreter(model_content=content, num_threads=threads)
    program.allocate_tensors()
    return program


def _answers(program: Any, images: np.ndarray) -> list[list[np.ndarray]]:
    """A row for each image: its results."""
    rows = []
    for number in range(len(images)):
        program.set_tensor(program.get_input_details()[0]["index"], images[number : number + 1])
        program.invoke()
        rows.append(
            [program.get_tensor(detail["index"]) for detail in program.get_output_details()]
        )
    return rows
