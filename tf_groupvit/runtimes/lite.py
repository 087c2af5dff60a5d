"""LiteRT, one row of a batch at a time: its own package, or what of it TensorFlow still has."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from tf_groupvit.runtimes.compiled import STREAMS, Function, thread_count, traced


def prepare(function: Function, shape: tuple[int, ...], int8: bool = False) -> "LiteProgram":
    """A program for inputs (B, *shape).

    ``int8``: weights of 1,024 numbers or more are rounded to 8 bits, with a scale for each output;
        so are the rows that they are multiplied with, each with a scale of its own that is found at
        each call. All else stays float32.
    """
    return LiteProgram(converted(traced(function, (1, *shape)), int8, offset=True))


def converted(
    graph: tf.types.experimental.ConcreteFunction, int8: bool = False, offset: bool = False
) -> bytes:
    """The content of a file for LiteRT. With ``offset`` weights lie behind the rest, which costs
    Python one copy less; runtimes of before 2024 do not read that.
    """
    module = tf.Module()
    # With its variables the function is converted by way of a file. Without, each step of freezing
    # would hold copies of all weights: over 1 GiB more at the published size.
    module.weights = graph.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], module)
    converter.exclude_conversion_metadata = True  # writing it takes a second
    converter._experimental_use_buffer_offset = offset
    if int8:  # without examples: "dynamic range quantization"
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content: bytes = converter.convert()
    return content


def calibrated(content: bytes, examples: Sequence[dict[str, np.ndarray]]) -> bytes:
    """The content of a float32 file in 8 bits: weights, and what they are multiplied with. Ranges
    are found on examples, inputs by name; outside of the blocks, where less depends on their speed
    than on their answers, at each call. All else stays float32.
    """
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe_manager import RecipeManager

    # No other operations: LiteRT refuses files where more of them are static.
    product, recipes = TFLOperationName.FULLY_CONNECTED, RecipeManager()
    recipes.add_dynamic_config(".*", product, num_bits=8)
    recipes.add_static_config(".*layers.*", product, activation_num_bits=8, weight_num_bits=8)
    quantizer = Quantizer(content, recipes.get_quantization_recipe())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)
        ranges = quantizer.calibrate({"serving_default": examples})
        found: bytes = quantizer.quantize(ranges).quantized_model
    return found


class LiteProgram:
    """Runs rows of one shape, by one interpreter with all threads or by several that share rows and
    threads. They are made when they are needed. Measured on two cores: a batch of 8 takes 0.93 of
    the time.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.threads = content, thread_count()

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """(B, ...) -> results, B rows each."""
        if len(x) < STREAMS or self.threads < STREAMS:
            rows = _answers(self._alone, x)
        else:
            parts = self._pool.map(_answers, self._shared, np.array_split(x, STREAMS))
            rows = [row for rows in parts for row in rows]
        return [np.concatenate(results) for results in zip(*rows, strict=True)]

    @cached_property
    def _alone(self) -> "Made":
        return _interpreter(self.content, self.threads)

    @cached_property
    def _shared(self) -> list["Made"]:
        return [_interpreter(self.content, self.threads // STREAMS) for _ in range(STREAMS)]

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(STREAMS)


# An interpreter, and the tensors of its results in the function's order; the file may have another.
Made = tuple[Any, list[int]]


def interpreter_of(**options: Any) -> Any:
    """LiteRT's ``Interpreter``, from the extra ``litert`` or, where that is not installed, from
    TensorFlow, which has announced to drop it.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated", UserWarning)
        return Interpreter(**options)


def _interpreter(content: bytes, threads: int) -> Made:
    interpreter = interpreter_of(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    if not interpreter.get_signature_list():  # no file could be written for the converter
        return interpreter, [detail["index"] for detail in interpreter.get_output_details()]
    found = interpreter.get_signature_runner().get_output_details()
    return interpreter, [found[f"output_{number}"]["index"] for number in range(len(found))]


def _answers(made: Made, x: np.ndarray) -> list[list[np.ndarray]]:
    """The results of each row."""
    interpreter, wanted = made
    (given,), rows = interpreter.get_input_details(), []
    for number in range(len(x)):
        interpreter.set_tensor(given["index"], x[number : number + 1])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(index) for index in wanted])
    return rows
