"""An address and images in, ``Segmentation``s out: for TensorFlow Serving and for the embedded server alike.

No TensorFlow. What is asked and how an answer is read is written once, as generators that yield what to send and how
long to pause; ``Client`` and ``AsyncClient`` drive them over one of two wires, REST (httpx) or gRPC (grpcio).
"""

import asyncio
import base64
import json
import math
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from tf_groupvit.errors import InputError, RequestError
from tf_groupvit.segmentation.result import Segmentation, encode_image

# Canonical status names in the order of their numbers (google/rpc/code.proto), and those of HTTP statuses.
CODES = """OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED
    RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS
    UNAUTHENTICATED""".split()
CODE_OF_HTTP = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14, 504: 4}
STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
FIRST_PAUSE, LONGEST_PAUSE, READY_PAUSE = 0.1, 5.0, 0.25  # seconds
NOT_SENT = "A server's answer holds a mask, not pixel scores or groups: use a Segmenter where the model is."

# tensorflow/core/framework/types.proto: number, name, numpy type, field of TensorProto.
DTYPES = [line.split() for line in """1 DT_FLOAT <f4 float_val; 2 DT_DOUBLE <f8 double_val; 3 DT_INT32 <i4 int_val;
    4 DT_UINT8 u1 int_val; 5 DT_INT16 <i2 int_val; 6 DT_INT8 i1 int_val; 7 DT_STRING O string_val;
    9 DT_INT64 <i8 int64_val; 10 DT_BOOL ? bool_val; 17 DT_UINT16 <u2 int_val; 19 DT_HALF <f2 half_val;
    22 DT_UINT32 <u4 uint32_val; 23 DT_UINT64 <u8 uint64_val""".split(";")]  # fmt: skip
NUMPY_OF = {name: np.dtype(kind) for _, name, kind, _ in DTYPES}
NUMBER_OF = {name: int(number) for number, name, _, _ in DTYPES}
NAME_OF = {number: name for name, number in NUMBER_OF.items()}
FIELD_OF = {name: values for _, name, _, values in DTYPES}

# The messages of TensorFlow Serving that are needed, [] repeated, {} a map from strings, in a pool of their own:
# importing the generated ones imports TensorFlow, and a second copy under their names would clash with it.
MESSAGES = """
Dim: 1 int64 size, 2 string name
Shape: 2 Dim[] dim, 3 bool unknown_rank
Tensor: 1 int32 dtype, 2 Shape tensor_shape, 4 bytes tensor_content, 5 float[] float_val, 6 double[] double_val,\
 7 int32[] int_val, 8 bytes[] string_val, 10 int64[] int64_val, 11 bool[] bool_val, 13 int32[] half_val,\
 16 uint32[] uint32_val, 17 uint64[] uint64_val
Version: 1 int64 value
ModelSpec: 1 string name, 2 Version version, 3 string signature_name, 4 string version_label
PredictRequest: 1 ModelSpec model_spec, 2 Tensor{} inputs
PredictResponse: 1 Tensor{} outputs, 2 ModelSpec model_spec
GetModelStatusRequest: 1 ModelSpec model_spec
Status: 1 int32 error_code, 2 string error_message
VersionStatus: 1 int64 version, 2 int32 state, 3 Status status
GetModelStatusResponse: 1 VersionStatus[] model_version_status
GetModelMetadataRequest: 1 ModelSpec model_spec, 2 string[] metadata_field
Any: 1 string type_url, 2 bytes value
GetModelMetadataResponse: 1 ModelSpec model_spec, 2 Any{} metadata
TensorInfo: 1 string name, 2 int32 dtype, 3 Shape tensor_shape
SignatureDef: 1 TensorInfo{} inputs, 2 TensorInfo{} outputs, 3 string method_name
SignatureDefMap: 1 SignatureDef{} signature_def
"""

