"""The REST API over sockets: routes, methods, status codes, headers, checks in order, sizes."""

import gzip
import http.client
import json
import socket

import pytest
import tensorflow as tf
from rest_calls import PREDICT, call, get, predict, refusal
from small_models import echo, half_plus_two
from test_server_versions import until

from tf_groupvit.server import rest_app
from tf_groupvit.server.options import Options
from tf_groupvit.server.rest_app import Route, gunzip, route_of
from tf_groupvit.server.running import Server
from tf_groupvit.server.status import StatusError
from tf_groupvit.transport.status_codes import CODES as ALL_CODES

MODEL = "/v1/models/half_plus_two"
METRICS = "/monitoring/prometheus/metrics"
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
        (MODEL, 400, f"Malformed request: POST {MODEL}"),
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
        (f"{MODEL}/metadata/x", f"Malformed request: GET {MODEL}/metadata/x"),
        (f"{MODEL}/versions/1/labels/l", f"Malformed request: GET {MODEL}/versions/1/labels/l"),
        ("/v1/", "Malformed request: GET /v1/"),
        ("/v1/models/", "Malformed request: GET /v1/models/"),
    ],
)
def test_a_get_that_is_no_route_is_400(server, path, text):
    assert get(server, path) == (400, json.dumps({"error": text}, indent=4))


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 5000, "1" + "0" * 500])
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
    "path", ["/", "/v1", "/v1x/models/m", "/models/m", "/v2/models/m:predict", METRICS]
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
    packed = gzip.compress(ONE)
    for body in (ONE, packed[:-3], packed[4:], b""):
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


@pytest.mark.parametrize(
    ("method", "target", "route"),
    [
        ("POST", "/v1/models/m:predict", Route("predict", "m")),
        ("POST", "/V1/Models/m/Versions/00123:predict", Route("predict", "m", 123)),
        ("POST", "/v1/models/m/labels/a%20b:classify", Route("classify", "m", None, "a b")),
        ("POST", "/v1/models/a%2Fb%3Ac:regress", Route("regress", "a/b:c")),
        ("GET", "/v1/models/m", Route("status", "m")),
        ("GET", "/v1/models/m/versions/1/metadata", Route("metadata", "m", 1)),
        ("GET", "/v1/models/m/METADATA", Route("status", "m")),
        ("GET", "/v1/models/metadata", Route("status", "metadata")),
        ("GET", "/v1/models/m?x=1", Route("status", "m?x=1")),
        ("GET", "/v1/models/m/labels/l", Route("status", "m", None, "l")),
    ],
)
def test_a_path_is_matched_as_it_stands(method, target, route):
    assert route_of(method, target) == route


def test_checks_come_in_the_order_of_the_contract(server):
    assert refusal(server, b"x", "/v1/models/no:predict") == (
        400,
        "JSON Parse error: Invalid value. at offset: 0",
    )
    assert refusal(server, b'{"signature_name": 1}', "/v1/models/no:predict")[0] == 400
    assert refusal(server, b'{"signature_name": "s"}', "/v1/models/no:predict") == (
        404, "Servable not found for request: Latest(no)",
    )  # fmt: skip
    assert refusal(server, b'{"signature_name": "s"}', "/v1/models/no/labels/l:predict") == (
        400, "Unrecognized servable version label: l",
    )  # fmt: skip
    assert (
        refusal(server, b'{"signature_name": "s"}')[1]
        == 'Serving signature name: "s" not found in signature def'
    )
    init = b'{"signature_name": "__saved_model_init_op", "instances": [1]}'
    assert (
        refusal(server, init)[1] == "Failed to get input map for signature: __saved_model_init_op"
    )
    both = b'{"inputs": ["x"], "instances": ["x"]}'
    assert "only one of 'inputs' or 'instances'" in refusal(server, both)[1]
    total = b'{"signature_name": "total", "instances": [1]}'
    assert refusal(server, total) == (400, "Tensor name: total has no shape information ")


def test_one_of_two_inputs_given_as_a_bare_base64_object_is_the_servers_trap(server):
    status, text = refusal(server, b'{"signature_name": "segment", "instances": [{"b64": "YQ=="}]}')
    assert status == 400 and text.startswith(
        "input size does not match signature: 1!=2 len({class_names})"
    )


def test_a_gzip_body_inflates_to_100_mib_at_most(monkeypatch):
    assert rest_app._GUNZIPPED_BYTES == 100 * 2**20
    monkeypatch.setattr(rest_app, "_GUNZIPPED_BYTES", 1000)
    assert gunzip(gzip.compress(b" " * 1000)) == b" " * 1000
    assert gunzip(gzip.compress(b" " * 1001)) == b""


