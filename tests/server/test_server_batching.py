"""Batching (contract, section 10): what is merged and split, and the errors."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from rest_calls import PREDICT, predict, refusal
from small_models import every_type, half_plus_two, rows
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tf_groupvit.errors import ConfigError, ServerError
from tf_groupvit.server.config_files import Parameters, read_parameters
from tf_groupvit.server.grpc_service import PREDICTION
from tf_groupvit.server.running import Options, Server
from tf_groupvit.server.status import StatusError

ROWS, EVERY = "/v1/models/rows:predict", "/v1/models/every:predict"
# only a full batch runs
LONG = "batch_timeout_micros { value: 20000000 } num_batch_threads { value: 2 }"


@pytest.fixture(scope="module")
def models(tmp_path_factory, fixture_base_path):
    folder = tmp_path_factory.mktemp("batching")
    for name, make in (("rows", rows), ("every", every_type)):
        (folder / name).mkdir()
        make(folder / name)
    return {"rows": folder / "rows", "every": folder / "every", "half_plus_two": fixture_base_path}


def batching(models, folder, text: str, **options) -> Server:
    """A server whose parameters file has this text."""
    file = folder / "batching.config"
    file.write_text(text)
    flags = Options(
        enable_batching=True, batching_parameters_file=str(file), max_in_flight=16, **options
    )
    return Server(models, port=None, options=flags)


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parameters")
    with batching(models, folder, "max_batch_size { value: 32 }") as running:
        yield running


def call(server, signature: str, output_filter=(), model: str = "every", **inputs):
    request = PredictRequest(output_filter=output_filter)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return server.call(f"/{PREDICTION}/Predict", request)


def asked(server, *instances: list) -> list:
    """Predictions of requests that are on their way at once, or their refusals."""

    def ask(rows: list):
        status, text = predict(server, json.dumps({"instances": rows}), ROWS)
        answer = json.loads(text)
        return (status, answer["error"]) if status != 200 else answer["predictions"]

    with ThreadPoolExecutor(len(instances)) as pool:
        return list(pool.map(ask, instances))


def test_a_request_alone_is_answered_as_without_batching(server):
    assert json.loads(predict(server, '{"instances": [1, 2]}')[1]) == {"predictions": [2.5, 3.0]}
    assert asked(server, [[1, 2], [3, 4]]) == [[{"rows": 2, "sum": 3.0}, {"rows": 2, "sum": 7.0}]]
    response = call(server, "", ["sum"], "rows", x=np.ones([3, 2], np.float32))
    assert (
        response.outputs.keys() == {"sum"} and list(response.outputs["sum"].float_val) == [2.0] * 3
    )
    assert (
        len(call(server, "", (), "rows", x=np.ones([0, 2], np.float32)).outputs["sum"].float_val)
        == 0
    )


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (PREDICT, '{"inputs": 1}', "Batching Run() input tensors must have at least one dimension"),
        (EVERY, '{"signature_name": "pair", "inputs": {"a": [[1]], "b": ["x", "y"]}}',
         "Batching Run() input tensors must have equal 0th-dimension size"),
        (PREDICT, json.dumps({"instances": [1] * 40}), "Task size 40 is larger than maximum input batch size 32"),
        (PREDICT, '{"signature_name": "total", "inputs": [1, 2]}', "Batched output tensor has 0 dimensions"),
        (EVERY, '{"signature_name": "uneven", "inputs": [1, 2]}', "Batched output tensor's 0th dimension does not "
         "equal the sum of the 0th dimension sizes of the input tensors"),
    ],
)  # fmt: skip
def test_what_cannot_be_batched_is_refused_to_the_letter(server, path, body, text):
    assert refusal(server, body, path) == (400, text)


def test_codes_tell_a_bad_request_from_a_bad_model(server):
    for signature, inputs, code in (
        ("", {}, "INVALID_ARGUMENT"),
        ("uneven", {"x": np.ones(2, np.float32)}, "FAILED_PRECONDITION"),
    ):
        with pytest.raises(StatusError) as refused:
            call(server, signature, **inputs)
        assert refused.value.code == code
    with pytest.raises(StatusError, match=r"Batching Run\(\) must have at least one input tensor"):
        call(server, "")


def test_a_wrong_type_keeps_the_runtimes_words(server):
    with pytest.raises(StatusError, match="to be float but int32 is provided"):
        call(server, "float", x=np.ones(2, np.int32))


def test_requests_at_once_run_together_and_each_gets_its_own_rows(models, tmp_path):
    with batching(models, tmp_path, f"max_batch_size {{ value: 4 }} {LONG}") as running:
        answers = asked(running, [[1, 0]], [[2, 0]], [[3, 0], [4, 0]])
        assert answers == [
            [{"rows": 4, "sum": 1.0}],
            [{"rows": 4, "sum": 2.0}],
            [{"rows": 4, "sum": 3.0}, {"rows": 4, "sum": 4.0}],
        ]


def test_other_lengths_fail_the_whole_batch_unless_they_are_padded(models, tmp_path):
    parameters = f"max_batch_size {{ value: 2 }} {LONG}"
    text = (
        "from different tasks have different shapes and padding is turned off. Set"
        " pad_variable_length_inputs to true, or ensure that all tensors with the same name have"
        " equal dimensions starting with the first dim."
    )
    with batching(models, tmp_path, parameters) as running:
        for status, error in asked(running, [[1, 0]], [[2, 0, 0]]):
            assert (
                status == 400
                and error.startswith("Tensors with name 'serving_default_x:0' ")
                and text in error
            )
    with batching(models, tmp_path, f"{parameters} pad_variable_length_inputs: true") as running:
        answers = asked(
            running, [[1, 0]], [[2, 0, 0]]
        )  # filled up with the array's own first value
        assert answers == [[{"rows": 2, "sum": 2.0}], [{"rows": 2, "sum": 2.0}]]


def test_a_batch_is_padded_to_an_allowed_size_and_the_padding_is_seen_by_nobody(models, tmp_path):
    sizes = "allowed_batch_sizes: 4 allowed_batch_sizes: 8 max_batch_size { value: 8 }"
    with batching(models, tmp_path, sizes) as running:
        assert asked(running, [[1, 2]]) == [[{"rows": 4, "sum": 3.0}]]
        assert asked(running, [[1, 2]] * 5) == [[{"rows": 8, "sum": 3.0}] * 5]
        assert asked(running, [[1, 2]] * 8) == [[{"rows": 8, "sum": 3.0}] * 8]


def test_large_requests_may_be_split_over_batches(models, tmp_path):
    split = "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }"
    with batching(models, tmp_path, f"max_batch_size {{ value: 10 }} {split}") as running:
        (answers,) = asked(running, [[n, 0] for n in range(10)])
        assert [row["sum"] for row in answers] == list(range(10))
        assert [row["rows"] for row in answers] == [4] * 8 + [2] * 2
        assert asked(running, [[1, 0]] * 11) == [
            (400, "Task size 11 is larger than maximum input batch size 10")
        ]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("allowed_batch_sizes: 4 allowed_batch_sizes: 8 max_batch_size { value: 16 }",
         "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 16"),
        ("allowed_batch_sizes: 8 allowed_batch_sizes: 4 max_batch_size { value: 4 }",
         "allowed_batch_sizes entries must be monotonically increasing"),
        ("allowed_batch_sizes: 4 max_batch_size { value: 8 } enable_large_batch_splitting { value: true }",
         "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was 4; expected 8"),
        ("max_execution_batch_size { value: 9 } max_batch_size { value: 8 } enable_large_batch_splitting "
         "{ value: true }", "max_execution_batch_size must be at most max_batch_size; was 9 with 8"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_fail_the_load(models, tmp_path, text, refused):
    with pytest.raises(ServerError) as raised:
        batching({"rows": models["rows"]}, tmp_path, text, max_num_load_retries=0).start()
    assert f"due to error: INVALID_ARGUMENT: {refused}" in str(raised.value)


def test_the_defaults_are_the_real_servers(tmp_path):
    assert read_parameters(None) == Parameters()
    parameters = Parameters()
    assert (
        parameters.max_batch_size,
        parameters.batch_timeout_micros,
        parameters.max_enqueued_batches,
    ) == (
        1000,
        0,
        10,
    )
    file = tmp_path / "b"
    file.write_text(
        "thread_pool_name { value: 'mine' } allowed_batch_sizes: 1 allowed_batch_sizes: 1000"
    )
    assert read_parameters(file) == Parameters(allowed_batch_sizes=(1, 1000))
    file.write_text("max_batch_size: 3")
    with pytest.raises(ConfigError, match="is no BatchingParameters text proto"):
        read_parameters(file)


def test_a_parameters_file_without_batching_is_an_error_at_the_start(models, tmp_path):
    with pytest.raises(ConfigError, match="without batching"):
        Server(models, options=Options(batching_parameters_file=str(tmp_path / "b")))


def test_requests_of_other_types_do_not_share_a_batch_in_silence(models, tmp_path):
    with (
        batching(models, tmp_path, f"max_batch_size {{ value: 2 }} {LONG}") as running,
        ThreadPoolExecutor(2) as pool,
    ):
        both = [
            pool.submit(call, running, "float", x=np.ones(1, type_))
            for type_ in (np.float32, np.int32)
        ]
        for future in both:
            with pytest.raises(StatusError, match="Tensor concat operation failed") as refused:
                future.result(20)
            assert refused.value.code == "INTERNAL"


def test_with_parameters_of_each_model_one_without_is_not_batched(tmp_path):
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
        half_plus_two(tmp_path / name)
    (tmp_path / "with" / "123" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    options = Options(enable_batching=True, enable_per_model_batching_parameters=True)
    both = {"with": tmp_path / "with", "without": tmp_path / "without"}
    with Server(both, port=None, options=options) as running:
        total = '{"signature_name": "total", "inputs": [1, 2]}'
        assert (
            refusal(running, total, "/v1/models/with:predict")[1]
            == "Batched output tensor has 0 dimensions"
        )
        assert json.loads(predict(running, total, "/v1/models/without:predict")[1]) == {
            "outputs": 3.0
        }
        three = '{"instances": [1, 2, 3]}'
        text = "Task size 3 is larger than maximum input batch size 2"
        assert refusal(running, three, "/v1/models/with:predict")[1] == text
        assert predict(running, three, "/v1/models/without:predict")[0] == 200


def test_warm_up_goes_through_batching_and_so_may_fail_the_load(tmp_path):
    path = half_plus_two(tmp_path)
    log = PredictionLog()
    log.predict_log.request.model_spec.signature_name = "total"
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
    (path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(path / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
    options = Options(enable_batching=True, max_num_load_retries=0)
    with pytest.raises(
        ServerError, match="FAILED_PRECONDITION: Batched output tensor has 0 dimensions"
    ):
        Server({"m": tmp_path}, options=options).start()
    with Server({"m": tmp_path}, port=None, rest_api_port=None) as running:
        assert running.rest("GET", "/v1/models/m").status_code == 200