METHODS = {
    "predict": ("PredictionService", "Predict"),
    "status": ("ModelService", "GetModelStatus"),
    "metadata": ("PredictionService", "GetModelMetadata"),
}
SIDES = ("inputs", "outputs")
SLOW = "allow it more with timeout=, or warm the model up."
GONE = "is the server running, is it this host and port, and is it REST (http://) or gRPC (grpc://)?"

OUTPUTS = {
    "segment": {"mask_bytes": "DT_STRING", "class_scores": "DT_FLOAT", "class_names": "DT_STRING"},
    "classify": {"class_names": "DT_STRING", "probabilities": "DT_FLOAT"},
    "encode_image": {"image_embeds": "DT_FLOAT"},
    "encode_text": {"text_embeds": "DT_FLOAT"},
}


@dataclass(frozen=True)
class Ask:
    """What is wanted of a server: ``verb`` is predict, status or metadata."""

    verb: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    signature: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)  # dtypes by name, as in the signature
    rows: bool = False  # in REST: an object for each row, not an array for each input


ModelSpec = tuple[str, int | str | None]  # name, and version number or label
Step = tuple[Ask | None, float]  # ask within so many seconds; or, without an Ask, pause for so many
Flow = Generator[Step, Any, Any]


class _Questions:
    """All that can be asked. In ``Client`` every method returns its result, in ``AsyncClient`` an awaitable of it.

    Args:
        address: ``http://host:port``, ``https://host:port``, ``grpc://host:port``; ``host:port`` is http.
        model_name: the name under which the server knows the model.
        version: a version number, or a label; None is the newest.
        timeout: seconds for one request, its retries included; over REST no single wait for the network is longer.
        retries: how often a request is sent again when the server is UNAVAILABLE (503, or nothing listens) or its
            resources are EXHAUSTED (429), after pauses that double from 0.1 s, with jitter. Nothing else is retried.
        batch_size: images in one request.
        transport: an httpx transport (for ``AsyncClient`` an asynchronous one) or a grpc channel, in place of our own.

    Raises:
        InputError: an address, a class name or an input is not usable, or httpx or grpcio is not installed.
        ImageError: an image cannot be read.
        RequestError: the server refuses, cannot be reached, or is no server of this model; ``code`` says which.
    """

    def __init__(
        self,
        address: str,
        model_name: str = "groupvit",
        version: int | str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        batch_size: int = 8,
        transport: Any = None,
    ) -> None:
        scheme, host, address = _parsed(address)
        local = host in ("localhost", "::1") or host.startswith("127.")  # no proxy leads there
        wire = _Grpc if scheme == "grpc" else _Rest
        self._wire: Any = wire(address, (model_name, version), transport, local, isinstance(self, AsyncClient))
        self._timeout, self._retries, self._batch_size = timeout, retries, batch_size
        self._model = f"model '{model_name}' at {address}"
        self._signatures: dict[str, Any] = {}

    def _run(self, flow: Flow) -> Any:
        raise NotImplementedError

    def segment(self, images: Any, class_names: Any = None, signature_name: str | None = None) -> Any:
        """One ``Segmentation`` for an image, a list for a list; images are paths, bytes, PIL or uint8 (H, W, 3).

        ``class_names`` (a list, or comma-separated) takes the place of the classes that the model was exported with.
        """
        return self._run(self._segment(images, class_names, signature_name))

    def classify(self, images: Any) -> Any:
        """{class name: probability}, best first, of the whole image; a list of them for a list."""
        return self._run(self._classify(images))

    def encode_image(self, images: Any) -> Any:
        """Normalised embedding (D), or (B, D) for a list."""
        return self._run(self._encode("encode_image", "image_bytes", images, encode_image))

    def encode_text(self, texts: str | Sequence[str]) -> Any:
        """Normalised embedding (D) of a text, taken as it is, or (N, D) for a list."""
        return self._run(self._encode("encode_text", "text", texts, str))

    def predict(self, inputs: Mapping[str, Any], signature_name: str = "serving_default") -> Any:
        """{output: array} of any signature, in its dtypes; strings are str, or bytes where a name ends in _bytes."""
        return self._run(self._predict(inputs, signature_name))

    def status(self) -> Any:
        """The versions, newest first: ``[{"version": 1, "state": "AVAILABLE", "error_code", "error_message"}]``."""
        return self._run(self._ask(Ask("status")))

    def metadata(self) -> Any:
        """``{"name", "version", "signatures": {name: {"inputs", "outputs": {name: {"dtype", "shape"}}}}}``."""
        return self._run(self._ask(Ask("metadata")))

    def wait_until_ready(self, timeout: float = 60.0) -> Any:
        """Return None once a version is AVAILABLE; DEADLINE_EXCEEDED when that takes longer than ``timeout`` s."""
        return self._run(self._wait(time.monotonic() + timeout, timeout))

    # The same as flows

    def _ask(self, ask: Ask, timeout: float | None = None, retries: int | None = None) -> Flow:
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        left = self._retries if retries is None else retries
        pause = FIRST_PAUSE
        while True:
            answer = yield ask, max(end - time.monotonic(), 0.001)
            if not isinstance(answer, RequestError):
                return answer
            wait = pause * random.uniform(0.5, 1.0)
            if answer.code not in RETRIED or left < 1 or time.monotonic() + wait > end:
                raise answer
            yield None, wait
            left, pause = left - 1, min(2 * pause, LONGEST_PAUSE)

    def _rows(self, kind: str, inputs: Mapping[str, Sequence[Any]], signature: str) -> Flow:
        """The outputs of ``kind`` for every row of the inputs, batch by batch: a list of {output: value}."""
        names: Mapping[str, str] = OUTPUTS[kind]
        rows: list[dict[str, Any]] = []
        total = len(next(iter(inputs.values())))
        for start in range(0, total, self._batch_size):
            batch = {name: list(values[start : start + self._batch_size]) for name, values in inputs.items()}
            count = len(next(iter(batch.values())))
            answer = yield from self._ask(Ask("predict", batch, signature, names, rows=True))
            lost = [name for name in names if name not in answer or np.shape(answer[name])[:1] != (count,)]
            if lost:
                raise RequestError("UNKNOWN", f"{count} rows of {', '.join(lost)} were expected of {self._model}, "
                                   f"{ {k: np.shape(v) for k, v in answer.items()} } came: is it ours?")  # fmt: skip
            rows += [{name: answer[name][row] for name in names} for row in range(count)]
        return rows

    def _segment(self, images: Any, class_names: Any, signature: str | None) -> Flow:
        alone, contents = _listed(images, encode_image)
        inputs = {"image_bytes": contents}
        if class_names is not None:
            inputs["class_names"] = [_joined(class_names)] * len(contents)
        usual = "serving_default" if class_names is None else "segment_open"
        rows = yield from self._rows("segment", inputs, signature or usual)
        try:
            results = [_segmentation(content, row) for content, row in zip(contents, rows, strict=True)]
        except InputError as error:
            raise RequestError("UNKNOWN", f"The answer of {self._model} cannot be used: {error}") from error
        return results[0] if alone else results

    def _classify(self, images: Any) -> Flow:
        alone, contents = _listed(images, encode_image)
        rows = yield from self._rows("classify", {"image_bytes": contents}, "classify")
        pairs = [zip(row["class_names"], map(float, row["probabilities"]), strict=True) for row in rows]
        results = [dict(sorted(row, key=lambda pair: -pair[1])) for row in pairs]
        return results[0] if alone else results

    def _encode(self, kind: str, name: str, values: Any, encode: Callable[[Any], Any]) -> Flow:
        alone, contents = _listed(values, encode)
        rows = yield from self._rows(kind, {name: contents}, kind)
        embeds = [row[output] for row in rows for output in OUTPUTS[kind]]
        return embeds[0] if alone else np.stack(embeds) if embeds else np.zeros((0, 0), np.float32)

    def _predict(self, inputs: Mapping[str, Any], signature: str) -> Flow:
        if signature not in self._signatures:  # asked for again when a new version may have brought it
            self._signatures = (yield from self._ask(Ask("metadata")))["signatures"]
        if signature not in self._signatures:
            known = ", ".join(sorted(self._signatures))
            raise InputError(f"There is no signature '{signature}' in {self._model}: choose from {known}.")
        wanted, given = ({n: t["dtype"] for n, t in self._signatures[signature][side].items()} for side in SIDES)
        if inputs.keys() != wanted.keys():
            raise InputError(f"'{signature}' takes {sorted(wanted)}, {sorted(inputs)} came.")
        arrays = {name: _cast(name, value, wanted[name]) for name, value in inputs.items()}
        # Columns: the only form in REST that suits inputs and outputs of different lengths.
        answer = yield from self._ask(Ask("predict", arrays, signature, given))
        return answer

    def _wait(self, end: float, timeout: float) -> Flow:
        while True:
            try:
                versions = yield from self._ask(Ask("status"), max(end - time.monotonic(), 0.001), retries=0)
                if any(version["state"] == "AVAILABLE" for version in versions):
                    return
                seen = ", ".join(f"version {v['version']} is {v['state']} {v['error_message']}" for v in versions)
            except RequestError as error:
                if error.code not in ("UNAVAILABLE", "NOT_FOUND", "DEADLINE_EXCEEDED"):
                    raise
                seen = error.message
            if time.monotonic() + READY_PAUSE >= end:
                raise RequestError("DEADLINE_EXCEEDED", f"{self._model} was not ready in {timeout:g} s: {seen}")
            yield None, READY_PAUSE


