"""The conformance cases: a line of a case file in; what the server must be asked and what it must
answer out.
"""

import base64
import http.client
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

# Case files name element types as numpy does.
TYPE_NAMES = {"float32": "float", "float64": "double", "float16": "half", "object": "string"}
NUMPY_TYPES = {"string": object, "half": np.float16}


def read_cases(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


def type_name(name: str) -> str:
    return TYPE_NAMES.get(name, name)


def body_of(case: dict[str, Any]) -> bytes:
    return (
        base64.b64decode(case["body_b64"]) if "body_b64" in case else case.get("body", "").encode()
    )


def plain(value: Any) -> Any:
    """A value of a case as Python: {"b64"} is bytes, {"f"} a float that is not finite."""
    if isinstance(value, list):
        return [plain(element) for element in value]
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"])
    if isinstance(value, dict) and value.keys() == {"f"}:
        return float(value["f"])
    return value


def array(given: dict[str, Any]) -> np.ndarray:
    """A tensor of a case as an array."""
    values = plain(given["values"])
    if given["dtype"] == "bfloat16":
        import ml_dtypes

        return np.array(values, ml_dtypes.bfloat16).reshape(given["shape"])
    if given["dtype"] == "string":
        flat = np.empty(int(np.prod(given["shape"], dtype=int)), object)
        flat[:] = flattened(values)
        return flat.reshape(given["shape"])
    return np.array(values, NUMPY_TYPES.get(given["dtype"], given["dtype"])).reshape(given["shape"])


def flattened(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [leaf for element in values for leaf in flattened(element)]


def assert_same(got: Any, wanted: Any, where: str = "") -> None:
    """Equal, with NaN equal to itself; wanted values that are not finite are written {"f": ...}."""
    if isinstance(wanted, dict) and wanted.keys() == {"f"}:
        wanted = float(wanted["f"])
    if isinstance(wanted, dict):
        assert isinstance(got, dict) and got.keys() == wanted.keys(), (where, got, wanted)
        for key in wanted:
            assert_same(got[key], wanted[key], f"{where}/{key}")
    elif isinstance(wanted, list):
        assert isinstance(got, list) and len(got) == len(wanted), (where, got, wanted)
        for index, (mine, theirs) in enumerate(zip(got, wanted, strict=True)):
            assert_same(mine, theirs, f"{where}/{index}")
    elif isinstance(wanted, float) and math.isnan(wanted):
        assert isinstance(got, float) and math.isnan(got), where
    else:
        assert got == wanted, (where, got, wanted)


def pointed(value: Any, pointer: str) -> Any:
    """The value at a JSON pointer."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def ask(port: int, case: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """Send a route case as it is written, over a socket."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(
            case["method"], case["path"], skip_host=False, skip_accept_encoding=True
        )
        body = body_of(case)
        headers = dict(case.get("headers", {}))
        if body or case["method"] in ("POST", "PUT", "PATCH"):
            headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        response = connection.getresponse()
        return (
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
    finally:
        connection.close()


def check_route(case: dict[str, Any], status: int, headers: dict[str, str], body: bytes) -> None:
    assert status == case["expect_status"], body[:300]
    if "expect_content_type" in case:
        assert headers.get("content-type", "").split(";")[0] == case["expect_content_type"]
    if "expect_body" in case:
        assert body.decode() == case["expect_body"]
    if "expect_json" in case:
        assert_same(json.loads(body), case["expect_json"])
    if "expect_error_contains" in case:
        assert case["expect_error_contains"] in json.loads(body)["error"]
    for pointer, wanted in case.get("expect_json_has", {}).items():
        assert_same(pointed(json.loads(body), pointer), wanted, pointer)
