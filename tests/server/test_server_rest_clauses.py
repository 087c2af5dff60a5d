"""Clauses of the contract, section 2, over sockets: routes, methods, status codes, headers, bodies
that are no JSON.
"""

import gzip
import json
import socket

import pytest
from rest_calls import PREDICT, call, get, predict, refusal

from tf_groupvit.server.running import Options, Server
from tf_groupvit.server.status import StatusError
from tf_groupvit.transport.status_codes import CODES as ALL_CODES

MODEL = "/v1/models/half_plus_two"
ONE = b'{"instances": [1]}'
ANSWER = '{\n    "predictions": [2.5\n    ]\n}'
# of libevent
PAGE = "<HTML><HEAD>\n<TITLE>{0} {1}</TITLE>\n</HEAD><BODY>\n<H1>{1}</H1>\n</BODY></HTML>\n"


@pytest.mark.parametrize(
    "path",
    [
        PREDICT, "/V1/MODELS/half_plus_two:predict", f"{MODEL}/versions/123:predict", f"{MODEL}/VERSIONS/00123:predict",
        f"{MODEL}/labels/stable:predict", f"{MODEL}/Labels/%73table:predict", "/v1/models/half%5Fplus%5ftwo:predict",
    ],
)  # fmt: skip
def test_every_spelling_of_a_predict_path_runs_the_model(server, path):
    status, text, headers = call(server, "POST", path, ONE)
    assert (status, text, headers["content-type"]) == (200, ANSWER, "application/json")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/models/a%2Fb%3Ac:predict", 404, "Servable not found for request: Latest(a/b:c)"),
        (f"{MODEL}/versions/9:predict", 404, "Servable not found for request: Specific(half_plus_two, 9)"),
        (f"{MODEL}/versions/0:predict", 404, "Servable not found for request: Specific(half_plus_two, 0)"),
        (f"{MODEL}/labels/a-b.c%20d:predict", 400, "Unrecognized servable version label: a-b.c d"),
        ("/v1/models/none/labels/l:predict", 400, "Unrecognized servable version label: l"),
        (f"{MODEL}:PREDICT", 400, f"Malformed request: POST {MODEL}:PREDICT"),
        (f"{PREDICT}/", 400, f"Malformed request: POST {PREDICT}/"),
        (f"{PREDICT}?x=1", 400, f"Malformed request: POST {PREDICT}?x=1"),
        (f"{MODEL}/versions/1/labels/l:predict", 400, f"Malformed request: POST {MODEL}/versions/1/labels/l:predict"),
        (f"{MODEL}/versions/-1:predict", 400, f"Malformed request: POST {MODEL}/versions/-1:predict"),
        (f"{MODEL}/versions/:predict", 400, f"Malformed request: POST {MODEL}/versions/:predict"),
        (f"{MODEL}:explain", 400, f"Malformed request: POST {MODEL}:explain"),
        ("/v1/models/:predict", 400, "Malformed request: POST /v1/models/:predict"),
        ("/v1/models/half%zz:predict", 404, "Servable not found for request: Latest(half%zz)"),
    ],
)  # fmt: skip
def test_what_a_predict_path_names_is_what_is_refused(server, path, status, text):
    assert refusal(server, ONE, path) == (status, text)