class Client(_Questions):
    __doc__ = f"A client that waits for each answer; a context manager.\n\n    {_Questions.__doc__}"

    def _run(self, flow: Flow) -> Any:
        answer = None
        while True:
            try:
                ask, seconds = flow.send(answer)
            except StopIteration as end:
                return end.value
            if ask is None:
                time.sleep(seconds)
            answer = ask and self._wire.send(ask, seconds)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Questions):
    __doc__ = (
        f"The same for asyncio: ``await`` every method; an asynchronous context manager.\n\n    {_Questions.__doc__}"
    )

    async def _run(self, flow: Flow) -> Any:
        answer = None
        while True:
            try:
                ask, seconds = flow.send(answer)
            except StopIteration as end:
                return end.value
            answer = await (self._wire.send(ask, seconds) if ask else asyncio.sleep(seconds))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


# REST: Asks in and out of JSON


class _Rest:
    def __init__(self, address: str, spec: ModelSpec, transport: Any, local: bool, awaited: bool) -> None:
        httpx = self._httpx = _needed("httpx")
        name, version = spec
        kind = (
            ""
            if version is None
            else f"/labels/{quote(version, safe='')}"
            if isinstance(version, str)
            else f"/versions/{version}"
        )
        self._path, self._address = f"/v1/models/{quote(name, safe='')}{kind}", address
        client = httpx.AsyncClient if awaited else httpx.Client
        try:
            self._http = client(base_url=address, transport=transport, trust_env=not local)
        except httpx.InvalidURL as error:
            raise InputError(f"'{address}' is no address: {error}.") from error
        self.send = self._send_async if awaited else self._send
        self.close = self._http.aclose if awaited else self._http.close

    def _send(self, ask: Ask, seconds: float) -> Any:
        try:
            return self._read(ask, self._http.request(**self._written(ask), timeout=seconds))
        except self._httpx.HTTPError as error:
            return self._failed(error)

    async def _send_async(self, ask: Ask, seconds: float) -> Any:
        try:
            return self._read(ask, await self._http.request(**self._written(ask), timeout=seconds))
        except self._httpx.HTTPError as error:
            return self._failed(error)

    def _written(self, ask: Ask) -> dict[str, Any]:
        if ask.verb != "predict":
            return {"method": "GET", "url": self._path + ("/metadata" if ask.verb == "metadata" else "")}
        columns = {name: _to_json(value) for name, value in ask.inputs.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] if ask.rows else []
        body = {"signature_name": ask.signature, **({"instances": rows} if ask.rows else {"inputs": columns})}
        return {"method": "POST", "url": f"{self._path}:predict", "content": json.dumps(body)}

    def _read(self, ask: Ask, response: Any) -> Any:
        status = response.status_code
        try:
            body = json.loads(response.content)
            if status != 200:
                return RequestError(CODES[CODE_OF_HTTP.get(status, 2)], body["error"])
            return {"predict": _columns, "status": _versions, "metadata": _signatures}[ask.verb](ask, body)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            code = CODES[2 if status == 200 else CODE_OF_HTTP.get(status, 2)]
            return RequestError(code, f"{self._address} does not answer as TensorFlow Serving does, but HTTP {status} "
                                f"{response.content[:60]!r}: check address and port.")  # fmt: skip

    def _failed(self, error: Exception) -> RequestError:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, self._httpx.TimeoutException):
            return RequestError("DEADLINE_EXCEEDED", f"{self._address} did not answer in time ({reason}): {SLOW}")
        return RequestError("UNAVAILABLE", f"{self._address} cannot be reached ({reason}): {GONE}")


