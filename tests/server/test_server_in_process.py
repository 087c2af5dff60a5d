"""A server without sockets: the same answers through an httpx transport and a channel."""

import asyncio

import grpc
import httpx
import pytest
import tensorflow as tf
from in_process import Channel, http_transport
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tf_groupvit.errors import InputError
from tf_groupvit.server import tensor_protos
from tf_groupvit.server.running import Server

BODY = b'{"instances": [1.0, 2.0]}'
PREDICT = "/v1/models/half_plus_two:predict"


def test_httpx_reaches_the_handler_with_and_without_a_loop(server):
    with httpx.Client(base_url="http://in-process", transport=http_transport(server)) as client:
        assert client.post(PREDICT, content=BODY).json() == {"predictions": [2.5, 3.0]}
        assert client.get("/v1/models/half%5Fplus%5Ftwo").status_code == 200
        assert client.get("/v1/models/none").json() == {
            "error": "Could not find any versions of model none"
        }

    async def ask():
        async with httpx.AsyncClient(
            base_url="http://in-process", transport=http_transport(server)
        ) as client:
            return (await client.post(PREDICT, content=BODY)).json()

    assert asyncio.run(ask()) == {"predictions": [2.5, 3.0]}


def test_the_asgi_application_works_in_httpx_own_transport(server):
    async def ask():
        transport = httpx.ASGITransport(app=server.app)
        async with httpx.AsyncClient(base_url="http://in-process", transport=transport) as client:
            return await client.post(PREDICT, content=BODY)

    answer = asyncio.run(ask())
    assert (
        answer.json() == {"predictions": [2.5, 3.0]}
        and answer.headers["content-type"] == "application/json"
    )


def test_stubs_reach_the_calls_through_a_channel(server):
    request = PredictRequest()
    request.model_spec.name = "half_plus_two"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    assert PredictionServiceStub(Channel(server)).Predict(request, timeout=5).outputs[
        "y"
    ].float_val == [2.5]
    status = GetModelStatusRequest()
    status.model_spec.name = "none"
    with pytest.raises(grpc.RpcError) as raised:
        ModelServiceStub(Channel(server)).GetModelStatus(status)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_request_of_a_few_bytes_is_refused_before_it_takes_memory(server):
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", "segment"
    for name in ("image_bytes", "class_names"):
        request.inputs[name].dtype = tf.string.as_datatype_enum
        request.inputs[name].tensor_shape.dim.add().size = 33_000_000
    with pytest.raises(grpc.RpcError) as raised:
        PredictionServiceStub(Channel(server)).Predict(request)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (
        "its shape has 33,000,000 elements, 0 are given; at most 262,144 are filled up"
        in raised.value.details()
    )


@pytest.mark.parametrize(
    "values",
    [
        (
            '"instances": [{"image_bytes": "a", "class_names": "b"}, {"image_bytes": "c",'
            ' "class_names": "d"}]'
        ),
        '"inputs": {"image_bytes": [["a"], ["b"]], "class_names": "c"}',
    ],
)
def test_a_body_of_too_many_strings_is_refused(server, monkeypatch, values):
    body = f'{{"signature_name": "segment", {values}}}'.encode()
    assert server.rest("POST", PREDICT, body).status_code == 200
    monkeypatch.setattr(tensor_protos, "MOST_STRINGS", 1)
    answer = server.rest("POST", PREDICT, body)
    assert (answer.status_code, answer.body.count(b"2 strings, at most 1 are taken")) == (400, 1)


def test_a_server_needs_a_model():
    with pytest.raises(InputError, match="No model to serve"):
        Server({})


def test_a_bug_is_500_without_a_word_of_it(server, monkeypatch, caplog):
    monkeypatch.setattr(server.app.reader, "read", lambda *_: 1 / 0)
    answer = server.rest("POST", PREDICT, BODY)
    assert (
        answer.status_code == 500
        and b"ZeroDivision" not in answer.body
        and b"Traceback" not in answer.body
    )
    assert "ZeroDivisionError" in caplog.text