@pytest.mark.parametrize("path", [PREDICT, MODEL, "/v1/", "/v1/x/y"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
def test_other_methods_are_malformed_requests_and_never_405(server, method, path):
    status, text, headers = call(server, method, path, ONE if method != "HEAD" else b"")
    wanted = json.dumps({"error": f"Malformed request: {method} {path}"}, indent=4)
    assert (status, text) == (400, "" if method == "HEAD" else wanted)
    assert headers["content-type"] == "application/json" and "allow" not in headers


@pytest.mark.parametrize("path", [PREDICT, MODEL, "/", "/v1"])
@pytest.mark.parametrize("method", ["TRACE", "PROPFIND"])
def test_methods_that_the_http_library_does_not_do_are_its_501_page(server, method, path):
    status, text, headers = call(server, method, path)
    assert (status, text, headers["content-type"]) == (
        501,
        PAGE.format(501, "Not Implemented"),
        "text/html",
    )


def test_connect_is_the_501_page_too(server):
    with socket.create_connection(("127.0.0.1", server.rest_api_port), timeout=10) as raw:
        raw.sendall(b"CONNECT /v1/models/half_plus_two HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.settimeout(10)
        assert raw.recv(1000).startswith(b"HTTP/1.1 501 ")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/models", "Missing model name in request."),
        ("/v1/models/versions/1", "Missing model name in request."),
        ("/v1/models/labels/l/metadata", "Missing model name in request."),
        (PREDICT, f"Malformed request: GET {PREDICT}"),
        (f"{MODEL}/", f"Malformed request: GET {MODEL}/"),
        (f"{MODEL}/metadata/", f"Malformed request: GET {MODEL}/metadata/"),
        (f"{MODEL}/versions/x", f"Malformed request: GET {MODEL}/versions/x"),
        (f"{MODEL}/metadata?x=1", f"Malformed request: GET {MODEL}/metadata?x=1"),
        ("/v1/", "Malformed request: GET /v1/"),
        ("/v1/models/", "Malformed request: GET /v1/models/"),
    ],
)
def test_a_get_that_is_no_route_is_400(server, path, text):
    assert get(server, path) == (400, json.dumps({"error": text}, indent=4))


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 30])
@pytest.mark.parametrize("end", ["", "/metadata", ":predict"])
def test_a_version_beyond_int64_is_an_empty_400_of_json(server, number, end):
    method = "POST" if end == ":predict" else "GET"
    status, text, headers = call(
        server, method, f"{MODEL}/versions/{number}{end}", ONE if method == "POST" else b""
    )
    assert (status, text, headers["content-type"]) == (400, "", "application/json")


def test_the_largest_int64_is_a_version(server):
    text = "Could not find version 9223372036854775807 of model half_plus_two"
    assert get(server, f"{MODEL}/versions/9223372036854775807") == (
        404,
        json.dumps({"error": text}, indent=4),
    )


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1x/models/m", "/models/m", "/v2/models/m:predict", "/favicon.ico"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_outside_the_api_there_is_only_the_404_page(server, method, path):
    status, text, headers = call(server, method, path)
    assert (status, text) == (404, PAGE.format(404, "Not Found"))
    assert (headers["content-type"], headers["connection"]) == ("text/html", "close")


def test_options_is_empty_with_and_without_an_origin(server):
    for path in (PREDICT, MODEL, "/v1/"):
        for origin in ("http://a.example", "https://a.example"):
            assert call(server, "OPTIONS", path, Origin=origin)[:2] == (200, "")
        for headers in ({}, {"Origin": "file://a"}, {"Origin": "null"}):
            assert call(server, "OPTIONS", path, **headers)[:2] == (400, "")


CODES = {
    "OK": 200, "CANCELLED": 499, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400,
    "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "ABORTED": 409, "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401, "RESOURCE_EXHAUSTED": 429, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "UNKNOWN": 500,
    "INTERNAL": 500, "DATA_LOSS": 500,
}  # fmt: skip


def test_each_of_the_canonical_codes_has_its_http_status():
    assert {code: StatusError(code, "").http_status for code in ALL_CODES} == CODES


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "image/png", ""]
)
def test_the_content_type_of_a_request_does_not_matter(server, content_type):
    assert call(server, "POST", PREDICT, ONE, Content_Type=content_type)[:2] == (200, ANSWER)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "gzip, identity", "identity,gzip"])
def test_an_encoding_that_contains_gzip_inflates_the_body(server, encoding):
    assert call(server, "POST", PREDICT, gzip.compress(ONE), Content_Encoding=encoding)[:2] == (
        200,
        ANSWER,
    )