def _columns(ask: Ask, body: dict[str, Any]) -> dict[str, np.ndarray]:
    """The outputs that were asked for. A signature with one output answers without its name."""
    answer = body["predictions"] if "predictions" in body else body["outputs"]
    first = answer[0] if "predictions" in body and answer else answer
    if not isinstance(first, dict) or first.keys() == {"b64"}:
        columns = dict.fromkeys(ask.outputs, answer) if len(ask.outputs) == 1 else {}
    else:
        columns = {name: [row[name] for row in answer] for name in first} if "predictions" in body else answer
    return {name: _from_json(columns[name], dtype) for name, dtype in ask.outputs.items() if name in columns}


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return _to_json(value.tolist()) if value.dtype == object else value.tolist()
    return [_to_json(item) for item in value] if isinstance(value, list) else value


def _from_json(value: Any, dtype: str) -> np.ndarray:
    return np.array(_unpacked(value), object) if dtype == "DT_STRING" else np.array(value, NUMPY_OF[dtype])


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    return base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value


def _versions(_: Ask, body: dict[str, Any]) -> list[dict[str, Any]]:
    """GetModelStatusResponse as JSON, from either wire: with numbers or names, defaults written or left out."""
    return [{
        "version": int(entry.get("version", 0)),
        "state": STATES.get(entry.get("state", 0), entry.get("state", "UNKNOWN")),
        "error_code": code if isinstance(code := entry.get("status", {}).get("error_code", 0), str) else CODES[code],
        "error_message": entry.get("status", {}).get("error_message", ""),
    } for entry in body["model_version_status"]]  # fmt: skip


