"""Refusals of gRPC calls, word by word, and element types (contract, section 7)."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from small_models import TYPES, every_type

from tf_groupvit.server.grpc_service import CALLS, MODEL, PREDICTION
from tf_groupvit.server.running import Server
from tf_groupvit.server.tensor_protos import FIELDS, NUMBER_OF

X = 'inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1 } }'
HALF = 'model_spec { name: "half_plus_two" }'
FOO = 'model_spec { name: "foo" version { value: 7 } }'
RELOAD = 'config { model_config_list { config { name: "m" base_path: "%s" %s } } }'
PREDICT, METADATA = f"/{PREDICTION}/Predict", f"/{PREDICTION}/GetModelMetadata"
STATUS, CONFIG = f"/{MODEL}/GetModelStatus", f"/{MODEL}/HandleReloadConfigRequest"

REFUSED = [
    (PREDICT, "model_spec {}", "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    (
        PREDICT,
        'model_spec { name: "foo" } ' + X,
        "NOT_FOUND",
        "Servable not found for request: Latest(foo)",
    ),
    (PREDICT, FOO, "NOT_FOUND", "Servable not found for request: Specific(foo, 7)"),
    (
        PREDICT,
        'model_spec { name: "foo" version_label: "l" }',
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: l",
    ),
    (
        PREDICT,
        'model_spec { name: "half_plus_two" signature_name: "s" }',
        "FAILED_PRECONDITION",
        'Serving signature key "s" not found.',
    ),
    (
        PREDICT,
        f'{HALF} {X} inputs {{ key: "z" value {{}} }}',
        "INVALID_ARGUMENT",
        (
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}."
            " Missing but required: {}."
        ),
    ),
    (
        PREDICT,
        f'{HALF} {X} output_filter: "q"',
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
    ),
    (
        PREDICT,
        f'{HALF} {X} output_filter: ["y", "y"]',
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: y",
    ),
    (
        PREDICT,
        HALF + ' inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: -1 } } } }',
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    (
        METADATA,
        f'{FOO} metadata_field: "f"',
        "INVALID_ARGUMENT",
        "Metadata field f is not supported",
    ),
    (
        METADATA,
        f'{FOO} metadata_field: "signature_def"',
        "NOT_FOUND",
        "Servable not found for request: Specific(foo, 7)",
    ),
    (
        METADATA,
        'model_spec {} metadata_field: "signature_def"',
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    (STATUS, "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    (STATUS, "model_spec {}", "NOT_FOUND", "Could not find any versions of model "),
    (
        STATUS,
        'model_spec { name: "half_plus_two" version { value: 9 } }',
        "NOT_FOUND",
        "Could not find version 9 of model half_plus_two",
    ),
    (
        CONFIG,
        "config {}",
        "INVALID_ARGUMENT",
        (
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        ),
    ),
    (
        CONFIG,
        RELOAD % ("models/m", 'model_platform: "tensorflow"'),
        "INVALID_ARGUMENT",
        "Expected model m to have an absolute path or URI; got base_path()=models/m",
    ),
    (
        CONFIG,
        RELOAD % ("/models/m", ""),
        "INVALID_ARGUMENT",
        (
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
            " ModelServerConfig::model_platform, model name is m"
        ),
    ),
    (
        CONFIG,
        RELOAD % ("/models/m", 'model_platform: "other"'),
        "INVALID_ARGUMENT",
        "Model m requests unsupported platform other",
    ),
]


def asked(server, path: str, text: str):
    call = CALLS[path]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        method = channel.unary_unary(path, call.request.SerializeToString, call.response.FromString)
        return method(text_format.Parse(text, call.request()), timeout=60)


@pytest.mark.parametrize(("path", "text", "code", "words"), REFUSED)
def test_a_call_is_refused_with_the_code_and_the_words_of_the_contract(
    server, path, text, code, words
):
    with pytest.raises(grpc.RpcError) as refused:
        asked(server, path, text)
    assert (refused.value.code().name, refused.value.details()) == (code, words)


def test_an_answer_names_the_version_that_a_label_stood_for_and_the_default_signature(server):
    spec = asked(
        server, PREDICT, f'model_spec {{ name: "half_plus_two" version_label: "stable" }} {X}'
    ).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (
        "half_plus_two",
        123,
        "serving_default",
    )
    assert spec.WhichOneof("version_choice") == "version"


def test_metadata_over_grpc_holds_every_signature_the_init_op_included(server):
    response = asked(server, METADATA, f'{HALF} metadata_field: "signature_def"')
    assert (response.model_spec.name, response.model_spec.version.value) == ("half_plus_two", 123)
    packed = response.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert b"__saved_model_init_op" in packed.value and b"serving_default" in packed.value


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    every_type(folder)
    with Server({"every": folder}, rest_api_port=None) as running:
        yield running


def sent(server, type_: str, tensor):
    call = CALLS[PREDICT]
    request = call.request()
    request.model_spec.name, request.model_spec.signature_name = "every", type_
    request.inputs["x"].CopyFrom(tensor)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        method = channel.unary_unary(
            PREDICT, call.request.SerializeToString, call.response.FromString
        )
        return method(request, timeout=30).outputs["y"]


@pytest.mark.parametrize("type_", TYPES)
def test_an_element_type_comes_back_in_its_typed_field_from_either_form(every, type_):
    dtype = tf.as_dtype(NUMBER_OF[type_])
    values = [[b"a\x00", b""], [b"\xff", b"b"]] if type_ == "string" else np.array([[0, 1], [1, 0]])
    wanted = np.array(values, dtype.as_numpy_dtype)
    by_content = tf.make_tensor_proto(wanted, dtype)  # numbers in tensor_content
    by_field = by_content.__class__(dtype=NUMBER_OF[type_], tensor_shape=by_content.tensor_shape)
    if type_.startswith("complex"):
        getattr(by_field, FIELDS[NUMBER_OF[type_]]).extend([0, 0, 1, 0, 1, 0, 0, 0])
    elif type_ in ("half", "bfloat16"):
        by_field.half_val.extend(wanted.reshape(-1).view(np.uint16).tolist())
    else:
        getattr(by_field, FIELDS[NUMBER_OF[type_]]).extend(wanted.reshape(-1).tolist())
    for tensor in (by_content, by_field):
        answer = sent(every, type_, tensor)
        assert answer.dtype == NUMBER_OF[type_] and not answer.tensor_content
        assert len(getattr(answer, FIELDS[NUMBER_OF[type_]])) == (
            8 if type_.startswith("complex") else 4
        )
        assert tf.make_ndarray(answer).tolist() == wanted.tolist()


@pytest.mark.parametrize("type_", TYPES)
def test_a_tensor_of_rank_0_and_one_of_no_values_come_back_as_they_are(every, type_):
    dtype = tf.as_dtype(NUMBER_OF[type_])
    for value in (np.array(b"ends in zero\x00" if type_ == "string" else 1), np.zeros([2, 0])):
        wanted = value.astype(object if type_ == "string" else dtype.as_numpy_dtype)
        if type_ == "string" and not wanted.ndim:
            wanted = np.array(b"ends in zero\x00", object)
        answer = sent(every, type_, tf.make_tensor_proto(wanted, dtype, wanted.shape))
        assert [dim.size for dim in answer.tensor_shape.dim] == list(wanted.shape)
        assert tf.make_ndarray(answer).tolist() == wanted.tolist()


def test_a_signature_without_inputs_runs_without_any(every):
    answer = asked(every, PREDICT, 'model_spec { name: "every" }')
    assert (
        list(answer.outputs["y"].float_val) == [1.0]
        and answer.model_spec.signature_name == "serving_default"
    )