def test_chunked_bodies_and_kept_connections_work(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_api_port, timeout=10)
    for _ in range(3):
        connection.request("POST", PREDICT, iter([b'{"insta', b'nces": [1', b"]}"]), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        assert json.loads(connection.getresponse().read()) == {"predictions": [2.5]}
    connection.request("PUT", PREDICT, b"ignored" * 100)
    assert connection.getresponse().read()
    connection.request("GET", "/v1/models/half_plus_two")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_caller_that_leaves_in_the_middle_of_a_body_leaves_its_place(server):
    for _ in range(5):
        leaving = socket.create_connection(("127.0.0.1", server.rest_api_port))
        leaving.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode()
        )
        leaving.close()
    assert json.loads(predict(server, ONE)[1]) == {"predictions": [2.5]}
    until(lambda: server.limit.admitted == 0)


def test_the_status_route_ignores_a_label_and_the_metadata_route_does_not(server):
    assert get(server, f"{MODEL}/labels/none")[0] == 200
    status, text = get(server, f"{MODEL}/labels/none/metadata")
    assert (status, json.loads(text)["error"]) == (400, "Unrecognized servable version label: none")


def test_metadata_lists_every_signature_with_strings_for_int64(server):
    answer = json.loads(get(server, f"{MODEL}/metadata")[1])
    assert answer["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {
        "serving_default",
        "segment",
        "total",
        "mask",
        "__saved_model_init_op",
    }
    x = signatures["serving_default"]["inputs"]["x"]
    assert (x["dtype"], x["tensor_shape"]["dim"]) == ("DT_FLOAT", [{"size": "-1", "name": ""}])
    assert signatures["serving_default"]["defaults"] == {}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{}", "When method is classify, key 'examples' is expected and was not found"),
        (b'{"examples": 1}', "Expecting 'examples' value to be an list/array"),
        (b'{"examples": []}', "'examples' value is an empty array"),
        (b'{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        (
            b'{"signature_name": "none", "examples": [{"x": 1}]}',
            "No signature was found with the name: none",
        ),
        (b'{"examples": [{"x": 1}]}', "No classification inputs found in SignatureDef"),
        (b'{"signature_name": "segment", "examples": [{"x": 1}]}', "Expected one input Tensor."),
    ],
)
def test_classify_on_a_predict_model_is_refused_in_order(server, body, text):
    status, got = refusal(server, body, "/v1/models/half_plus_two:classify")
    assert status == 400 and text in got


@pytest.fixture(scope="module")
def small(tmp_path_factory, fixture_base_path):
    """A server with a size limit, and a second model of float64."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "doubles").mkdir()
    echo(folder / "doubles", tf.float64)
    options = Options(max_request_bytes=2000)
    models = {"half_plus_two": fixture_base_path, "doubles": folder / "doubles"}
    with Server(models, options=options) as running:
        yield running


def test_a_body_over_the_limit_is_413_declared_or_not(small):
    big = json.dumps({"instances": [1.0] * 1000}).encode()
    status, text = predict(small, big)
    assert status == 413 and "larger than the 2000 bytes" in json.loads(text)["error"]
    connection = http.client.HTTPConnection("127.0.0.1", small.rest_api_port, timeout=10)
    connection.request(
        "POST", PREDICT, iter([big]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_a_gzip_body_is_held_to_the_limit_when_it_is_unpacked(small):
    for size, expected in ((1900, 400), (2001, 413)):
        packed = gzip.compress(b" " * size)
        assert (
            len(packed) < 100
            and call(small, "POST", PREDICT, packed, Content_Encoding="gzip")[0] == expected
        )


def test_a_float64_model_gets_and_gives_rapidjsons_doubles(small):
    body = b'{"instances": [123456789012345678901234567890, 0.1]}'
    assert "1.2345678901234566e+29, 0.1" in predict(small, body, "/v1/models/doubles:predict")[1]


def test_a_graph_error_keeps_the_runtimes_own_words(tmp_path):
    half_plus_two(tmp_path)
    with Server({"m": tmp_path}, port=None, rest_api_port=None) as quiet:
        answer = quiet.rest(
            "POST",
            "/v1/models/m:predict",
            b'{"signature_name": "mask", "inputs": [[1, 2], [3, 4]]}',
        )
        assert answer.status_code == 200  # a rank other than the signature's is not checked
        assert quiet.rest("GET", "/v1/models/m").status_code == 200
