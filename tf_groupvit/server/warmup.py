"""Warm-up: run a version's recorded requests before it serves, or most of them afterwards.

`assets.extra/tf_serving_warmup_requests` holds PredictionLogs in a TFRecord file, at most 1000
(contract, section 9). The first request of each signature takes seconds, because TensorFlow
prepares the graph at that point. A record that fails keeps the version from loading.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from tensorflow.python.framework.errors import DataLossError, OpError
from tensorflow.python.lib.io import file_io
from tensorflow.python.lib.io._pywrap_record_io import RecordIterator
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
    """How many records ran, and for how long; and how many are left for later."""

    records: int
    seconds: float
    left: int = 0


def warm_up(servable: Servable, iterations: int = 1, only_first: bool = False) -> Warmup | None:
    """Run each record of a version's file ``iterations`` times; None where it has no file.

    With ``only_first`` only the first record of the default signature is run, and the others are
    left to ``warm_up_others``; their signatures must exist. Raises StatusError.
    """
    path = _records_path(servable)
    if not file_io.file_exists_v2(path):
        _log.info("No warmup data file found at %s", loggable(path))
        return None
    _log.info("Starting to read warmup data for model at %s", loggable(path))
    started, count, run = time.perf_counter(), 0, 0
    seen: set[str] = set()
    for count, (log, at_once) in enumerate(_told_apart(path), 1):
        if only_first and not at_once:
            predict_signature(servable, log.predict_log.request.model_spec.signature_name)
        else:
            _run(servable, log, iterations, seen)
            run += 1
        if count > MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    seconds = time.perf_counter() - started
    _log.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d. Elapsed"
        " time (microseconds): %d.",
        loggable(path),
        count,
        seconds * 1e6,
    )
    if run < count:
        _log.info("%d more records are run while the model is served", count - run)
    return Warmup(run, seconds, count - run)


def warm_up_others(servable: Servable, iterations: int, stopped: Callable[[], bool]) -> Warmup:
    """Run what ``warm_up`` left out, until ``stopped`` says so.

    A record that fails is an error in the log, since the version serves already.
    """
    started, count = time.perf_counter(), 0
    seen: set[str] = set()
    servable = servable.aside()
    for log, at_once in _told_apart(_records_path(servable)):
        if at_once or stopped():
            continue
        try:
            _run(servable, log, iterations, seen)
        except StatusError as refusal:
            _log.error(
                "A warm-up record of %s fails, for which tensorflow_model_server would not load"
                " this version: %s: %s",
                loggable(_signature(log)),
                refusal.code,
                loggable(refusal.text, 1024),
            )
        count += 1
    seconds = time.perf_counter() - started
    _log.info(
        "Ran %d more warm-up records of %s in %.1f s", count, loggable(servable.path), seconds
    )
    return Warmup(count, seconds)


def _records_path(servable: Servable) -> str:
    return os.path.join(servable.path, "assets.extra", "tf_serving_warmup_requests")


def _signature(log: PredictionLog) -> str:
    return log.predict_log.request.model_spec.signature_name or DEFAULT_SIGNATURE


def _told_apart(path: str) -> Iterator[tuple[PredictionLog, bool]]:
    """The records of a file, and whether each is run before the version serves in any case: the
    first one of the default signature, and all that are no Predict requests, since those are errors
    or nothing to run.
    """
    first = True
    for log in _logs(path):
        predict = log.WhichOneof("log_type") == "predict_log"
        default = predict and _signature(log) == DEFAULT_SIGNATURE
        yield log, not predict or (default and first)
        first = first and not default


def _logs(path: str) -> Iterator[PredictionLog]:
    """The records of a file. Raises StatusError in the words of the C++ reader."""
    record = b""
    try:
        for record in RecordIterator(path, ""):
            yield PredictionLog.FromString(record)
    except DecodeError:
        raise invalid(f"Failed to parse warmup record: {record!r} from {path}") from None
    except OpError as error:
        # Without the text that Python and newer runtimes add around it: "corrupted record at 0".
        text = error.message.split("} ")[-1].split(" [Op:")[0]
        text = text.removesuffix(" (Is this even a TFRecord file?)")
        if isinstance(error, DataLossError):
            text = f"{text}. Please verify your warmup data is in TFRecord format."
        raise StatusError(code_name(error.error_code), text) from None


def _run(servable: Servable, log: PredictionLog, iterations: int, seen: set[str]) -> None:
    """Run one record, whatever model and version it names, and log how long the first one of each
    signature took.
    """
    kind = log.WhichOneof("log_type")
    started = time.perf_counter()
    for _ in range(iterations):
        if kind == "predict_log":
            predict_request(servable, log.predict_log.request)
        elif kind in ("classify_log", "regress_log"):
            request = getattr(log, kind).request
            count = len(request.input.example_list.examples)
            name, method = request.model_spec.signature_name, kind.removesuffix("_log")
            refuse_inference(servable, name, method, count)
        elif kind == "multi_inference_log":
            for task in log.multi_inference_log.request.tasks:
                method = METHOD_OF.get(task.method_name, "classify")
                refuse_inference(servable, task.model_spec.signature_name, method, 1)
        elif kind is not None:
            number = log.DESCRIPTOR.fields_by_name[kind].number  # how the real server says it
            raise StatusError("UNIMPLEMENTED", f"Unsupported log_type for warmup: {number}")
    if _signature(log) not in seen:
        seen.add(_signature(log))
        _log.info(
            "Warmed up %s in %.1f s", loggable(_signature(log)), time.perf_counter() - started
        )
