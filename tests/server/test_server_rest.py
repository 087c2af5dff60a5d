"""REST over sockets: routes, the order of checks, gzip, CORS, metrics, limits of size."""

import gzip
import http.client
import json
import socket

import pytest
from conformance_cases import ask
from small_models import echo, half_plus_two

from tf_groupvit.server.monitoring import Metrics
from tf_groupvit.server.rest_app import Route, gunzip, route_of
from tf_groupvit.server.running import Options, Server

PREDICT = "/v1/models/half_plus_two:predict"


def post(server, body: bytes, path: str = PREDICT, method: str = "POST", **headers: str):
    case = {"method": method, "path": path, "headers": headers}
    if body:
        import base64

        case["body_b64"] = base64.b64encode(body).decode()
    status, got, answer = ask(server.rest_api_port, case)
    return status, answer.decode(), got


def error(server, body: bytes, path: str = PREDICT) -> tuple[int, str]:
    status, text, _ = post(server, body, path)
    return status, json.loads(text)["error"]


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


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 5000, "1" + "0" * 500])
def test_a_version_beyond_int64_is_400_with_an_empty_body(server, number):
    for method, path in (
        ("GET", f"/v1/models/m/versions/{number}"),
        ("POST", f"/v1/models/m/versions/{number}:predict"),
    ):
        status, text, headers = post(server, b"", path, method)
        assert (status, text, headers["content-type"]) == (400, "", "application/json")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/m:PREDICT"), ("POST", "/v1/models/m:predict?x=1"), ("POST", "/v1/models/m"),
        ("GET", "/v1/models/m:predict"), ("GET", "/v1/models/m/"), ("DELETE", "/v1/models/m"), ("PATCH", "/v1/x"),
        ("GET", "/v1/models/m/versions/1/labels/l"), ("GET", "/v1/models/m/metadata/x"), ("PUT", "/v1/models/m"),
        ("GET", "/v1/models/m/versions/\u0661".encode().decode("latin-1")),
    ],
)  # fmt: skip
def test_what_matches_no_route_is_400_and_never_405(server, method, path):
    path = path.encode("ascii", "ignore").decode()
    status, text, headers = post(server, b"{}" if method == "POST" else b"", path, method)
    assert (status, json.loads(text)) == (400, {"error": f"Malformed request: {method} {path}"})
    assert headers["content-type"] == "application/json"


def test_a_missing_model_name_is_400(server):
    for path in ("/v1/models", "/v1/models/versions/1", "/v1/models/versions/1/metadata"):
        status, text, _ = post(server, b"", path, "GET")
        assert (status, json.loads(text)["error"]) == (400, "Missing model name in request.")


def test_outside_the_api_is_the_html_page_and_the_connection_closes(server):
    for path in ("/", "/v1", "/v2/models/m", "/monitoring/prometheus/metrics"):
        status, text, headers = post(server, b"", path, "GET")
        assert status == 404 and text.startswith("<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>")
        assert (headers["content-type"], headers["connection"]) == ("text/html", "close")


def test_options_and_trace(server):
    assert post(server, b"", "/v1/models/m", "OPTIONS", Origin="https://a.example")[:2] == (200, "")
    assert post(server, b"", "/v1/models/m", "OPTIONS")[:2] == (400, "")
    status, text, headers = post(server, b"", "/v1/models/m", "TRACE")
    assert (status, headers["content-type"]) == (501, "text/html") and "Not Implemented" in text


def test_checks_come_in_the_order_of_the_contract(server):
    assert error(server, b"x", "/v1/models/no:predict") == (
        400,
        "JSON Parse error: Invalid value. at offset: 0",
    )
    assert error(server, b'{"signature_name": 1}', "/v1/models/no:predict")[0] == 400
    assert error(server, b'{"signature_name": "s"}', "/v1/models/no:predict") == (
        404, "Servable not found for request: Latest(no)",
    )  # fmt: skip
    assert error(server, b'{"signature_name": "s"}', "/v1/models/no/labels/l:predict") == (
        400, "Unrecognized servable version label: l",
    )  # fmt: skip
    assert (
        error(server, b'{"signature_name": "s"}')[1]
        == 'Serving signature name: "s" not found in signature def'
    )
    init = b'{"signature_name": "__saved_model_init_op", "instances": [1]}'
    assert error(server, init)[1] == "Failed to get input map for signature: __saved_model_init_op"
    both = b'{"inputs": ["x"], "instances": ["x"]}'
    assert "only one of 'inputs' or 'instances'" in error(server, both)[1]
    total = b'{"signature_name": "total", "instances": [1]}'
    assert error(server, total) == (400, "Tensor name: total has no shape information ")


def test_one_of_two_inputs_given_as_a_bare_base64_object_is_the_servers_trap(server):
    status, text = error(server, b'{"signature_name": "segment", "instances": [{"b64": "YQ=="}]}')
    assert status == 400 and text.startswith(
        "input size does not match signature: 1!=2 len({class_names})"
    )