def _signatures(_: Ask, body: dict[str, Any]) -> dict[str, Any]:
    """GetModelMetadataResponse as JSON, from either wire."""
    signatures = body["metadata"]["signature_def"]["signature_def"]
    return {
        "name": body["model_spec"].get("name", ""),
        "version": int(body["model_spec"].get("version", 0)),
        "signatures": {
            name: {side: {key: _declared(info) for key, info in entry.get(side, {}).items()} for side in SIDES}
            for name, entry in signatures.items()
            if name != "__saved_model_init_op"  # listed by the server, not for clients
        },
    }


def _declared(info: dict[str, Any]) -> dict[str, Any]:
    dtype, shape = info.get("dtype", 0), info.get("tensor_shape", {})
    sizes = None if shape.get("unknown_rank") else [int(dim.get("size", 0)) for dim in shape.get("dim", [])]
    return {"dtype": dtype if isinstance(dtype, str) else NAME_OF.get(dtype, f"DT_{dtype}"), "shape": sizes}


# gRPC: Asks in and out of messages


class _Grpc:
    def __init__(self, address: str, spec: ModelSpec, transport: Any, local: bool, awaited: bool) -> None:
        grpc = self._grpc = _needed("grpc")
        self._messages, self._spec, self._address = _messages(), spec, address
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
                _fill(request.inputs[key], value)
        return request

    def _read(self, ask: Ask, response: Any) -> Any:
        if ask.verb == "predict":
            return {
                name: _from_tensor(name, response.outputs[name]) for name in ask.outputs if name in response.outputs
            }
        json_of = partial(_needed("google.protobuf.json_format").MessageToDict, preserving_proto_field_name=True)
        if ask.verb == "status":
            return _versions(ask, {"model_version_status": [], **json_of(response)})
        signatures = self._messages["SignatureDefMap"].FromString(response.metadata["signature_def"].value)
        spec = {"name": response.model_spec.name, "version": response.model_spec.version.value}
        return _signatures(ask, {"model_spec": spec, "metadata": {"signature_def": json_of(signatures)}})

    def _failed(self, error: Any) -> RequestError:
        code, reason = error.code().name, error.details() or ""
        if code == "UNAVAILABLE" and "connect" in reason:
            return RequestError(code, f"{self._address} cannot be reached ({reason}): {GONE}")
        if code == "DEADLINE_EXCEEDED":
            return RequestError(code, f"{self._address} did not answer in time ({reason}): {SLOW}")
        return RequestError(code, reason)


