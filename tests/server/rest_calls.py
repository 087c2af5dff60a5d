"""Requests over a socket: status, body and headers as they arrive."""

import http.client
import json
from typing import Any

PREDICT = "/v1/models/half_plus_two:predict"


def call(
    server: Any, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, str, dict[str, str]]:
    """``headers`` may write "_" for "-". Bytes that are not UTF-8 come back as surrogate escapes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_api_port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        if body or method in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body or None)
        response = connection.getresponse()
        got = {name.lower(): value for name, value in response.getheaders()}
        return response.status, response.read().decode("utf-8", "surrogateescape"), got
    finally:
        connection.close()


def get(server: Any, path: str, **headers: str) -> tuple[int, str]:
    status, text, _ = call(server, "GET", path, **headers)
    return status, text


def predict(server: Any, body: str | bytes, path: str = PREDICT) -> tuple[int, str]:
    status, text, _ = call(server, "POST", path, body if isinstance(body, bytes) else body.encode())
    return status, text


def refusal(server: Any, body: str | bytes, path: str = PREDICT) -> tuple[int, str]:
    """Status and message of a predict request that is refused."""
    status, text = predict(server, body, path)
    answer = json.loads(text)
    assert answer.keys() == {"error"}, text
    return status, answer["error"]
