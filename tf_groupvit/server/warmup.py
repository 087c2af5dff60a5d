"""Warm-up: a loaded servable in; its recorded requests run, or a refusal that fails the load, out.

`assets.extra/tf_serving_warmup_requests` holds PredictionLogs in a TFRecord file, at most 1000
(contract, section 9). The first request of each signature takes seconds, for TensorFlow prepares
the graph then: the default signature's requests can be run first, and the others when the version
serves.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tf_groupvit.server.predict import (
    METHOD_OF,
    predict_request,
    predict_signature,
    refuse_inference,
)
from tf_groupvit.server.servable import DEFAULT_SIGNATURE, Servable
from tf_groupvit.server.status import StatusError, invalid, loggable
from tf_groupvit.transport.status_codes import code_name

MAX_RECORDS = 1000
_log = logging.getLogger("tf_groupvit.server")


@dataclass(frozen=True)
class Warmup:
    records: int
    seconds: float


def warm_up(servable: Servable, iterations: int = 1, only_default: bool = False) -> Warmup | None:
    """Run a version's warm-up file; None where it has none. Raises StatusError.

    With ``only_default`` the predict requests of other signatures are looked at alone;
    ``warm_up_others`` runs them.
    """
    path = os.path.join(servable.path, "assets.extra", "tf_serving_warmup_requests")
    if not tf.io.gfile.exists(path):
        _log.info("No warmup data file found at %s", loggable(path))
        return None
    _log.info("Starting to read warmup data for model at %s", loggable(path))
    started, count, run = time.perf_counter(), 0, 0
    timed = _Timed(servable, iterations)
    for record in _records(path):
        log = _parsed(record, path)
        if only_default and not _is_default(log):
            predict_signature(servable, log.predict_log.request.model_spec.signature_name)
        else:
            timed.run(log)
            run += 1
        count += 1
        if count > MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    seconds = time.perf_counter() - started
    _log.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d. Elapsed time "
        "(microseconds): %d.",
        loggable(path), count, seconds * 1e6,
    )  # fmt: skip
    if run < count:
        _log.info("%d records of other signatures are run while the model is served", count - run)
    return Warmup(run, seconds)


def warm_up_others(servable: Servable, iterations: int, stopped: Callable[[], bool]) -> Warmup:
    """Run what ``warm_up`` left out, until ``stopped`` says so; what fails is logged, for the
    version serves.
    """
    path = os.path.join(servable.path, "assets.extra", "tf_serving_warmup_requests")
    started, count = time.perf_counter(), 0
    timed = _Timed(servable, iterations)
    for record in _records(path):
        log = _parsed(record, path)
        if _is_default(log) or stopped():
            continue
        try:
            timed.run(log)
        except StatusError as refusal:
            _log.error(
                "A warm-up record of %s fails, for which tensorflow_model_server would not load this version: %s: %s",
                loggable(_signature(log)), refusal.code, loggable(refusal.text, 1024),
            )  # fmt: skip
        count += 1
    seconds = time.perf_counter() - started
    _log.info(
        "Ran %d more warm-up records of %s in %.1f s", count, loggable(servable.path), seconds
    )
    return Warmup(count, seconds)


class _Timed:
    """Runs records and says how long the first one of each signature took, which is what warm-up is
    for.
    """

    def __init__(self, servable: Servable, iterations: int) -> None:
        self._servable, self._iterations = servable, iterations
        self._known: set[str] = set()

    def run(self, log: Any) -> None:
        started = time.perf_counter()
        _run(self._servable, log, self._iterations)
        signature = _signature(log)
        if signature not in self._known:
            self._known.add(signature)
            _log.info("Warmed up %s in %.1f s", loggable(signature), time.perf_counter() - started)


def _signature(log: Any) -> str:
    return log.predict_log.request.model_spec.signature_name or DEFAULT_SIGNATURE


def _is_default(log: Any) -> bool:
    return log.WhichOneof("log_type") != "predict_log" or _signature(log) == DEFAULT_SIGNATURE


def _records(path: str) -> Iterator[bytes]:
    try:
        for record in tf.data.TFRecordDataset(path):
            yield record.numpy()
    except tf.errors.OpError as error:
        # Less what Python adds around it, and the question that newer runtimes add: "corrupted
        # record at 0".
        text = (
            error.message.split("} ")[-1]
            .split(" [Op:")[0]
            .removesuffix(" (Is this even a TFRecord file?)")
        )
        if isinstance(error, tf.errors.DataLossError):
            text = f"{text}. Please verify your warmup data is in TFRecord format."
        raise StatusError(code_name(error.error_code), text) from None


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
            refuse_inference(
                servable, request.model_spec.signature_name, kind.removesuffix("_log"), count
            )
        elif kind == "multi_inference_log":
            for task in log.multi_inference_log.request.tasks:
                refuse_inference(
                    servable,
                    task.model_spec.signature_name,
                    METHOD_OF.get(task.method_name, "classify"),
                    1,
                )
        else:
            number = log.DESCRIPTOR.fields_by_name[
                kind
            ].number  # which is how the real server says it
            raise StatusError("UNIMPLEMENTED", f"Unsupported log_type for warmup: {number}")
