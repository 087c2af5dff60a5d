"""gRPC over sockets: health, reflection, deadlines, sizes, TLS, long texts."""

import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from in_process import Channel
from small_models import echo, slow
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from test_server_versions import until

from tf_groupvit.errors import ConfigError, ServerError
from tf_groupvit.server.grpc_service import shortened
from tf_groupvit.server.running import Options, Server

HOME = "127.0.0.1"


def request(model: str = "half_plus_two", **inputs) -> PredictRequest:
    message = PredictRequest()
    message.model_spec.name = model
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(f"{HOME}:{server.port}") as channel:
        yield PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A server of slow and of large answers, one request at a time, one waiting."""
    folder = tmp_path_factory.mktemp("busy")
    for name in ("slow", "echo"):
        (folder / name).mkdir()
    slow(folder / "slow")
    echo(folder / "echo", tf.uint8)
    options = Options(max_in_flight=1, max_queued=1)
    with Server({"slow": folder / "slow", "echo": folder / "echo"}, options=options) as running:
        yield running


def refused(run) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        run()
    return raised.value.code().name, raised.value.details()


def test_health_answers_under_the_servers_short_names(server):
    with grpc.insecure_channel(f"{HOME}:{server.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "ModelService", "PredictionService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        code, _ = refused(
            lambda: health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=5)
        )
        assert code == "NOT_FOUND"


def test_reflection_lists_the_services(server):
    with grpc.insecure_channel(f"{HOME}:{server.port}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answer = next(stub.ServerReflectionInfo(asked, timeout=5))
        names = {service.name for service in answer.list_services_response.service}
    assert {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    } <= names


def test_messages_of_any_size_pass(busy):
    pixels = np.zeros([3, 2000, 2000], np.uint8)  # 12 MB, three times gRPC's default limit
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"{HOME}:{busy.port}", options) as channel:
        answer = PredictionServiceStub(channel).Predict(request("echo", x=pixels), timeout=30)
    assert len(answer.outputs["y"].int_val) == pixels.size


def test_a_request_over_the_limit_is_resource_exhausted_packed_or_not(fixture_base_path):
    options = Options(max_request_bytes=2000)
    large = request(x=np.zeros(1000, np.float32))
    with (
        Server(
            {"half_plus_two": fixture_base_path}, rest_api_port=None, options=options
        ) as running,
        grpc.insecure_channel(f"{HOME}:{running.port}") as channel,
    ):
        stub = PredictionServiceStub(channel)
        assert refused(lambda: stub.Predict(large, timeout=10))[0] == "RESOURCE_EXHAUSTED"
        packed = refused(lambda: stub.Predict(large, timeout=10, compression=grpc.Compression.Gzip))
        assert (
            packed[0] == "RESOURCE_EXHAUSTED" and "ecompressed message larger than max" in packed[1]
        )


def test_a_deadline_stops_the_graph(busy):
    with grpc.insecure_channel(f"{HOME}:{busy.port}") as channel:
        stub = PredictionServiceStub(channel)
        started = time.monotonic()
        code, _ = refused(
            lambda: stub.Predict(request("slow", x=[1.0], work=np.int32(10**6)), timeout=0.3)
        )
        assert code == "DEADLINE_EXCEEDED" and time.monotonic() - started < 3
        assert stub.Predict(request("slow", x=[1.0], work=np.int32(1)), timeout=10).outputs[
            "y"
        ].float_val == [2.0]


def test_an_in_process_deadline_has_the_servers_text(busy):
    stub = PredictionServiceStub(Channel(busy))
    timed_out = refused(
        lambda: stub.Predict(request("slow", x=[1.0], work=np.int32(10**6)), timeout=0.2)
    )
    assert timed_out == ("DEADLINE_EXCEEDED", "Timed out waiting for notification")


def test_the_one_too_many_is_refused_while_others_wait(busy):
    with grpc.insecure_channel(f"{HOME}:{busy.port}") as channel:
        stub, codes = PredictionServiceStub(channel), []

        def ask():
            try:
                stub.Predict(request("slow", x=[1.0], work=np.int32(400)), timeout=30)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"} and codes.count("OK") >= 2
    assert busy.limit.admitted == 0


def test_only_the_outputs_of_the_filter_come_back(stub):
    message = request(x=[1.0])
    message.output_filter.append("y")
    assert stub.Predict(message).outputs.keys() == {"y"}


def test_the_init_op_is_no_signature_to_predict_with(stub):
    message = request()
    message.model_spec.signature_name = "__saved_model_init_op"
    assert refused(lambda: stub.Predict(message))[0] == "INVALID_ARGUMENT"


def test_a_malformed_tensor_is_named(stub):
    message = request(x=[1.0])
    message.inputs["x"].tensor_content = b"abc"
    assert refused(lambda: stub.Predict(message)) == ("INVALID_ARGUMENT", "tensor parsing error: x")


def test_classify_and_multi_inference_are_refused_on_a_predict_model(stub):
    message = ClassificationRequest()
    assert refused(lambda: stub.Classify(message)) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    message.model_spec.name = "half_plus_two"
    code, text = refused(lambda: stub.Classify(message))
    assert code == "FAILED_PRECONDITION" and text.startswith(
        "No classification inputs found in SignatureDef: "
    )
    several = MultiInferenceRequest()
    task = several.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name = "half_plus_two"
    assert "No regression inputs found" in refused(lambda: stub.MultiInference(several))[1]


def test_long_texts_are_cut_at_1024_bytes():
    assert shortened("a" * 1024) == "a" * 1024
    assert shortened("a" * 1025) == "a" * 1024 + "...TRUNCATED"
    assert shortened("a" + "\u00e9" * 600) == "a" + "\u00e9" * 511 + "...TRUNCATED"
    assert shortened("\udcff") == "\ufffd"


def test_a_wrong_signature_with_a_very_long_name_is_cut(stub):
    message = request(x=[1.0])
    message.model_spec.signature_name = "s" * 5000
    code, text = refused(lambda: stub.Predict(message))
    assert code == "FAILED_PRECONDITION" and text.endswith("...TRUNCATED") and len(text) == 1036


def test_a_port_in_use_is_one_line(server, fixture_base_path):
    for ports in (
        {"port": server.port, "rest_api_port": None},
        {"port": None, "rest_api_port": server.rest_api_port},
    ):
        with pytest.raises(ServerError, match="Cannot listen for"):
            Server({"m": fixture_base_path}, **ports).start()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """An authority, and a key and certificate that it signed, for the server and for a client."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    openssl(
        "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority"
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(
            "req", *new[:3], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2", "-extfile", "names")  # fmt: skip
    return {
        file.name: file.read_text() for file in folder.iterdir() if file.suffix in (".key", ".crt")
    }


def ssl_config(folder, keys, verify: bool):
    file = folder / f"ssl-{verify}.config"
    texts = {
        "server_key": keys["server.key"],
        "server_cert": keys["server.crt"],
        "custom_ca": keys["ca.crt"],
    }
    quoted = "\n".join(f"{name}: {text!r}" for name, text in texts.items())
    file.write_text(f"{quoted}\nclient_verify: {str(verify).lower()}\n")
    return str(file)


@pytest.mark.parametrize("verify", [False, True])
def test_tls_and_mutual_tls(tmp_path, keys, fixture_base_path, verify):
    options = Options(ssl_config_file=ssl_config(tmp_path, keys, verify))
    root = keys["ca.crt"].encode()
    with Server(
        {"half_plus_two": fixture_base_path}, rest_api_port=None, options=options
    ) as running:
        mutual = grpc.ssl_channel_credentials(
            root, keys["client.key"].encode(), keys["client.crt"].encode()
        )
        for credentials, passes in (
            (mutual, True),
            (grpc.ssl_channel_credentials(root), not verify),
        ):
            with grpc.secure_channel(f"localhost:{running.port}", credentials) as channel:
                stub = PredictionServiceStub(channel)
                if passes:
                    assert stub.Predict(request(x=[1.0]), timeout=10).outputs["y"].float_val == [
                        2.5
                    ]
                else:
                    assert (
                        refused(lambda stub=stub: stub.Predict(request(x=[1.0]), timeout=10))[0]
                        == "UNAVAILABLE"
                    )
        with grpc.insecure_channel(f"localhost:{running.port}") as channel:
            assert (
                refused(
                    lambda: PredictionServiceStub(channel).Predict(request(x=[1.0]), timeout=10)
                )[0]
                == "UNAVAILABLE"
            )


@pytest.mark.parametrize(
    "text", ['server_key: "k"', 'server_key: "k" server_cert: "c" client_verify: true', "x: 1"]
)
def test_an_ssl_config_that_lacks_something_says_what(tmp_path, fixture_base_path, text):
    file = tmp_path / "ssl.config"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"ssl\.config"):
        Server({"m": fixture_base_path}, options=Options(ssl_config_file=str(file)))


def test_while_it_stops_health_says_so_new_calls_are_refused_and_the_one_under_way_is_answered(
    tmp_path,
):
    slow(tmp_path)
    running = Server({"slow": tmp_path}).start()
    with grpc.insecure_channel(f"{HOME}:{running.port}") as channel:
        stub, health = PredictionServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        under_way = stub.Predict.future(request("slow", x=[1.0], work=np.int32(2500)), timeout=60)
        until(lambda: running.limit.admitted == 1)
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        asked = health_pb2.HealthCheckRequest()
        until(
            lambda: (
                health.Check(asked, timeout=5).status == health_pb2.HealthCheckResponse.NOT_SERVING
            )
        )
        late = refused(lambda: stub.Predict(request("slow", x=[1.0], work=np.int32(1)), timeout=10))
        assert late == ("UNAVAILABLE", "The server is shutting down")
        assert under_way.result().outputs["y"].float_val == [2.0]
        stopping.join()
    assert running.limit.admitted == 0
