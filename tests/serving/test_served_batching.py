"""An export under batching, with the parameters that ship: requests that share a batch are answered
as if alone.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from exported import export_of

pytest.importorskip("tensorflow_serving")

pytestmark = pytest.mark.slow

SERVING = Path(__file__).resolve().parents[2] / "serving"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def export():
    return export_of()


@pytest.fixture(scope="module")
def requests(export):
    """The warm-up requests of the signatures that can be batched, one a signature."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    from tf_groupvit.export.signatures import row_of

    file = export.path / "assets.extra" / "tf_serving_warmup_requests"
    found = {}
    for record in tf.data.TFRecordDataset(str(file)):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        request.model_spec.name = "groupvit"
        if row_of(request.model_spec.signature_name).batchable:
            found[request.model_spec.signature_name] = request
    return found


def answers(export, requests, clients: int, **flags) -> list[dict[str, np.ndarray]]:
    from tf_groupvit.server.running import Options, Server
    from tf_groupvit.server.tensor_protos import read_tensor

    def ask(server, request):
        response = server.call(PREDICT, request)
        return {name: read_tensor(tensor, name) for name, tensor in response.outputs.items()}

    folder = {"groupvit": str(export.path.parent)}
    with (
        Server(
            folder, port=None, rest_api_port=None, options=Options(max_in_flight=64, **flags)
        ) as server,
        ThreadPoolExecutor(clients) as pool,
    ):
        return list(
            pool.map(lambda request: ask(server, request), list(requests.values()) * clients)
        )


def test_a_stranger_in_a_merged_batch_harms_nobody(export, requests):
    """Four clients at once, one of which sends nonsense: the others get what they get alone."""
    from tf_groupvit.server.running import Options, Server
    from tf_groupvit.server.status import StatusError
    from tf_groupvit.server.tensor_protos import read_tensor

    good = requests["classify"]
    one = type(good)()
    one.CopyFrom(good)
    one.model_spec.signature_name = "serving_default"
    bad = type(good)()
    bad.CopyFrom(one)
    bad.inputs["image_bytes"].string_val[:] = [b"nonsense", b""]
    options = {
        "enable_batching": True,
        "batching_parameters_file": str(SERVING / "batching.config"),
    }

    def ask(request):
        try:
            return {
                name: read_tensor(tensor, name)
                for name, tensor in server.call(PREDICT, request).outputs.items()
            }
        except StatusError as refusal:
            return refusal

    folder = {"groupvit": str(export.path.parent)}
    with (
        Server(
            folder,
            port=None,
            rest_api_port=None,
            options=Options(enable_model_warmup=False, **options),
        ) as server,
        ThreadPoolExecutor(4) as pool,
    ):
        wanted = ask(one)
        for answers in (list(pool.map(ask, [one, bad, one, one])) for _ in range(4)):
            for i in (0, 2, 3):
                assert not any(answers[i]["error"]) and [
                    len(mask) > 0 for mask in answers[i]["mask_bytes"]
                ] == [1, 1]
                np.testing.assert_allclose(
                    answers[i]["class_scores"], wanted["class_scores"], rtol=1e-4, atol=1e-5
                )
            stranger = answers[1]
            if isinstance(stranger, StatusError):  # of a batch of its own
                assert "got 8 bytes of another kind" in stranger.text
            else:
                assert [
                    b"got 8 bytes" in stranger["error"][0],
                    b"got 0 bytes" in stranger["error"][1],
                ] == [
                    True,
                    True,
                ]
                assert not any(stranger["mask_bytes"])


@pytest.fixture(scope="module")
def alone(export, requests):
    return answers(export, requests, 1, enable_model_warmup=False)


@pytest.mark.parametrize(
    "flags",
    [
        {
            "batching_parameters_file": str(SERVING / "batching.config")
        },  # and warmed up through batching
        {
            "enable_per_model_batching_parameters": True,
            "enable_model_warmup": False,
        },  # the file beside the graph
    ],
    ids=["one-file", "per-model"],
)
def test_answers_in_a_batch_are_those_of_a_request_alone(export, requests, alone, flags):
    assert len(requests) > 5
    together = answers(export, requests, 3, enable_batching=True, **flags)
    for index, mine in enumerate(together):
        wanted = alone[index % len(requests)]
        assert mine.keys() == wanted.keys()
        for name, array in mine.items():
            assert array.shape == wanted[name].shape
            if array.dtype.kind == "f":  # sums come in another order in a larger batch
                np.testing.assert_allclose(array, wanted[name], rtol=1e-4, atol=1e-5)
            else:
                assert (array == wanted[name]).mean() > 0.999, name
