"""Requests over REST: TensorFlow Serving's JSON, with every answer bounded in size and time."""

import asyncio
import base64
import json
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from tf_groupvit.errors import InputError, RequestError, asserted, one_line
from tf_groupvit.transport.messages import NUMPY_OF
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
from tf_groupvit.transport.status_codes import HTTP_STATUS

if TYPE_CHECKING:
    import httpx

# Of codes that share a status, the first of the table.
CODE_OF_HTTP = {500: "INTERNAL"} | {
    status: code for code, status in reversed(HTTP_STATUS.items()) if code != "OK"
}
PIECE = 1 << 16  # bytes that are handed to a socket at once


class RestTransport:
    """Sends requests to one model. ``send`` gives what was asked for, or a RequestError.

    ``transport`` is httpx's, in place of its own. With ``local`` no proxy is used; with ``awaited``
    ``send`` and ``close`` are awaited. Answers have at most ``most`` bytes.
    """

    def __init__(
        self,
        address: str,
        spec: ModelSpec,
        transport: "httpx.BaseTransport | httpx.AsyncBaseTransport | None",
        local: bool,
        awaited: bool,
        most: int,
    ) -> None:
        httpx = self._httpx = import_extra("httpx")
        name, version = spec
        self._path = f"/v1/models/{quote(name, safe='')}"
        if version is not None:
            kind = "labels" if isinstance(version, str) else "versions"
            self._path += f"/{kind}/{quote(str(version), safe='')}"
        self._address, self._most = address, most
        self._deadlines = SocketDeadlines()
        client = httpx.AsyncClient if awaited else httpx.Client
        headers = {"Accept-Encoding": "gzip"}  # all that a body is inflated from here
        try:
            self._http = client(
                base_url=address, transport=transport, trust_env=not local, headers=headers
            )
        except httpx.InvalidURL as error:
            raise InputError(f"'{address}' is no address: {error}.") from error
        self.send = self._send_async if awaited else self._send
        self.close = self._http.aclose if awaited else self._http.close

    def _send(self, request: Request, seconds: float) -> Any:
        end = time.monotonic() + seconds
        sent = self._http_request(request, seconds)
        sent["extensions"] = {"trace": self._deadlines.watch}
        try:
            with self._deadlines.until(end), self._http.stream(**sent) as response:
                body = Body(response, self._most, end)
                if not body.whole:
                    for chunk in response.iter_raw():
                        body.take(chunk)
        except (self._httpx.HTTPError, TimeoutError, RequestError) as error:
            return self._failed(error)
        return self._read(request, response.status_code, body.content)

    async def _send_async(self, request: Request, seconds: float) -> Any:
        end = time.monotonic() + seconds
        sent = self._http_request(request, seconds)
        try:
            async with asyncio.timeout(seconds), self._http.stream(**sent) as response:
                body = Body(response, self._most, end)
                if not body.whole:
                    async for chunk in response.aiter_raw():
                        body.take(chunk)
        except (self._httpx.HTTPError, TimeoutError, RequestError) as error:
            return self._failed(error)
        return self._read(request, response.status_code, body.content)

    def _http_request(self, request: Request, seconds: float) -> dict[str, Any]:
        if request.verb != "predict":
            tail = "/metadata" if request.verb == "metadata" else ""
            return {"method": "GET", "url": self._path + tail, "timeout": seconds}
        columns = {name: _to_json(value) for name, value in request.inputs.items()}
        body: dict[str, Any] = {"signature_name": request.signature}
        if request.rows:
            rows = zip(*columns.values(), strict=True)
            body["instances"] = [dict(zip(columns, row, strict=True)) for row in rows]
        else:
            body["inputs"] = columns
        url, content = f"{self._path}:predict", json.dumps(body)
        return {"method": "POST", "url": url, "content": content, "timeout": seconds}

    def _read(self, request: Request, status: int, content: bytearray) -> Any:
        code = CODE_OF_HTTP.get(status, "UNKNOWN")
        try:
            body = json.loads(content)
            if status != 200:
                return RequestError(code, one_line(asserted(body["error"])))
            if request.verb == "predict":
                return _columns(request, body)
            return model_versions(body) if request.verb == "status" else model_metadata(body)
        except Exception as error:  # whatever a broken or hostile server causes
            received = f"HTTP {status} {bytes(content[:60])!r}"
            return unexpected_answer(self._address, received, error, code)

    def _failed(self, error: Exception) -> RequestError:
        if isinstance(error, RequestError):
            return error
        reason = one_line(str(error)) or type(error).__name__
        if isinstance(error, (self._httpx.TimeoutException, TimeoutError)):
            return timed_out(self._address, reason)
        return not_reached(self._address, reason, _refused(error))


