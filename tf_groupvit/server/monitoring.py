"""The log of requests on standard error, and TensorFlow Serving's page of Prometheus metrics."""

import json
import logging
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from tf_groupvit.server.status import LONGEST_NAME, StatusError, loggable, valid_utf8

_log = logging.getLogger("tf_groupvit.server")
_requests = logging.getLogger("tf_groupvit.server.requests")
_FAULT = "Internal error: the server's log has the traceback"


class Line:
    """What is known of one request when it ends. ``size`` is in bytes."""

    def __init__(self, front: str, request: str) -> None:
        self.front, self.request = front, request
        self.code, self.text = "OK", ""
        self.size = 0
        self.started = time.perf_counter()


@contextmanager
def logged_request(front: str, request: str) -> Iterator[Line]:
    """Log a request when the block ends, at INFO.

    A bug within is logged with its traceback; the StatusError that it becomes says nothing of it.
    """
    line = Line(front, request)
    try:
        yield line
    except StatusError as error:
        line.code, line.text = error.code, error.text
        raise
    except Exception:
        _log.exception("%s %s failed", front, loggable(request))
        line.code, line.text = "INTERNAL", _FAULT
        raise StatusError("INTERNAL", _FAULT) from None
    finally:
        if _requests.isEnabledFor(logging.INFO):
            _write(line)


def _write(line: Line) -> None:
    milliseconds = (time.perf_counter() - line.started) * 1e3
    request, text = loggable(line.request), loggable(line.text)
    fields = {
        "front": line.front,
        "request": request,
        "code": line.code,
        "milliseconds": round(milliseconds, 2),
        "bytes": line.size,
    }
    _requests.info(
        "%s %s %s %.1f ms %d bytes%s",
        line.front, request, line.code, milliseconds, line.size, f": '{text}'" if text else "",
        extra={"fields": fields | ({"error": text} if text else {})},
    )  # fmt: skip


class TextFormatter(logging.Formatter):
    """One line for each event; what follows it, a traceback, is indented.

    So no text in an event can forge another line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The event as text."""
        first, *rest = super().format(record).split("\n")
        return "\n".join(_plain(line) for line in (first, *(f"    {line}" for line in rest)))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The first line."""
        return _plain(super().formatMessage(record))


def _plain(text: str) -> str:
    return text if text.isprintable() else loggable(text, len(text) * 10)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """The event as JSON."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logging(level: str, as_json: bool) -> None:
    """Send the server's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    logger = logging.getLogger("tf_groupvit.server")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


# Metrics have the names, labels and buckets of TensorFlow Serving (contract, section 12). The
# library prometheus-client reads the page in the tests but cannot write it: it adds `_total` to the
# names of counters, sorts labels, and writes help lines and counts with a decimal point.

_PREFIX = ":tensorflow:serving:"
_BUCKETS = [10 * 1.8**index for index in range(33)]  # microseconds
_MOST_SERIES = 1000  # of counts: names of unknown models must not fill the memory
_LABELS = {
    "request_count": ("model_name", "status"),
    "request_latency": ("model_name", "API", "entrypoint"),
    "runtime_latency": ("model_name", "API", "runtime"),
    "model_warmup_latency": ("model_path", "status"),
    "model_warmup_records_read": ("model_path", "status"),
}


class Metrics:
    """All metrics of a server. The models that ``served`` names always have their own series."""

    def __init__(self, served: Callable[[], Collection[str]] = tuple) -> None:
        self._served = served
        self._lock = threading.Lock()
        # metric -> values of its labels -> a count, or counts of each bucket and the sum
        self._counts: dict[str, dict[tuple[str, ...], int]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], list[float]]] = {}

    def answered(self, model: str, status: str) -> None:
        """Count a request by its model and status code."""
        labels = (model[:LONGEST_NAME], status)
        with self._lock:
            series = self._counts.setdefault("request_count", {})
            if len(series) >= _MOST_SERIES and labels not in series and model not in self._served():
                labels = ("(other)", status)
            series[labels] = series.get(labels, 0) + 1

    def succeeded(self, model: str, api: str, entrypoint: str, seconds: float) -> None:
        """Add the latency of a request that was answered."""
        self._observe("request_latency", seconds, model, api, entrypoint)

    def ran(self, model: str, seconds: float) -> None:
        """Add the time of a graph."""
        self._observe("runtime_latency", seconds, model, "Predict", "TF1")

    def warmed(self, path: str, records: int, seconds: float) -> None:
        """Add a warm-up."""
        self._observe("model_warmup_latency", seconds, path, "OK")
        labels = (path[:LONGEST_NAME], "OK")
        with self._lock:
            series = self._counts.setdefault("model_warmup_records_read", {})
            series[labels] = series.get(labels, 0) + records

    def _observe(self, metric: str, seconds: float, name: str, *labels: str) -> None:
        microseconds = seconds * 1e6
        with self._lock:
            series = self._histograms.setdefault(metric, {})
            values = series.setdefault((name[:LONGEST_NAME], *labels), [0] * (len(_BUCKETS) + 2))
            values[bisect_left(_BUCKETS, microseconds)] += 1
            values[-1] += microseconds

    def page(self) -> str:
        """The text that Prometheus reads."""
        lines = []
        with self._lock:
            for name, labels in _LABELS.items():
                metric = f"{_PREFIX}{name}"
                if counts := self._counts.get(name):
                    lines.append(f"# TYPE {metric} counter")
                    for key, count in counts.items():
                        lines.append(f"{metric}{{{_pairs(labels, key)}}} {count}")
                if histograms := self._histograms.get(name):
                    lines.append(f"# TYPE {metric} histogram")
                    for key, values in histograms.items():
                        lines += _histogram(metric, _pairs(labels, key), values)
        return "\n".join(lines) + "\n"


def _histogram(metric: str, pairs: str, values: list[float]) -> Iterator[str]:
    count = 0
    for limit, in_bucket in zip([*(f"{b:g}" for b in _BUCKETS), "+Inf"], values[:-1], strict=True):
        count += int(in_bucket)
        yield f'{metric}_bucket{{{pairs},le="{limit}"}} {count}'
    yield f"{metric}_sum{{{pairs}}} {values[-1]:g}"
    yield f"{metric}_count{{{pairs}}} {count}"


def _pairs(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(f'{n}="{_escaped(value)}"' for n, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    """A label's value as Prometheus reads it; characters that cannot be seen as their escapes."""
    value = valid_utf8(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode().replace("\\", "\\\\")
        for c in value
    )