def test_a_gzip_body_is_inflated_and_a_broken_one_is_empty(server):
    packed = gzip.compress(b'{"instances": [2]}')
    headers = {"Content-Encoding": "gzip"}
    assert json.loads(post(server, packed, **headers)[1]) == {"predictions": [3.0]}
    for broken in (packed[:-3], b"no gzip", packed[4:]):
        assert (
            json.loads(post(server, broken, **headers)[1])["error"]
            == "JSON Parse error: The document is empty"
        )


def test_a_gzip_body_inflates_to_100_mib_at_most(monkeypatch):
    from tf_groupvit.server import rest_app

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
    assert json.loads(post(server, b'{"instances": [1]}')[1]) == {"predictions": [2.5]}
    from test_server_versions import until

    until(lambda: server.limit.admitted == 0)


def test_the_status_route_ignores_a_label_and_the_metadata_route_does_not(server):
    assert post(server, b"", "/v1/models/half_plus_two/labels/none", "GET")[0] == 200
    status, text, _ = post(server, b"", "/v1/models/half_plus_two/labels/none/metadata", "GET")
    assert (status, json.loads(text)["error"]) == (400, "Unrecognized servable version label: none")


def test_metadata_lists_every_signature_with_strings_for_int64(server):
    answer = json.loads(post(server, b"", "/v1/models/half_plus_two/metadata", "GET")[1])
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
    status, got = error(server, body, "/v1/models/half_plus_two:classify")
    assert status == 400 and text in got


@pytest.fixture(scope="module")
def small(tmp_path_factory, fixture_base_path):
    """A server with metrics, CORS and a size limit, and a second model of float64."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "m.config").write_text("prometheus_config { enable: true }")
    (folder / "doubles").mkdir()
    import tensorflow as tf

    echo(folder / "doubles", tf.float64)
    options = Options(
        monitoring_config_file=str(folder / "m.config"),
        rest_api_enable_cors_support=True,
        max_request_bytes=2000,
    )
    models = {"half_plus_two": fixture_base_path, "doubles": folder / "doubles"}
    with Server(models, options=options) as running:
        yield running


def test_a_body_over_the_limit_is_413_declared_or_not(small):
    big = json.dumps({"instances": [1.0] * 1000}).encode()
    status, text, _ = post(small, big)
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
            len(packed) < 100 and post(small, packed, **{"Content-Encoding": "gzip"})[0] == expected
        )


def test_cors_headers_are_on_every_answer(small):
    for method, path in (("POST", PREDICT), ("GET", "/v1/models/no"), ("GET", "/nowhere")):
        headers = post(small, b"{}", path, method)[2]
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-methods"] == "POST, GET"


def test_a_float64_model_gets_and_gives_rapidjsons_doubles(small):
    body = b'{"instances": [123456789012345678901234567890, 0.1]}'
    assert "1.2345678901234566e+29, 0.1" in post(small, body, "/v1/models/doubles:predict")[1]


def test_the_metrics_page_counts_requests_by_model_and_status(small):
    post(small, b'{"instances": [1]}')
    post(small, b"{}", "/v1/models/unknown:predict")
    status, text, headers = post(small, b"", "/monitoring/prometheus/metrics", "GET")
    assert (status, headers["content-type"]) == (200, "text/plain")
    assert "# TYPE :tensorflow:serving:request_count counter" in text
    assert ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}' in text
    assert ':tensorflow:serving:request_count{model_name="unknown",status="NOT_FOUND"} 1' in text
    labels = 'model_name="half_plus_two",API="predict",entrypoint="REST"'
    assert f':tensorflow:serving:request_latency_bucket{{{labels},le="10"}}' in text
    assert f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}}' in text
    assert (
        ':tensorflow:serving:runtime_latency_count{model_name="half_plus_two",API="Predict",runtime="TF1"}'
        in text
    )


def test_the_metrics_path_with_a_query_is_400(small):
    status, text, headers = post(small, b"", "/monitoring/prometheus/metrics?x=1", "GET")
    assert (status, headers["content-type"]) == (400, "text/plain")
    assert (
        text == "Unexpected path: /monitoring/prometheus/metrics?x=1. Should be"
        " /monitoring/prometheus/metrics"
    )


def test_names_from_outside_cannot_fill_the_memory_of_the_metrics():
    metrics = Metrics()
    for index in range(3000):
        metrics.answered(f"model{index}", "NOT_FOUND")
    assert metrics.page().count("\n") < 1010
    assert 'model_name="(other)",status="NOT_FOUND"} 2000' in metrics.page()


def test_label_values_are_escaped():
    metrics = Metrics()
    metrics.answered('a"b\\c\nd\udcff', "OK")
    assert 'model_name="a\\"b\\\\c\\nd\ufffd"' in metrics.page()


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
