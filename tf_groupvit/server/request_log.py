"""The log: requests and events in; a line each on standard error out, as text or as JSON.

Requests are logged at INFO, those that failed here (5xx, INTERNAL) at ERROR with their traceback.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tf_groupvit.server.status import StatusError, loggable

_log = logging.getLogger("tf_groupvit.server")
_requests = logging.getLogger("tf_groupvit.server.requests")
FAULT = "Internal error: the server's log has the traceback"


class Line:
    """What is known of one request when it ends."""

    def __init__(self, front: str, what: str) -> None:
        self.front, self.what = front, what
        self.code = "OK"
        self.text = ""
        self.size = 0
        self.started = time.perf_counter()

    def refused(self, refusal: StatusError) -> None:
        self.code, self.text = refusal.code, refusal.text


class RequestLog:
    """Times requests and turns bugs into refusals that tell the caller nothing."""

    @contextmanager
    def request(self, front: str, what: str) -> Iterator[Line]:
        line = Line(front, what)
        try:
            yield line
        except StatusError as refusal:
            line.refused(refusal)
            raise
        except Exception:
            _log.exception("%s %s failed", front, loggable(what))
            fault = StatusError("INTERNAL", FAULT)
            line.refused(fault)
            raise fault from None
        finally:
            self.write(line)

    def write(self, line: Line) -> None:
        if not _requests.isEnabledFor(logging.INFO):
            return
        milliseconds = (time.perf_counter() - line.started) * 1e3
        text = loggable(line.text)
        short = f": '{text}'" if text else ""
        fields = {
            "front": line.front,
            "request": loggable(line.what),
            "code": line.code,
            "milliseconds": round(milliseconds, 2),
            "bytes": line.size,
        }
        _requests.info(
            "%s %s %s %.1f ms %d bytes%s",
            line.front, fields["request"], line.code, milliseconds, line.size, short,
            extra={"fields": fields | ({"error": text} if text else {})},
        )  # fmt: skip


class TextFormatter(logging.Formatter):
    """One line an event, whatever its words hold; what follows it, a traceback, is indented and
    begins no line.
    """

    def format(self, record: logging.LogRecord) -> str:
        first, *rest = super().format(record).split("\n")
        return "\n".join(_plain(line) for line in (first, *(f"    {line}" for line in rest)))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return _plain(super().formatMessage(record))


def _plain(text: str) -> str:
    return text if text.isprintable() else loggable(text, len(text) * 10)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
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
