"""Asks in, arrays out, by JSON over HTTP: TensorFlow Serving's REST API."""

import asyncio
import base64
import json
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import numpy as np

from tf_groupvit.errors import InputError, RequestError, asserted, one_line
from tf_groupvit.wires.asks import (
    CODES,
    GONE,
    SLOW,
    Ask,
    ModelSpec,
    NotReachedError,
    needed,
    not_ours,
    too_large,
)
from tf_groupvit.wires.dtypes import NUMPY_OF
from tf_groupvit.wires.statements import signatures_of, versions_of

CODE_OF_HTTP = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    409: 10,
    429: 8,
    499: 1,
    500: 13,
    501: 12,
    503: 14,
    504: 4,
}
PIECE = 1 << 16  # bytes that are handed to a socket at once


class RestWire:
    def __init__(
        self, address: str, spec: ModelSpec, transport: Any, local: bool, awaited: bool, most: int
    ) -> None:
        httpx = self._httpx = needed("httpx")
        name, version = spec
        kind = (
            ""
            if version is None
            else f"/labels/{quote(version, safe='')}"
            if isinstance(version, str)
            else f"/versions/{version}"
        )
        self._path, self._address, self._most = (
            f"/v1/models/{quote(name, safe='')}{kind}",
            address,
            most,
        )
        self._deadlines = Deadlines()
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

    def _send(self, ask: Ask, seconds: float) -> Any:
        end = time.monotonic() + seconds
        request = self._written(ask) | {
            "timeout": seconds,
            "extensions": {"trace": self._deadlines.watch},
        }
        try:
            with self._deadlines.until(end), self._http.stream(**request) as response:
                body = Body(response, self._most, end)
                if not body.whole:
                    for chunk in response.iter_raw():
                        body.take(chunk)
        except (self._httpx.HTTPError, TimeoutError) as error:
            return self._failed(error)
        except RequestError as error:
            return error
        return self._read(ask, response.status_code, body.content)

    async def _send_async(self, ask: Ask, seconds: float) -> Any:
        end = time.monotonic() + seconds
        request = self._written(ask) | {"timeout": seconds}
        try:
            async with asyncio.timeout(seconds), self._http.stream(**request) as response:
                body = Body(response, self._most, end)
                if not body.whole:
                    async for chunk in response.aiter_raw():
                        body.take(chunk)
        except (self._httpx.HTTPError, TimeoutError) as error:
            return self._failed(error)
        except RequestError as error:
            return error
        return self._read(ask, response.status_code, body.content)

    def _written(self, ask: Ask) -> dict[str, Any]:
        if ask.verb != "predict":
            return {
                "method": "GET",
                "url": self._path + ("/metadata" if ask.verb == "metadata" else ""),
            }
        columns = {name: _to_json(value) for name, value in ask.inputs.items()}
        rows = (
            [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            if ask.rows
            else []
        )
        body = {
            "signature_name": ask.signature,
            **({"instances": rows} if ask.rows else {"inputs": columns}),
        }
        return {"method": "POST", "url": f"{self._path}:predict", "content": json.dumps(body)}

    def _read(self, ask: Ask, status: int, content: bytearray) -> Any:
        try:
            body = json.loads(content)
            if status != 200:
                return RequestError(
                    CODES[CODE_OF_HTTP.get(status, 2)], one_line(asserted(body["error"]))
                )
            return {"predict": _columns, "status": versions_of, "metadata": signatures_of}[
                ask.verb
            ](ask, body)
        except Exception as error:  # whatever a broken or hostile server brings about
            code = CODES[2 if status == 200 else CODE_OF_HTTP.get(status, 2)]
            return not_ours(self._address, f"HTTP {status} {bytes(content[:60])!r}", error, code)

    def _failed(self, error: Exception) -> RequestError:
        reason = one_line(str(error)) or type(error).__name__
        if isinstance(error, (self._httpx.TimeoutException, TimeoutError)):
            return RequestError(
                "DEADLINE_EXCEEDED", f"{self._address} did not answer in time ({reason}): {SLOW}"
            )
        kind = NotReachedError if _refused(error) else RequestError
        return kind("UNAVAILABLE", f"{self._address} cannot be reached ({reason}): {GONE}")


def _refused(error: BaseException | None) -> bool:
    """Whether a refused connection is at the bottom of an error."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        several = getattr(error, "exceptions", ())  # one for each address that a name stands for
        error = several[0] if several else error.__cause__ or error.__context__
    return error is not None


class Body:
    """The bytes of an answer as they arrive, inflated, within their size and until their time."""

    def __init__(self, response: Any, most: int, end: float) -> None:
        self.content, self._most, self._end = bytearray(), most, end
        self.whole = response.is_stream_consumed  # by a transport that is no network
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise RequestError(
                "UNIMPLEMENTED",
                f"The answer is packed as '{one_line(encoding, 40)}': only gzip is read.",
            )
        self._inflate = (
            None
            if encoding == "identity" or self.whole
            else zlib.decompressobj(zlib.MAX_WBITS | 32)
        )
        if self.whole:
            self.take(response.content)

    def take(self, chunk: bytes) -> None:
        """Add what has arrived. Raises ``RequestError`` for too much, ``TimeoutError`` where it is
        too late.
        """
        room = self._most - len(self.content)
        try:
            self.content += (
                self._inflate.decompress(chunk, room + 1) if self._inflate else chunk[: room + 1]
            )
        except zlib.error as error:
            raise RequestError("DATA_LOSS", f"The answer cannot be inflated: {error}.") from error
        if len(self.content) > self._most:
            raise too_large(self._most)
        if time.monotonic() > self._end:
            raise TimeoutError


class Deadlines:
    """Waits for sockets that end when a request's time is over.

    httpx bounds each wait by itself: a byte now and then, or ``100 Continue`` for ever, would go on
    without end.
    """

    def __init__(self) -> None:
        self._here = threading.local()  # a client may be used by several threads

    @contextmanager
    def until(self, end: float) -> Iterator[None]:
        """What this thread reads and writes within ends at ``end``, by the clock of
        ``time.monotonic``.
        """
        self._here.end = end
        try:
            yield
        finally:
            del self._here.end

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
        left: float = self._here.end - time.monotonic()
        if left <= 0:
            raise needed("httpcore").ReadTimeout("timed out")
        return left


def _columns(ask: Ask, body: dict[str, Any]) -> dict[str, np.ndarray]:
    """The outputs that were asked for. A signature with one output answers without its name."""
    answer = body["predictions"] if "predictions" in body else body["outputs"]
    first = answer[0] if "predictions" in body and answer else answer
    if not isinstance(first, dict) or first.keys() == {"b64"}:
        needed_ones = [name for name in ask.outputs if name not in ask.optional]
        columns = {needed_ones[0]: answer} if len(needed_ones) == 1 else {}
    else:
        columns = (
            {name: [row[name] for row in answer] for name in first}
            if "predictions" in body
            else answer
        )
    return {
        name: _from_json(name, columns[name], dtype)
        for name, dtype in ask.outputs.items()
        if name in columns
    }


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return _to_json(value.tolist()) if value.dtype == object else value.tolist()
    return [_to_json(item) for item in value] if isinstance(value, list) else value


def _from_json(name: str, value: Any, dtype: str) -> np.ndarray:
    """An array of the dtype; raises what it likes where the value is none."""
    if dtype == "DT_STRING":
        strings, kind = (
            np.array(_unpacked(value), object),
            bytes if name.endswith("_bytes") else str,
        )
        if not all(isinstance(item, kind) for item in strings.ravel()):
            raise TypeError(f"'{name}' is not of {kind.__name__}")
        if kind is str:
            "".join(
                strings.ravel()
            ).encode()  # halves of surrogate pairs, which JSON can spell, are no text
        return strings
    array = np.array(value)
    if array.size and array.dtype.kind not in (
        "b" if dtype == "DT_BOOL" else "iu" if "INT" in dtype else "iuf"
    ):
        raise TypeError(f"'{name}' is not of {dtype}")
    with np.errstate(over="raise"):
        cast = array.astype(NUMPY_OF[dtype])
    if "INT" in dtype and (cast != array).any():
        raise OverflowError(f"'{name}' does not fit {dtype}")
    return cast


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    return base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value
