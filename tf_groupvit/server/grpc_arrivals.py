"""An interceptor that cancels gRPC calls whose message does not arrive.

grpc takes a thread for each call when it begins, and keeps it until the message is there. Here a
call that waits too long is cancelled; where many wait, those that have waited longest are. So calls
whose message never comes, and streams that are kept open, hold no thread that others need.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from tf_groupvit.server.threads import lasting

MOST_WATCHES = 64  # streams kept open for answers, each with a thread
_LOOK_SECONDS = 0.1
_PATIENCE = 0.1  # seconds that a message may take even where many calls wait
Messages = Iterator[Message]
Behavior = Callable[[Any, grpc.ServicerContext], Any]  # message or messages, and the call


class CallArrivals(grpc.ServerInterceptor):
    """The calls that wait for a message, each for at most ``seconds``.

    When more than three quarters of ``most`` wait, all but half of ``most`` are cancelled.
    """

    def __init__(
        self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._lock = threading.Lock()
        # when each began to wait, the longest first
        self._since: dict[grpc.ServicerContext, float] = {}
        # streams that are answered now and then, the oldest first
        self._watches: dict[grpc.ServicerContext, None] = {}
        self._handlers: dict[grpc.RpcMethodHandler, grpc.RpcMethodHandler] = {}
        self._stopped = threading.Event()

    def __len__(self) -> int:
        return len(self._since)

    def start(self) -> None:
        """Begin to look for calls that are late."""
        lasting("grpc-arrivals", self._look_until_stopped).start()

    def stop(self) -> None:
        """End that."""
        self._stopped.set()

    def _look_until_stopped(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            self.cancel_late()

    def cancel_late(self) -> None:
        """Cancel the calls that have waited for too long."""
        now = self._clock()
        with self._lock:
            waiting = list(self._since.items())
        late = [call for call, since in waiting if now - since >= self._seconds]
        if len(waiting) - len(late) > 3 * self._most // 4:
            oldest = waiting[: len(waiting) - self._most // 2]
            late = [call for call, since in oldest if now - since >= _PATIENCE]
        for call in late:
            self._leave(call)
            call.cancel()

    def _enter(self, call: grpc.ServicerContext) -> None:
        with self._lock:
            self._since.pop(call, None)
            self._since[call] = self._clock()

    def _leave(self, call: grpc.ServicerContext) -> None:
        with self._lock:
            self._since.pop(call, None)

    # As an interceptor: each handler becomes one that takes its messages from an iterator, and
    # waits here.

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """The handler of a method, which waits for its messages here."""
        handler = continuation(handler_call_details)
        if handler is not None and handler not in self._handlers:
            self._handlers[handler] = self._waiting(handler, handler_call_details.method)
        return handler and self._handlers[handler]

    def _waiting(self, handler: grpc.RpcMethodHandler, method: str) -> grpc.RpcMethodHandler:
        codecs = handler.request_deserializer, handler.response_serializer
        if handler.stream_stream is not None:
            behavior = self._stream(handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(behavior, *codecs)
        if handler.unary_stream is not None:  # Health.Watch
            behavior = self._unary(handler.unary_stream, method, watches=True)
            return grpc.stream_stream_rpc_method_handler(behavior, *codecs)
        behavior = self._unary(handler.unary_unary, method)
        return grpc.stream_unary_rpc_method_handler(behavior, *codecs)

    def _unary(self, behavior: Behavior, method: str, watches: bool = False) -> Behavior:
        def run(messages: Messages, call: grpc.ServicerContext) -> Any:
            self._enter(call)
            try:
                message = next(messages)
            except StopIteration:
                text = f'"{method}" requires exactly one request message.'
                call.abort(grpc.StatusCode.UNIMPLEMENTED, text)
            finally:
                self._leave(call)
            if watches:
                self._watch(call)
            return behavior(message, call)

        return run

    def _watch(self, call: grpc.ServicerContext) -> None:
        """Remember a stream that is kept open; of too many the oldest is cancelled."""
        if not call.add_callback(lambda: self._watches.pop(call, None)):
            return
        with self._lock:
            self._watches[call] = None
            too_many = len(self._watches) > min(self._most, MOST_WATCHES)
            oldest = next(iter(self._watches)) if too_many else None
        if oldest is not None:
            oldest.cancel()

    def _stream(self, behavior: Behavior) -> Behavior:
        """A stream waits from each message to the next, also where nobody reads its answers."""

        def each(messages: Messages, call: grpc.ServicerContext) -> Messages:
            if not call.add_callback(lambda: self._leave(call)):
                return
            while True:
                self._enter(call)
                try:
                    message = next(messages)
                except StopIteration:
                    return
                yield message

        return lambda messages, call: behavior(each(messages, call), call)
