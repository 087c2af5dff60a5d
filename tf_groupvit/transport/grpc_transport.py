"""Requests over gRPC: TensorFlow Serving's PredictionService and ModelService."""

from functools import cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tf_groupvit.errors import RequestError, asserted, one_line
from tf_groupvit.transport.messages import fill, from_tensor, message_classes
from tf_groupvit.transport.request import (
    ModelSpec,
    Request,
    import_extra,
    model_metadata,
    model_versions,
    not_reached,
    timed_out,
    too_large,
    unexpected_answer,
)

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

LARGEST = 2**31 - 1  # bytes of a message, by gRPC and by protobuf
METHODS = {
    "predict": ("PredictionService", "Predict"),
    "status": ("ModelService", "GetModelStatus"),
    "metadata": ("PredictionService", "GetModelMetadata"),
}


class GrpcTransport:
    """Sends requests to one model. ``send`` gives what was asked for, or a RequestError.

    ``channel`` takes the place of our own. With ``local`` no proxy is used; with ``awaited``
    ``send`` and ``close`` are awaited. Answers have at most ``most`` bytes.
    """

    def __init__(
        self,
        address: str,
        spec: ModelSpec,
        channel: "grpc.Channel | grpc.aio.Channel | None",
        local: bool,
        awaited: bool,
        most: int,
    ) -> None:
        grpc = self._grpc = import_extra("grpc")
        import_extra("google.protobuf.message")
        self._messages = message_classes()
        self._address, self._spec, self._most = address, spec, most
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
            lambda: channel or open_channel(urlsplit(address).netloc, options=options)
        )
        self.send = self._send_async if awaited else self._send

    def close(self) -> Any:
        """Close the channel; an awaitable where requests are awaited."""
        return self._channel().close()

    def _send(self, request: Request, seconds: float) -> Any:
        try:
            return self._read(
                request, self._method(request)(self._message(request), timeout=seconds)
            )
        except self._grpc.RpcError as error:
            return self._failed(error)

    async def _send_async(self, request: Request, seconds: float) -> Any:
        try:
            content = await self._method(request)(self._message(request), timeout=seconds)
            return self._read(request, content)
        except self._grpc.RpcError as error:
            return self._failed(error)

    def _method(self, request: Request) -> Any:
        """The call, whose answer is bytes: they are read where an error becomes one of ours."""
        service, name = METHODS[request.verb]
        serialize = self._messages[f"{name}Request"].SerializeToString
        path = f"/tensorflow.serving.{service}/{name}"
        return self._channel().unary_unary(path, serialize, lambda content: content)

    def _message(self, request: Request) -> "Message":
        message = self._messages[f"{METHODS[request.verb][1]}Request"]()
        name, version = self._spec
        message.model_spec.name = name
        if isinstance(version, str):
            message.model_spec.version_label = version
        elif version is not None:
            message.model_spec.version.value = version
        if request.verb == "metadata":
            message.metadata_field.append("signature_def")
        if request.verb == "predict":
            message.model_spec.signature_name = request.signature
            for key, value in request.inputs.items():
                fill(message.inputs[key], value)
        return message

    def _read(self, request: Request, content: bytes) -> Any:
        if len(content) > self._most:
            return too_large(self._most)
        try:
            response = self._messages[f"{METHODS[request.verb][1]}Response"].FromString(content)
            return self._values(request, response)
        except RequestError as error:
            return error
        except Exception as error:  # whatever a broken or hostile server causes
            return unexpected_answer(self._address, f"with {len(content):,} bytes", error)

    def _values(self, request: Request, response: "Message") -> Any:
        if request.verb == "predict":
            return {
                name: from_tensor(name, response.outputs[name], dtype)
                for name, dtype in request.outputs.items()
                if name in response.outputs
            }
        to_json = partial(
            import_extra("google.protobuf.json_format").MessageToDict,
            preserving_proto_field_name=True,
        )
        if request.verb == "status":
            return model_versions({"model_version_status": [], **to_json(response)})
        signatures = self._messages["SignatureDefMap"].FromString(
            response.metadata["signature_def"].value
        )
        spec = {"name": response.model_spec.name, "version": response.model_spec.version.value}
        return model_metadata(
            {"model_spec": spec, "metadata": {"signature_def": to_json(signatures)}}
        )

    def _failed(self, error: "grpc.RpcError") -> RequestError:
        code, details = getattr(error.code(), "name", "UNKNOWN"), error.details() or ""
        if code == "RESOURCE_EXHAUSTED" and f"vs. {self._most})" in details:
            return too_large(self._most)
        if code == "UNAVAILABLE" and "connect" in details:
            return not_reached(self._address, one_line(details), "refused" in details)
        if code == "DEADLINE_EXCEEDED":
            return timed_out(self._address, one_line(details))
        return RequestError(code, one_line(asserted(details)))