@cache
def _messages() -> dict[str, Any]:
    """The message classes by name, from ``MESSAGES``."""
    protos = _needed("google.protobuf.descriptor_pb2")
    file = protos.FileDescriptorProto(name="tf_groupvit/serving.proto", package="tf_groupvit", syntax="proto3")
    for line in MESSAGES.strip().splitlines():
        name, fields = line.split(": ")
        message = file.message_type.add(name=name)
        for number, kind, label in (entry.split() for entry in fields.split(", ")):
            if kind.endswith("{}"):
                entry = message.nested_type.add(name=f"{label.title().replace('_', '')}Entry")
                entry.options.map_entry = True
                _add_field(entry, 1, "string", "key")
                _add_field(entry, 2, kind[:-2], "value")
                kind = f"{name}.{entry.name}[]"
            _add_field(message, int(number), kind, label)
    pool = _needed("google.protobuf.descriptor_pool").DescriptorPool()
    pool.Add(file) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(file.SerializeToString())
    factory = _needed("google.protobuf.message_factory")
    return {
        m.name: factory.GetMessageClass(pool.FindMessageTypeByName(f"tf_groupvit.{m.name}")) for m in file.message_type
    }


def _add_field(message: Any, number: int, kind: str, name: str) -> None:
    protos = _needed("google.protobuf.descriptor_pb2").FieldDescriptorProto
    bare = kind.removesuffix("[]")
    added = message.field.add(name=name, number=number, label=3 if kind.endswith("[]") else 1)
    if hasattr(protos, f"TYPE_{bare.upper()}"):
        added.type = getattr(protos, f"TYPE_{bare.upper()}")
    else:
        added.type, added.type_name = protos.TYPE_MESSAGE, f".tf_groupvit.{bare}"


def _fill(tensor: Any, value: Any) -> None:
    """Write an array, or a list of strings, into a TensorProto."""
    array = value if isinstance(value, np.ndarray) else np.array(value, object)
    dtype = next(name for name, kind in NUMPY_OF.items() if kind == array.dtype)
    tensor.dtype = NUMBER_OF[dtype]
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        tensor.string_val.extend(item.encode() if isinstance(item, str) else item for item in array.ravel())
    else:
        tensor.tensor_content = array.tobytes()


