"""Asks in, arrays out, by messages over HTTP/2: TensorFlow Serving's gRPC API."""

from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from tf_groupvit.errors import RequestError
from tf_groupvit.wires.asks import GONE, SLOW, Ask, ModelSpec, needed
from tf_groupvit.wires.messages import fill, from_tensor, message_classes
from tf_groupvit.wires.statements import signatures_of, versions_of

METHODS = {
    "predict": ("PredictionService", "Predict"),
    "status": ("ModelService", "GetModelStatus"),
    "metadata": ("PredictionService", "GetModelMetadata"),
}


class GrpcWire:
    def __init__(self, address: str, spec: ModelSpec, transport: Any, local: bool, awaited: bool) -> None:
        grpc = self._grpc = needed("grpc")
        self._messages, self._spec, self._address = message_classes(), spec, address
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                   ("grpc.max_reconnect_backoff_ms", 1000), ("grpc.enable_http_proxy", int(not local))]  # fmt: skip
        # An asynchronous channel belongs to the loop that runs when it is made: not before the first call.
        open_channel = (grpc.aio if awaited else grpc).insecure_channel
        self._channel = cache(lambda: transport or open_channel(urlsplit(address).netloc, options=options))
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
        request, response = self._messages[f"{name}Request"], self._messages[f"{name}Response"]
        path = f"/tensorflow.serving.{service}/{name}"
        return self._channel().unary_unary(path, request.SerializeToString, response.FromString)

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

    def _read(self, ask: Ask, response: Any) -> Any:
        if ask.verb == "predict":
            return {name: from_tensor(name, response.outputs[name]) for name in ask.outputs if name in response.outputs}
        json_of = partial(needed("google.protobuf.json_format").MessageToDict, preserving_proto_field_name=True)
        if ask.verb == "status":
            return versions_of(ask, {"model_version_status": [], **json_of(response)})
        signatures = self._messages["SignatureDefMap"].FromString(response.metadata["signature_def"].value)
        spec = {"name": response.model_spec.name, "version": response.model_spec.version.value}
        return signatures_of(ask, {"model_spec": spec, "metadata": {"signature_def": json_of(signatures)}})

    def _failed(self, error: Any) -> RequestError:
        code, reason = error.code().name, error.details() or ""
        if code == "UNAVAILABLE" and "connect" in reason:
            return RequestError(code, f"{self._address} cannot be reached ({reason}): {GONE}")
        if code == "DEADLINE_EXCEEDED":
            return RequestError(code, f"{self._address} did not answer in time ({reason}): {SLOW}")
        return RequestError(code, reason)
