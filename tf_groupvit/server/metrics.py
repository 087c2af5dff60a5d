"""Metrics: counts and latencies in; the Prometheus text page of the real server out.

Names, labels and buckets are TensorFlow Serving's (contract, section 12); TensorFlow's own metrics
are not there. The library prometheus-client reads this page in the tests but cannot write it: it
adds `_total` to the names of counters, puts labels in order of the alphabet, and writes help lines
and counts with a decimal point.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection

from tf_groupvit.server.status import LONGEST_NAME, valid_utf8

_BUCKETS = [10 * 1.8**index for index in range(33)]  # microseconds
_MOST_SERIES = (
    1000  # of one metric; names of unknown models come from outside and must not fill the memory
)
_PREFIX = ":tensorflow:serving:"


class Counter:
    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        self.name, self.labels = name, labels
        self.values: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str, amount: int = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self) -> list[str]:
        rows = [
            f"{_PREFIX}{self.name}{{{_pairs(self.labels, key)}}} {value}"
            for key, value in self.values.items()
        ]
        return [f"# TYPE {_PREFIX}{self.name} counter", *rows] if rows else []


class Histogram:
    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        self.name, self.labels = name, labels
        self.values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def add(self, seconds: float, *labels: str) -> None:
        counts, total = self.values.setdefault(labels, ([0] * (len(_BUCKETS) + 1), [0.0]))
        microseconds = seconds * 1e6
        counts[bisect_left(_BUCKETS, microseconds)] += 1
        total[0] += microseconds

    def lines(self) -> list[str]:
        rows = [
            line
            for key, (counts, total) in self.values.items()
            for line in self._series(key, counts, total[0])
        ]
        return [f"# TYPE {_PREFIX}{self.name} histogram", *rows] if rows else []

    def _series(self, key: tuple[str, ...], counts: list[int], total: float) -> list[str]:
        pairs, so_far, rows = _pairs(self.labels, key), 0, []
        for limit, count in zip(
            [*(f"{limit:g}" for limit in _BUCKETS), "+Inf"], counts, strict=True
        ):
            so_far += count
            rows.append(f'{_PREFIX}{self.name}_bucket{{{pairs},le="{limit}"}} {so_far}')
        rows.append(f"{_PREFIX}{self.name}_sum{{{pairs}}} {total:g}")
        rows.append(f"{_PREFIX}{self.name}_count{{{pairs}}} {so_far}")
        return rows


class Metrics:
    """All metrics of a server. ``served`` gives the names of its models, which always have series
    of their own.
    """

    def __init__(self, served: Callable[[], Collection[str]] = tuple) -> None:
        self._lock = threading.Lock()
        self._served = served
        self._requests = Counter("request_count", ("model_name", "status"))
        self._latency = Histogram("request_latency", ("model_name", "API", "entrypoint"))
        self._runtime = Histogram("runtime_latency", ("model_name", "API", "runtime"))
        self._warmup = Histogram("model_warmup_latency", ("model_path", "status"))
        self._records = Counter("model_warmup_records_read", ("model_path", "status"))

    def answered(self, model: str, status: str) -> None:
        with self._lock:
            name = model[:LONGEST_NAME]
            if model not in self._served():
                name = _bounded(self._requests.values, (name, status))
            self._requests.add(name, status)

    def succeeded(self, model: str, api: str, entrypoint: str, seconds: float) -> None:
        with self._lock:
            self._latency.add(seconds, model[:LONGEST_NAME], api, entrypoint)

    def ran(self, model: str, seconds: float) -> None:
        with self._lock:
            self._runtime.add(seconds, model[:LONGEST_NAME], "Predict", "TF1")

    def warmed(self, path: str, records: int, seconds: float) -> None:
        with self._lock:
            self._warmup.add(seconds, path[:LONGEST_NAME], "OK")
            self._records.add(path[:LONGEST_NAME], "OK", amount=records)

    def page(self) -> str:
        with self._lock:
            metrics: tuple[Counter | Histogram, ...] = (
                self._requests,
                self._latency,
                self._runtime,
                self._warmup,
                self._records,
            )
            return "\n".join(line for metric in metrics for line in metric.lines()) + "\n"


def _bounded(values: dict, labels: tuple[str, ...]) -> str:
    """The name that labels begin with, or one name for all others when there are too many series."""
    return labels[0] if labels in values or len(values) < _MOST_SERIES else "(other)"


def _pairs(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)
    )


def _escaped(value: str) -> str:
    """A label's value as Prometheus reads it; of characters that are not to be seen, their escapes."""
    value = valid_utf8(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode().replace("\\", "\\\\")
        for c in value
    )
