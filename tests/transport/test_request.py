"""Answers of servers, read as they write them."""

import pytest

from tf_groupvit.transport.request import model_metadata


def written(spec: str, signatures: str, shape: str, rank: str) -> dict:
    pixels = {"dtype": "DT_UINT8", shape: {"dim": [{"size": "-1", "name": ""}, {"size": "60"}]}}
    labels = {"dtype": "DT_UINT8", shape: {"dim": [], rank: True}}
    signature = {"inputs": {"pixels": pixels}, "outputs": {"labels": labels}}
    return {
        spec: {"name": "vision", "version": "1"},
        "metadata": {"signature_def": {signatures: {"serving_default": signature}}},
    }


@pytest.mark.parametrize(
    "names",
    [
        ("model_spec", "signature_def", "tensor_shape", "unknown_rank"),  # TensorFlow Serving
        ("modelSpec", "signatureDef", "tensorShape", "unknownRank"),  # OpenVINO Model Server
    ],
    ids=["as in the file", "as in JSON"],
)
def test_metadata_are_read_in_either_spelling(names):
    assert model_metadata(written(*names)) == {
        "name": "vision",
        "version": 1,
        "signatures": {
            "serving_default": {
                "inputs": {"pixels": {"dtype": "DT_UINT8", "shape": [-1, 60]}},
                "outputs": {"labels": {"dtype": "DT_UINT8", "shape": None}},
            }
        },
    }