def test_other_encodings_are_not_looked_at(server):
    assert call(server, "POST", PREDICT, ONE, Content_Encoding="br")[:2] == (200, ANSWER)
    assert "Invalid value. at offset: 0" in refusal(server, gzip.compress(ONE))[1]


def test_a_broken_gzip_body_is_an_empty_one(server):
    for body in (ONE, gzip.compress(ONE)[:-9], b""):
        status, text, _ = call(server, "POST", PREDICT, body, Content_Encoding="gzip")
        assert (status, json.loads(text)["error"]) == (
            400,
            "JSON Parse error: The document is empty",
        )


def test_answers_are_never_compressed(server):
    body = json.dumps({"instances": [1.0] * 5000}).encode()
    status, text, headers = call(server, "POST", PREDICT, body, Accept_Encoding="gzip, deflate, br")
    assert status == 200 and "content-encoding" not in headers and len(text) > 20_000


def test_without_the_flag_there_are_no_cors_headers(server):
    for method, origin in (("POST", {}), ("OPTIONS", {"Origin": "https://a.example"})):
        headers = call(server, method, PREDICT, ONE if method == "POST" else b"", **origin)[2]
        assert not [name for name in headers if name.startswith("access-control")]


def test_with_the_flag_every_answer_has_the_three_cors_headers(fixture_base_path):
    options = Options(rest_api_enable_cors_support=True)
    cors = {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "POST, GET",
        "access-control-allow-headers": "Content-Type",
    }
    with Server({"half_plus_two": fixture_base_path}, port=None, options=options) as running:
        asked = [
            ("POST", PREDICT, ONE),
            ("POST", PREDICT, b""),
            ("GET", MODEL, b""),
            ("GET", "/v1/models/no", b""),
            ("OPTIONS", PREDICT, b""),
            ("PUT", PREDICT, b""),
            ("HEAD", MODEL, b""),
        ]
        for method, path, body in asked:
            headers = call(running, method, path, body, Origin="https://a.example")[2]
            assert {name: headers.get(name) for name in cors} == cors, (method, path)


def test_kept_connections_take_one_request_after_another(server):
    with socket.create_connection(("127.0.0.1", server.rest_api_port), timeout=10) as raw:
        raw.settimeout(10)
        request = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (
            PREDICT.encode(),
            len(ONE),
            ONE,
        )
        raw.sendall(request + request)  # the second before the first is answered
        answers = b""
        while answers.count(b"predictions") < 2:
            part = raw.recv(4096)
            assert part, answers
            answers += part


def test_expect_100_continue_gets_it(server):
    with socket.create_connection(("127.0.0.1", server.rest_api_port), timeout=10) as raw:
        raw.settimeout(10)
        head = (
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length:"
            f" {len(ONE)}\r\n\r\n"
        )
        raw.sendall(head.encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 100")
        raw.sendall(ONE)
        assert b"200 OK" in raw.recv(1000)


def test_a_model_name_that_is_not_utf8_is_not_found_in_each_routes_words(server):
    wanted = {
        "/v1/models/%FF": "Could not find any versions of model \udcff",
        "/v1/models/%FF/versions/7": "Could not find version 7 of model \udcff",
        "/v1/models/%FF/metadata": "Servable not found for request: Latest(\udcff)",
        "/v1/models/%FF/versions/7/metadata": "Servable not found for request: Specific(\udcff, 7)",
    }
    for path, text in wanted.items():
        assert get(server, path) == (404, f'{{\n    "error": "{text}"\n}}')
    text = '{\n    "error": "Unrecognized servable version label: \udcff"\n}'
    assert get(server, f"{MODEL}/labels/%FF/metadata") == (400, text)
    assert refusal(server, ONE, "/v1/models/half:predict")[0] == 404
    status, text = predict(server, ONE, "/v1/models/%FF:predict")
    assert (status, text) == (
        404,
        '{\n    "error": "Servable not found for request: Latest(\udcff)"\n}',
    )
