"""A server without sockets, for httpx clients and gRPC stubs.

client = Client("http://in-process", transport=http_transport(server))
client = Client("grpc://in-process", transport=Channel(server))
"""

from collections.abc import Callable
from typing import Any

import grpc
import httpx

from tf_groupvit.server.grpc_service import CALLS, shortened
from tf_groupvit.server.running import Server
from tf_groupvit.server.status import StatusError


def http_transport(server: Server) -> httpx.MockTransport:
    """For `httpx.Client` and `httpx.AsyncClient` alike."""

    def handle(request: httpx.Request) -> httpx.Response:
        answer = server.rest(
            request.method, request.url.raw_path.decode(), request.read(), dict(request.headers)
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.body)

    return httpx.MockTransport(handle)


class Refused(grpc.RpcError):
    """A refusal as gRPC clients know it: ``code()`` and ``details()``."""

    def __init__(self, refusal: StatusError) -> None:
        super().__init__(str(refusal))
        self._refusal = refusal

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self._refusal.code]

    def details(self) -> str:
        return shortened(self._refusal.text)


class Channel:
    """The part of `grpc.Channel` that stubs use; messages are serialized as for a socket."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[..., bytes],
        response_deserializer: Callable[..., Any],
        **_: Any,
    ) -> Callable[..., Any]:
        call = CALLS[path]

        def run(request: Any, timeout: float | None = None, **_: Any) -> Any:
            try:
                response = self._server.call(
                    path, call.request.FromString(request_serializer(request)), timeout
                )
            except StatusError as refusal:
                raise Refused(refusal) from None
            return response_deserializer(response.SerializeToString())

        return run

    def close(self) -> None:
        """The server goes on; there is nothing to close."""
