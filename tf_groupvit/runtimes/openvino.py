"""OpenVINO, Intel's runtime, of the extra ``openvino``: batches of any length."""

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_groupvit.runtimes.compiled import STREAMS, Function, thread_count, traced

# Without its telemetry, which would report every import and conversion to its makers: as where that
# is not installed.
_telemetry = sys.modules.get("openvino_telemetry")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
try:
    from openvino import Core, convert_model, save_model
finally:
    del sys.modules["openvino_telemetry"]
    if _telemetry is not None:
        sys.modules["openvino_telemetry"] = _telemetry

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where the processor has it


def prepare(function: Function, shape: tuple[int, ...]) -> "OpenVinoProgram":
    """A program for inputs (B, *shape)."""
    return OpenVinoProgram(converted(traced(function, (None, *shape))))


def converted(graph: tf.types.experimental.ConcreteFunction) -> Any:
    """The ``openvino.Model`` of a graph, which holds its weights."""
    return convert_model(
        graph,
        output=[result.name for result in graph.outputs],  # and not whatever nothing reads
        # what it shared with the graph would be read when the graph has gone
        share_weights=False,
    )


def quantized(model: Any, examples: Sequence[dict[str, np.ndarray]] = ()) -> Any:
    """The same ``openvino.Model`` with weights in 8 bits; with examples, inputs by name, the towers
    and projections compute in 8 bits, by ranges that are found on these.
    """
    import nncf

    if not examples:
        return nncf.compress_weights(model)
    around = nncf.IgnoredScope(patterns=["^(?!.*(_model|_projection)).*"], validate=False)
    return nncf.quantize(
        model, nncf.Dataset(examples), subset_size=len(examples), ignored_scope=around
    )


def write(model: Any, file: Path) -> None:
    """Write a model and its weights, float32 as they are."""
    save_model(model, file, compress_to_fp16=False)


def compiled(file: Path) -> Any:
    """The ``openvino.CompiledModel`` of a file, for the processor, as exact as its weights."""
    return Core().compile_model(file, "CPU", EXACT)


class OpenVinoProgram:
    """Runs rows of one shape, as one request of all threads or as several that share rows and
    threads. Both are compiled when they are needed. Measured on two cores: a batch of 8 takes 0.95
    of the time in two.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.threads = model, thread_count()

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """(B, ...) -> results, B rows each."""
        if len(x) < STREAMS or self.threads < STREAMS:
            self._alone.infer([x], share_inputs=True)
            return _results(self._alone)
        for request, part in zip(self._shared, np.array_split(x, STREAMS), strict=True):
            request.start_async([part], share_inputs=True)
        for request in self._shared:
            request.wait()
        return [np.concatenate(parts) for parts in zip(*map(_results, self._shared), strict=True)]

    @cached_property
    def _alone(self) -> Any:
        return self._compiled(streams=1).create_infer_request()

    @cached_property
    def _shared(self) -> list[Any]:
        compiled = self._compiled(STREAMS)
        return [compiled.create_infer_request() for _ in range(STREAMS)]

    def _compiled(self, streams: int) -> Any:
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": streams,
            **EXACT,
            "ENABLE_CPU_PINNING": False,  # else two processes take the same cores, and leave others
        }
        return Core().compile_model(self.model, "CPU", settings)


def _results(request: Any) -> list[np.ndarray]:
    """Copies: the request writes its next results where these were."""
    return [tensor.data.copy() for tensor in request.output_tensors]
