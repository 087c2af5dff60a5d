"""The REST front: `RestAnswers` in; an ASGI application, and a uvicorn server around it, out.

Requests that run a model are read in the event loop, take a place in the gate when their body is
whole, and work in a thread; everything else is answered in the event loop.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

from tf_groupvit.server.admission import Arrival, Arrivals, Deadline
from tf_groupvit.server.ports import Port
from tf_groupvit.server.rest_answers import Answer, RestAnswers, too_large
from tf_groupvit.server.rest_connection import Connections
from tf_groupvit.server.status import TIMED_OUT, StatusError, draining

_CROWDED = "Too many requests are arriving at once, and this one was the slowest; try again later"

_log = logging.getLogger("tf_groupvit.server")


class ClientGone(Exception):  # noqa: N818 - nobody is left to tell
    """The connection closed before the body was there."""


class RestApp:
    """The ASGI application."""

    def __init__(
        self,
        answers: RestAnswers,
        arrivals: Arrivals,
        max_request_bytes: int,
        receive_seconds: float,
    ) -> None:
        self._answers, self.arrivals = answers, arrivals
        self._most, self._receive_seconds = max_request_bytes, receive_seconds
        self._pool = ThreadPoolExecutor(answers.answers.gate.running, thread_name_prefix="rest")
        self.draining = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        with contextlib.suppress(ClientGone):
            try:
                answer = await self._answer(scope, receive)
            except asyncio.CancelledError:  # the server ends, and the request's time with it
                answer = self._answers.refuse(scope["method"], target_of(scope), draining())
            if self.draining:
                closing(answer)
            await _send(answer, send)

    async def _answer(self, scope: dict[str, Any], receive: Any) -> Answer:
        method, target = scope["method"], target_of(scope)
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if self.draining:
            return self._answers.refuse(method, target, draining())
        if not self._answers.is_work(method, target):
            return self._answers.answer_aside(method, target, headers)
        try:
            return await self._work(method, target, headers, receive)
        except StatusError as refusal:
            return self._answers.refuse(method, target, refusal)

    async def _work(
        self, method: str, target: str, headers: dict[str, str], receive: Any
    ) -> Answer:
        deadline = Deadline(self._answers.timeout)
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._most:
            return closing(too_large(self._most))
        arrival = self.arrivals.enter()
        try:
            try:
                body = await self._body(receive, arrival, deadline)
            except StatusError as refusal:
                return closing(self._answers.refuse(method, target, refusal))
            if body is None:
                return closing(too_large(self._most))
            work = partial(
                self._answers.answer_work, method, target, headers, body, deadline=deadline
            )
            return await self._in_a_thread(work, deadline)
        finally:
            self.arrivals.leave(arrival)

    async def _body(self, receive: Any, arrival: Arrival, deadline: Deadline) -> bytes | None:
        """The whole body, or None when it is longer than allowed. Raises StatusError where it takes too
        long.
        """
        left = deadline.remaining()
        try:
            seconds = self._receive_seconds if left is None else min(left, self._receive_seconds)
            async with asyncio.timeout(seconds) as limit:
                arrival.drop = lambda: limit.reschedule(0)
                body = await self._parts(receive, arrival)
                self.arrivals.whole(arrival)
        except TimeoutError:
            if arrival.dropped:
                raise StatusError("RESOURCE_EXHAUSTED", _CROWDED) from None
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT) from None
        return body

    async def _parts(self, receive: Any, arrival: Arrival) -> bytes | None:
        parts, more = [], True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ClientGone
            parts.append(event.get("body", b""))
            self.arrivals.grow(arrival, len(parts[-1]))
            if arrival.size > self._most:
                return None
            more = event.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _in_a_thread(self, work: Callable[..., Answer], deadline: Deadline) -> Answer:
        """Run in a thread, and answer in time even where no thread is free, or the work does not
        end.
        """
        left = deadline.remaining()
        ticket = self._answers.answers.gate.admit()

        def run() -> Answer:
            with ticket:
                return work(ticket=ticket)

        job = self._pool.submit(run)
        job.add_done_callback(lambda job: ticket.leave() if job.cancelled() else None)
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(job)), left)
        except TimeoutError:
            if job.cancel():  # it had not begun
                raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT) from None
            return self._answers.late()

    def close(self) -> None:
        """Begin nothing any more. What runs in a thread is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def closing(answer: Answer) -> Answer:
    """The answer to a request that was not read to its end: the connection is of no more use."""
    answer.headers["Connection"] = "close"
    return answer


def target_of(scope: dict[str, Any]) -> str:
    """The raw path with its query."""
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    query = scope.get("query_string", b"")
    return (raw + b"?" + query if query else raw).decode("utf-8", "surrogateescape")


async def _send(answer: Answer, send: Any) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers.items()]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


class RestFront:
    """A uvicorn server in a thread of its own; ``on_fault`` is called where that ends by an
    exception.
    """

    def __init__(
        self, app: RestApp, connections: Connections, on_fault: Callable[[], None]
    ) -> None:
        self.app, self._connections, self._on_fault = app, connections, on_fault
        self._socket: socket.socket | None = None
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def listen(self, port: Port) -> None:
        """Listen on the port that is held, and serve. Raises ServerError."""
        import uvicorn

        self._socket = port.listening()
        config = uvicorn.Config(
            self.app, lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, interface="asgi3", http=cast(Any, self._connections.protocol),
            timeout_keep_alive=2**31,  # the connections see to it
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="rest")
        self._thread.start()

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._server.serve(sockets=[self._socket]))
        except Exception:
            _log.exception("The REST front ended by an exception")
            self._on_fault()

    def drain(self) -> None:
        """New requests are answered 503 from now on, and their connections closed."""
        self.app.draining = True

    def stop(self, grace: float) -> None:
        """Close the port and let requests under way finish within ``grace`` seconds."""
        if self._server is not None and self._thread is not None:
            self._server.config.timeout_graceful_shutdown = max(1, int(grace))
            self._server.should_exit = True
            self._thread.join(grace + 5)
        self.app.close()


def _loop_factory() -> Any:
    """uvloop's where it is installed, asyncio's own elsewhere."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
