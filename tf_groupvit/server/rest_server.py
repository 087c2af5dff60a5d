"""The REST server: uvicorn in a thread of its own, with limits on connections.

uvicorn's protocol for httptools has no limit on a path or on headers, never closes a connection
that has sent no request, and closes a half-closed one without an answer. Here

* a path or headers beyond 64 KiB are 414 and 431;
* a connection that has no whole head of a request after ``idle_seconds``, or whose answer nobody
  reads, is closed;
* of too many connections the one that has been quiet for longest is closed;
* a client that closes its sending side is answered;
* a connection that is closed before its request is read keeps reading for a moment, so that the
  client can read the answer.
"""

import asyncio
import http
import logging
import threading
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tf_groupvit.server.json_responses import write_error
from tf_groupvit.server.options import Options
from tf_groupvit.server.ports import Port
from tf_groupvit.server.rest_app import RestApp

MOST_HEAD_BYTES = 2**16
_LINGER_SECONDS = 1.0
_log = logging.getLogger("tf_groupvit.server")


class RestServer:
    """Serves the application; ``on_fault`` is called if it ends with an exception."""

    def __init__(self, app: RestApp, options: Options, on_fault: Callable[[], None]) -> None:
        self._app, self._on_fault = app, on_fault
        self._connections = Connections(options.max_connections, options.receive_timeout_seconds)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def listen(self, port: Port) -> None:
        """Listen on the port that is held, and serve. Raises ServerError."""
        listening = port.listening()
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            interface="asgi3",
            http=cast(Any, self._connections.protocol),
            timeout_keep_alive=2**31,  # the connections close themselves
        )
        server = self._server = uvicorn.Server(config)

        def serve() -> None:
            try:
                with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                    runner.run(server.serve(sockets=[listening]))
            except Exception:
                _log.exception("The REST server ended by an exception")
                self._on_fault()

        self._thread = threading.Thread(target=serve, daemon=True, name="rest")
        self._thread.start()

    def drain(self) -> None:
        """New requests are answered 503 from now on, and their connections closed."""
        self._app.draining = True

    def stop(self, grace: float) -> None:
        """Close the port and let requests under way finish within ``grace`` seconds."""
        if self._server is not None and self._thread is not None:
            self._server.config.timeout_graceful_shutdown = max(1, int(grace))
            self._server.should_exit = True
            self._thread.join(grace + 5)
        self._app.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, asyncio's own elsewhere."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Connections:
    """The connections of a server: at most ``most``, quiet for at most ``idle_seconds``."""

    def __init__(self, most: int, idle_seconds: float) -> None:
        self._most, self.idle_seconds = most, idle_seconds
        self._open: set[Connection] = set()
        self._quiet: dict[Connection, None] = {}  # those that wait for a request, longest first

    def protocol(self, **given: Any) -> "Connection":
        """A new connection, as uvicorn makes them."""
        return Connection(self, **given)

    def opened(self, connection: "Connection") -> None:
        """A new connection: where there are too many, the quietest one closes."""
        self._open.add(connection)
        if len(self._open) > self._most:
            next(iter(self._quiet), connection).abort()

    def closed(self, connection: "Connection") -> None:
        """The connection is gone."""
        self._open.discard(connection)
        self.works(connection)

    def waits(self, connection: "Connection") -> None:
        """The connection waits for a request, from now on."""
        self.works(connection)
        self._quiet[connection] = None

    def works(self, connection: "Connection") -> None:
        """The connection has a request."""
        self._quiet.pop(connection, None)


class GentleTransport:
    """A transport that lets its connection decide how to close."""

    def __init__(self, transport: asyncio.Transport, connection: "Connection") -> None:
        self._transport, self._connection = transport, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close when the client can read the answer."""
        self._connection.close_gently(self._transport)

    def is_closing(self) -> bool:
        """Whether nothing more is read."""
        return self._connection.closing or self._transport.is_closing()


class TooLong(Exception):  # noqa: N818 - ends the parser, which reports an error of its own
    """The head of a request goes on and on."""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits. What overrides it has its names and is called by it."""

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._header_bytes = self._unread = 0
        self._refusal: http.HTTPStatus | None = None
        self._whole = True  # nothing of a request is outstanding
        self.closing = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection opens."""
        super().connection_made(GentleTransport(transport, self))  # type: ignore[arg-type]
        self._wait()
        self._connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._work()
        self._connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; the callbacks below are called by the parser."""
        if self.closing:
            return
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MOST_HEAD_BYTES and not self.closing:
            self._refusal = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.send_400_response("")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection for the answer, where one is due."""
        cycle = self.cycle
        if self.closing or cycle is None or cycle.response_complete or cycle.more_body:
            return None
        cycle.keep_alive = False
        return True

    # `_unread` counts the bytes that led to none of these callbacks: a header, or a trailer,
    # without end.

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._header_bytes, self._whole = 0, False
        if self.cycle is None or self.cycle.response_complete:
            self._wait()

    def on_url(self, url: bytes) -> None:
        """A part of its path."""
        self._unread = 0
        super().on_url(url)
        self._check(len(self.url), http.HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._unread = 0
        self._header_bytes += len(name) + len(value) + 4
        self._check(self._header_bytes, http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """All headers."""
        self._unread = 0
        self._work()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._unread, self._whole = 0, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written; the next request of a pipeline may be at work."""
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._wait()

    def _check(self, size: int, status: http.HTTPStatus) -> None:
        if size > MOST_HEAD_BYTES:
            self._refusal = status
            raise TooLong

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, or is too long."""
        if self._refusal is None:
            super().send_400_response(msg)
            return
        what = "path is" if self._refusal is http.HTTPStatus.REQUEST_URI_TOO_LONG else "headers are"
        body = write_error(f"The request's {what} longer than {MOST_HEAD_BYTES} bytes")
        head = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[self._refusal] + head.encode() + body)
        self.transport.close()

    # Time and closing

    def _wait(self) -> None:
        """Close the connection unless a request, or a reader of the answer, comes in time."""
        self._work()
        self._connections.waits(self)
        self._unsent = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(self._connections.idle_seconds, self._too_quiet)

    def _work(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connections.works(self)

    def _too_quiet(self) -> None:
        if 0 < self.transport.get_write_buffer_size() < self._unsent:  # a slow reader, but one
            self._wait()
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def close_gently(self, transport: asyncio.Transport) -> None:
        """Close; a request that is not read to its end is dropped for a moment before.

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
