"""gRPC calls on their way in: a grpc.ServerInterceptor that gives a call back which waits too long
for its message.

grpc takes a thread for each call when it begins, and keeps it until the message is there. Here a
call that waits is cancelled after ``seconds``; where many wait, those that have waited for longest
are, so that calls whose message never comes, and streams that are kept open, hold no thread that
others need.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from tf_groupvit.server.threads import lasting

MOST_WATCHES = 64  # streams kept open for answers, each with a thread
_LOOK_SECONDS = 0.1
_PATIENCE = 0.1  # seconds that a message may take on its way even where many calls wait


class CallArrivals(grpc.ServerInterceptor):
    """Calls that wait for a message. Some three quarters of ``most`` may; then half of them are
    cancelled.
    """

    def __init__(
        self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._lock = threading.Lock()
        self._since: dict[Any, float] = {}  # call -> when it began to wait, the longest first
        self._open: dict[
            Any, None
        ] = {}  # streams that are answered from time to time, the oldest first
        self._handlers: dict[Any, Any] = {}
        self._stopped = threading.Event()

    def __len__(self) -> int:
        return len(self._since)

    def start(self) -> None:
        lasting("grpc-arrivals", self._look_for_ever).start()

    def stop(self) -> None:
        self._stopped.set()

    def _look_for_ever(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            self.cancel_late()

    def cancel_late(self) -> None:
        """Cancel the calls that have waited for too long."""
        for call in self._late():
            self._leave(call)
            call.cancel()

    def _late(self) -> list[Any]:
        now = self._clock()
        with self._lock:
            waiting = list(self._since.items())
        late = [call for call, since in waiting if now - since >= self._seconds]
        if len(waiting) - len(late) <= 3 * self._most // 4:
            return late
        return [
            call
            for call, since in waiting[: len(waiting) - self._most // 2]
            if now - since >= _PATIENCE
        ]

    def _enter(self, call: Any) -> None:
        with self._lock:
            self._since.pop(call, None)
            self._since[call] = self._clock()

    def _leave(self, call: Any) -> None:
        with self._lock:
            self._since.pop(call, None)

    def _watches(self, call: Any) -> None:
        """Remember a stream that is kept open; of too many the oldest is cancelled."""
        if not call.add_callback(lambda: self._open.pop(call, None)):
            return
        with self._lock:
            self._open[call] = None
            oldest = (
                next(iter(self._open)) if len(self._open) > min(self._most, MOST_WATCHES) else None
            )
        if oldest is not None:
            oldest.cancel()

    # As an interceptor: each handler becomes one that takes its messages from an iterator, and
    # waits here.

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        if handler not in self._handlers:
            self._handlers[handler] = self._waiting(handler, handler_call_details.method)
        return self._handlers[handler]

    def _waiting(self, handler: Any, method: str) -> Any:
        codecs = handler.request_deserializer, handler.response_serializer
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(handler.stream_stream), *codecs
            )
        if handler.unary_stream is not None:  # Health.Watch, which answers from time to time
            watch = self._watch(handler.unary_stream, method)
            return grpc.stream_stream_rpc_method_handler(watch, *codecs)
        return grpc.stream_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method), *codecs
        )

    def _unary(self, behavior: Any, method: str) -> Any:
        return lambda messages, call: behavior(self._only(messages, call, method), call)

    def _only(self, messages: Any, call: Any, method: str) -> Any:
        self._enter(call)
        try:
            return next(messages)
        except StopIteration:
            call.abort(
                grpc.StatusCode.UNIMPLEMENTED, f'"{method}" requires exactly one request message.'
            )
        finally:
            self._leave(call)

    def _watch(self, behavior: Any, method: str) -> Any:
        def watch(messages: Any, call: Any) -> Any:
            message = self._only(messages, call, method)
            self._watches(call)
            return behavior(message, call)

        return watch

    def _stream(self, behavior: Any) -> Any:
        return lambda messages, call: behavior(self._each(messages, call), call)

    def _each(self, messages: Any, call: Any) -> Iterator[Any]:
        """The messages of a stream, which waits from each to the next, also where nobody reads its
        answers.
        """
        if not call.add_callback(lambda: self._leave(call)):
            return
        while True:
            self._enter(call)
            try:
                message = next(messages)
            except StopIteration:
                return
            yield message
