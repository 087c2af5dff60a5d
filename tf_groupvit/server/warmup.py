"""Warm-up: a loaded servable in; its recorded requests run, or a refusal that fails the load, out.

`assets.extra/tf_serving_warmup_requests` holds PredictionLogs in a TFRecord file, at most 1000 (contract, section 9).
"""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tf_groupvit.server.inference import METHOD_OF, refuse_inference
from tf_groupvit.server.predict import predict_request
from tf_groupvit.server.refusal import Refusal, code_name, invalid, named
from tf_groupvit.server.servable import Servable

MAX_RECORDS = 1000
_log = logging.getLogger("tf_groupvit.server")


@dataclass(frozen=True)
class Warmup:
    records: int
    seconds: float


def warm_up(servable: Servable, iterations: int = 1) -> Warmup | None:
    """Run a version's warm-up file; None where it has none. Raises Refusal."""
    path = os.path.join(servable.path, "assets.extra", "tf_serving_warmup_requests")
    if not tf.io.gfile.exists(path):
        _log.info("No warmup data file found at %s", named(path))
        return None
    _log.info("Starting to read warmup data for model at %s", named(path))
    started, count = time.perf_counter(), 0
    for record in _records(path):
        _run(servable, _parsed(record, path), iterations)
        count += 1
        if count > MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    seconds = time.perf_counter() - started
    _log.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d. Elapsed time "
        "(microseconds): %d.",
        named(path), count, seconds * 1e6,
    )  # fmt: skip
    return Warmup(count, seconds)


def _records(path: str) -> Iterator[bytes]:
    try:
        for record in tf.data.TFRecordDataset(path):
            yield record.numpy()
    except tf.errors.OpError as error:
        # Less what Python adds around it, and the question that newer runtimes add: "corrupted record at 0".
        text = error.message.split("} ")[-1].split(" [Op:")[0].removesuffix(" (Is this even a TFRecord file?)")
        if isinstance(error, tf.errors.DataLossError):
            text = f"{text}. Please verify your warmup data is in TFRecord format."
        raise Refusal(code_name(error.error_code), text) from None


def _parsed(record: bytes, path: str) -> Any:
    try:
        return PredictionLog.FromString(record)
    except DecodeError:
        raise invalid(f"Failed to parse warmup record: {record!r} from {path}") from None


def _run(servable: Servable, log: Any, iterations: int) -> None:
    """Run one record; its model name and version do not matter."""
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    for _ in range(iterations):
        if kind == "predict_log":
            predict_request(servable, log.predict_log.request)
        elif kind in ("classify_log", "regress_log"):
            request = getattr(log, kind).request
            count = len(request.input.example_list.examples)
            refuse_inference(servable, request.model_spec.signature_name, kind.removesuffix("_log"), count)
        elif kind == "multi_inference_log":
            for task in log.multi_inference_log.request.tasks:
                refuse_inference(
                    servable, task.model_spec.signature_name, METHOD_OF.get(task.method_name, "classify"), 1
                )
        else:
            number = log.DESCRIPTOR.fields_by_name[kind].number  # which is how the real server says it
            raise Refusal("UNIMPLEMENTED", f"Unsupported log_type for warmup: {number}")