def _from_tensor(name: str, tensor: Any) -> np.ndarray:
    """A TensorProto's values, from tensor_content or from the field of its type."""
    dtype, shape = NAME_OF.get(tensor.dtype), [dim.size for dim in tensor.tensor_shape.dim]
    if dtype is None:
        raise RequestError("UNIMPLEMENTED", f"Output '{name}' is of TensorFlow's type {tensor.dtype}: ask for another.")
    if dtype == "DT_STRING":
        strings = [value if name.endswith("_bytes") else value.decode(errors="replace") for value in tensor.string_val]
        values = np.array(strings, object)
    elif tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, NUMPY_OF[dtype])
    elif dtype == "DT_HALF":  # the bits of each, as an integer
        values = np.array(tensor.half_val, np.uint16).view(np.float16)
    else:
        values = np.array(getattr(tensor, FIELD_OF[dtype]), NUMPY_OF[dtype])
    if values.size != math.prod(shape):
        raise RequestError("DATA_LOSS", f"Output '{name}' has {values.size} values for the shape {shape}.")
    return values.reshape(shape)


# What the caller gave


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module.split('.')[0]} is not installed: pip install tf-groupvit[serve] brings it."
        ) from error


def _parsed(address: str) -> tuple[str, str, str]:
    """Scheme, host, and the address in full."""
    full = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(full)
        port = parts.port
    except ValueError as error:
        raise InputError(f"'{address}' is no address: {error}: write http://host:port or grpc://host:port.") from error
    needs_port = parts.scheme == "grpc" or full != address
    if parts.scheme not in ("http", "https", "grpc") or not parts.hostname or (needs_port and port is None):
        raise InputError(f"'{address}' is no address: write http://host:port, https://host:port or grpc://host:port.")
    return parts.scheme, parts.hostname, full.rstrip("/")


def _listed(values: Any, encode: Callable[[Any], Any]) -> tuple[bool, list[Any]]:
    """Whether one came alone, and all of them encoded."""
    alone = not isinstance(values, (list, tuple))
    return alone, [encode(value) for value in ([values] if alone else values)]


def _joined(class_names: Any) -> str:
    names = [str(name).strip() for name in (class_names.split(",") if isinstance(class_names, str) else class_names)]
    if not names or not all(names):
        raise InputError(f"Class names are expected, none of them empty; {names} came: give e.g. ['cat', 'dog'].")
    for name in names:
        if "," in name:
            raise InputError(f"The class '{name}' has a comma in it, which parts classes in a request: leave it out.")
        if names.count(name) > 1:
            raise InputError(f"The class '{name}' is there twice: class names must differ.")
    return ",".join(names)


def _cast(name: str, value: Any, dtype: str) -> np.ndarray:
    """An input in the dtype of its signature; what would lose a fraction or a kind is refused."""
    array = np.array(value, object) if dtype == "DT_STRING" else np.asarray(value)
    if dtype == "DT_STRING":
        fits = all(isinstance(item, (str, bytes)) for item in array.ravel())
    else:
        fits = dtype in NUMPY_OF and np.can_cast(array.dtype, NUMPY_OF[dtype], "same_kind")
    if not fits:
        raise InputError(f"Input '{name}' is expected as {dtype}, {array.dtype} {array.shape} came.")
    return array.astype(NUMPY_OF[dtype])


def _segmentation(content: bytes, row: Mapping[str, Any]) -> Segmentation:
    names = list(row["class_names"])
    while names and not names[-1]:  # padding: another image of the batch has more classes
        names.pop()
    scores = row["class_scores"][: len(names)]
    return Segmentation.from_png(row["mask_bytes"], names, content, class_scores=scores, absence=NOT_SENT)
