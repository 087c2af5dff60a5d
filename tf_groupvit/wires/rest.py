"""Asks in, arrays out, by JSON over HTTP: TensorFlow Serving's REST API."""

import base64
import json
from typing import Any
from urllib.parse import quote

import numpy as np

from tf_groupvit.errors import InputError, RequestError
from tf_groupvit.wires.asks import CODES, GONE, SLOW, Ask, ModelSpec, needed
from tf_groupvit.wires.dtypes import NUMPY_OF
from tf_groupvit.wires.statements import signatures_of, versions_of

CODE_OF_HTTP = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14, 504: 4}


class RestWire:
    def __init__(self, address: str, spec: ModelSpec, transport: Any, local: bool, awaited: bool) -> None:
        httpx = self._httpx = needed("httpx")
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
            return {"predict": _columns, "status": versions_of, "metadata": signatures_of}[ask.verb](ask, body)
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