def _refused(error: BaseException | None) -> bool:
    """Whether a refused connection is at the bottom of an error."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        several = getattr(error, "exceptions", ())  # one for each address of a host name
        error = several[0] if several else error.__cause__ or error.__context__
    return error is not None


class Body:
    """The bytes of an answer as they arrive, inflated, within their size and until their time.

    Raises:
        RequestError: the answer is compressed by something other than gzip or deflate.
    """

    def __init__(self, response: "httpx.Response", most: int, end: float) -> None:
        self.content, self._most, self._end = bytearray(), most, end
        self.whole = response.is_stream_consumed  # by a transport that is no network
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise RequestError(
                "UNIMPLEMENTED",
                f"The answer is packed as '{one_line(encoding, 40)}': only gzip is read.",
            )
        packed = encoding != "identity" and not self.whole
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
        if self.whole:
            self.take(response.content)

    def take(self, chunk: bytes) -> None:
        """Add what has arrived. Raises RequestError for too much, TimeoutError when it is late."""
        room = self._most - len(self.content) + 1
        try:
            inflater = self._inflater
            self.content += inflater.decompress(chunk, room) if inflater else chunk[:room]
        except zlib.error as error:
            raise RequestError("DATA_LOSS", f"The answer cannot be inflated: {error}.") from error
        if len(self.content) > self._most:
            raise too_large(self._most)
        if time.monotonic() > self._end:
            raise TimeoutError


class SocketDeadlines:
    """Waits for sockets that end when a request's time is over.

    httpx bounds each wait by itself: one byte now and then, or ``100 Continue`` again and again,
    would keep it waiting without end.
    """

    def __init__(self) -> None:
        self._thread = threading.local()  # a client may be used by several threads

    @contextmanager
    def until(self, end: float) -> Iterator[None]:
        """Reads and writes of this thread within end at ``end``, a time of ``time.monotonic``."""
        self._thread.end = end
        try:
            yield
        finally:
            del self._thread.end

    def watch(self, event: str, info: dict[str, Any]) -> None:
        """For httpcore's extension "trace": bound a connection when it is made."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        stream = info["return_value"]
        read, write = stream.read, stream.write

        def bounded_read(most: int, timeout: float | None = None) -> bytes:
            return bytes(read(most, self._left()))

        def bounded_write(content: bytes, timeout: float | None = None) -> None:
            for start in range(0, len(content), PIECE):
                write(content[start : start + PIECE], self._left())

        stream.read, stream.write = bounded_read, bounded_write

    def _left(self) -> float:
        left: float = self._thread.end - time.monotonic()
        if left <= 0:
            raise import_extra("httpcore").ReadTimeout("timed out")
        return left


def _columns(request: Request, body: dict[str, Any]) -> dict[str, np.ndarray]:
    """The outputs that were asked for. A signature with one output answers without its name."""
    in_rows = "predictions" in body
    answer = body["predictions"] if in_rows else body["outputs"]
    first = answer[0] if in_rows and answer else answer
    if not isinstance(first, dict) or first.keys() == {"b64"}:
        required = [name for name in request.outputs if name not in request.optional]
        columns = {required[0]: answer} if len(required) == 1 else {}
    elif in_rows:
        columns = {name: [row[name] for row in answer] for name in first}
    else:
        columns = answer
    return {
        name: _from_json(name, columns[name], dtype)
        for name, dtype in request.outputs.items()
        if name in columns
    }


def _to_json(value: object) -> object:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return _to_json(value.tolist()) if value.dtype == object else value.tolist()
    return [_to_json(item) for item in value] if isinstance(value, list) else value


def _from_json(name: str, value: object, dtype: str) -> np.ndarray:
    """An array of the dtype; raises what it likes where the value is none."""
    if dtype == "DT_STRING":
        kind = bytes if name.endswith("_bytes") else str
        strings = np.array(_decode_base64(value), object)
        if not all(isinstance(item, kind) for item in strings.ravel()):
            raise TypeError(f"'{name}' is not of {kind.__name__}")
        if kind is str:  # halves of surrogate pairs, which JSON can spell, are no text
            "".join(strings.ravel()).encode()
        return strings
    array = np.array(value)
    kinds = "b" if dtype == "DT_BOOL" else "iu" if "INT" in dtype else "iuf"
    if array.size and array.dtype.kind not in kinds:
        raise TypeError(f"'{name}' is not of {dtype}")
    with np.errstate(over="raise"):
        cast = array.astype(NUMPY_OF[dtype])
    if "INT" in dtype and (cast != array).any():
        raise OverflowError(f"'{name}' does not fit {dtype}")
    return cast


def _decode_base64(value: Any) -> Any:
    """A JSON value with its base64 objects as bytes."""
    if isinstance(value, list):
        return [_decode_base64(item) for item in value]
    return base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value
