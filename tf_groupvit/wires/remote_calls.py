"""Asks in, arrays out, by messages over HTTP/2: TensorFlow Serving's gRPC API."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from tf_groupvit.errors import RequestError, asserted, one_line
from tf_groupvit.wires.asks import (
    GONE,
    SLOW,
    Ask,
    ModelSpec,
    NotReachedError,
    needed,
    not_ours,
    too_large,
)
from tf_groupvit.wires.messages import fill, from_tensor, message_classes
from tf_groupvit.wires.statements import signatures_of, versions_of

LARGEST = 2**31 - 1  # bytes of a message, by gRPC and by protobuf
METHODS = {
    "predict": ("PredictionService", "Predict"),
    "status": ("ModelService", "GetModelStatus"),
    "metadata": ("PredictionService", "GetModelMetadata"),
}


class GrpcWire:
    def __init__(
        self, address: str, spec: ModelSpec, transport: Any, local: bool, awaited: bool, most: int
    ) -> None:
        grpc = self._grpc = needed("grpc")
        self._messages, self._spec, self._address, self._most = (
            message_classes(),
            spec,
            address,
            most,
        )
        # Only plain messages are taken: gRPC inflates a compressed one before it looks at its size.
        options = [
            ("grpc.max_receive_message_length", min(most, LARGEST)),
            ("grpc.max_send_message_length", -1),
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", int(not local)),
        ]
        # An asynchronous channel belongs to the loop that runs when it is made: not before the
        # first call.
        open_channel = (grpc.aio if awaited else grpc).insecure_channel
        self._channel = cache(
            lambda: transport or open_channel(urlsplit(address).netloc, options=options)
        )
        self.send = self._send_async if awaited else self._send

    def close(self) -> Any:
        return self._channel().close()

    def _send(self, ask: Ask, seconds: float) -> Any:
        try:
            return self._read(ask, self._method(ask)(self._written(ask), timeout=seconds))
        except self._grpc.RpcError as error:
            return self._failed(error)

    async def _send_async(self, ask: Ask, seconds: float) -> Any:
        try:
            return self._read(ask, await self._method(ask)(self._written(ask), timeout=seconds))
        except self._grpc.RpcError as error:
            return self._failed(error)

    def _method(self, ask: Ask) -> Any:
        service, name = METHODS[ask.verb]
        serialize = self._messages[f"{name}Request"].SerializeToString
        return self._channel().unary_unary(
            f"/tensorflow.serving.{service}/{name}", serialize, _as_it_is
        )

    def _written(self, ask: Ask) -> Any:
        request = self._messages[f"{METHODS[ask.verb][1]}Request"]()
        name, version = self._spec
        request.model_spec.name = name
        if isinstance(version, str):
            request.model_spec.version_label = version
        elif version is not None:
            request.model_spec.version.value = version
        if ask.verb == "metadata":
            request.metadata_field.append("signature_def")
        if ask.verb == "predict":
            request.model_spec.signature_name = ask.signature
            for key, value in ask.inputs.items():
                fill(request.inputs[key], value)
        return request

    def _read(self, ask: Ask, content: bytes) -> Any:
        if len(content) > self._most:
            return too_large(self._most)
        try:
            return self._values(
                ask, self._messages[f"{METHODS[ask.verb][1]}Response"].FromString(content)
            )
        except RequestError as error:
            return error
        except Exception as error:  # whatever a broken or hostile server brings about
            return not_ours(self._address, f"with {len(content):,} bytes", error)

    def _values(self, ask: Ask, response: Any) -> Any:
        if ask.verb == "predict":
            came = {name: kind for name, kind in ask.outputs.items() if name in response.outputs}
            return {
                name: from_tensor(name, response.outputs[name], kind) for name, kind in came.items()
            }
        json_of = partial(
            needed("google.protobuf.json_format").MessageToDict, preserving_proto_field_name=True
        )
        if ask.verb == "status":
            return versions_of(ask, {"model_version_status": [], **json_of(response)})
        signatures = self._messages["SignatureDefMap"].FromString(
            response.metadata["signature_def"].value
        )
        spec = {"name": response.model_spec.name, "version": response.model_spec.version.value}
        return signatures_of(
            ask, {"model_spec": spec, "metadata": {"signature_def": json_of(signatures)}}
        )

    def _failed(self, error: Any) -> RequestError:
        code = getattr(error.code(), "name", "UNKNOWN")
        details = error.details() or ""
        reason = one_line(details)
        if (
            code == "RESOURCE_EXHAUSTED"
            and "larger than max" in details
            and f"vs. {self._most})" in details
        ):
            return too_large(self._most)
        if code == "UNAVAILABLE" and "connect" in details:
            kind: Callable[[str, str], RequestError] = (
                NotReachedError if "refused" in details else RequestError
            )
            return kind(code, f"{self._address} cannot be reached ({reason}): {GONE}")
        if code == "DEADLINE_EXCEEDED":
            return RequestError(code, f"{self._address} did not answer in time ({reason}): {SLOW}")
        return RequestError(code, one_line(asserted(details)))


def _as_it_is(content: bytes) -> bytes:
    """Messages are read where an error of theirs becomes one of ours."""
    return content
