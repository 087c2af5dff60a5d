"""One HTTP connection: bytes in; requests for the application, or the refusal of what has no end,
out.

uvicorn's protocol for httptools, which has no limit on a path or on headers, closes no connection
that has not asked anything, and closes a half-closed one without an answer. Here

* a path or headers beyond 64 KiB are 414 and 431;
* a connection that has no whole head of a request after ``idle_seconds``, or whose answer nobody
  reads, is closed;
* of too many connections the one that has been quiet for longest is closed;
* a client that closes its sending side is answered;
* a connection that is closed before its request is read takes what still arrives for a moment, so
  that the client can read the answer.
"""

import asyncio
import http
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tf_groupvit.server.json_writing import write_error

MOST_HEAD_BYTES = 2**16
_LINGER_SECONDS = 1.0


class TooLong(Exception):  # noqa: N818 - ends the parser, which reports an error of its own
    """The head of a request goes on and on."""


class Connections:
    """The connections of a front: at most ``most``, quiet for at most ``idle_seconds``."""

    def __init__(self, most: int, idle_seconds: float) -> None:
        self._most, self.idle_seconds = most, idle_seconds
        self._open: set[Connection] = set()
        self._quiet: dict[Connection, None] = {}  # those that wait for a request, the longest first

    def protocol(self, **given: Any) -> "Connection":
        """A new connection, as uvicorn makes them."""
        return Connection(self, **given)

    def opened(self, connection: "Connection") -> None:
        self._open.add(connection)
        if len(self._open) > self._most:
            next(iter(self._quiet), connection).abort()

    def closed(self, connection: "Connection") -> None:
        self._open.discard(connection)
        self.works(connection)

    def waits(self, connection: "Connection") -> None:
        self.works(connection)
        self._quiet[connection] = None

    def works(self, connection: "Connection") -> None:
        self._quiet.pop(connection, None)


class GentleTransport:
    """A transport that closes by its connection's rules."""

    def __init__(self, transport: Any, connection: "Connection") -> None:
        self._transport, self._connection = transport, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._connection.close_gently(self._transport)

    def is_closing(self) -> bool:
        return self._connection.closing or self._transport.is_closing()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits."""

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._header_bytes = self._unread = 0
        self._refusal: http.HTTPStatus | None = None
        self._whole = True  # nothing of a request is outstanding
        self.closing = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(GentleTransport(transport, self))  # type: ignore[arg-type]
        self._wait()
        self._connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._work()
        self._connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MOST_HEAD_BYTES and not self.closing:
            self._refusal = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.send_400_response("")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection for the answer, where one is due."""
        if (
            self.closing
            or self.cycle is None
            or self.cycle.response_complete
            or self.cycle.more_body
        ):
            return None
        self.cycle.keep_alive = False
        return True

    # The parser's callbacks. `_unread` counts the bytes that led to none of them: a header, or a
    # trailer, without end.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes, self._whole = 0, False
        if self.cycle is None or self.cycle.response_complete:
            self._wait()

    def on_url(self, url: bytes) -> None:
        self._unread = 0
        super().on_url(url)
        self._check(len(self.url), http.HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unread = 0
        self._header_bytes += len(name) + len(value) + 4
        self._check(self._header_bytes, http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unread = 0
        self._work()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread, self._whole = 0, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if (
            self.cycle is None or self.cycle.response_complete
        ):  # else the next one of a pipeline is at work
            self._wait()

    def _check(self, size: int, status: http.HTTPStatus) -> None:
        if size > MOST_HEAD_BYTES:
            self._refusal = status
            raise TooLong

    def send_400_response(self, msg: str) -> None:
        if self._refusal is None:
            super().send_400_response(msg)
            return
        what = "path is" if self._refusal is http.HTTPStatus.REQUEST_URI_TOO_LONG else "headers are"
        body = write_error(f"The request's {what} longer than {MOST_HEAD_BYTES} bytes")
        head = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection:"
            " close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[self._refusal] + head.encode() + body)
        self.transport.close()

    # Time and closing.

    def _wait(self) -> None:
        """A request, or a reader for the answer, is to appear within the time for it."""
        self._stop_timer()
        self._connections.waits(self)
        self._unsent = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(self._connections.idle_seconds, self._too_quiet)

    def _work(self) -> None:
        self._stop_timer()
        self._connections.works(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_quiet(self) -> None:
        if (
            0 < self.transport.get_write_buffer_size() < self._unsent
        ):  # a slow reader, but one that reads
            self._wait()
        else:
            self.abort()

    def abort(self) -> None:
        self.transport.abort()

    def close_gently(self, transport: Any) -> None:
        """Close; where a request is not read to its end, after a moment in which what arrives is
        dropped.

        Closed at once with unread bytes, the system would reset the connection, and the client lose
        the answer.
        """
        if self.closing:
            return
        self.closing = True
        if self._whole or transport.is_closing() or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, transport.close)
