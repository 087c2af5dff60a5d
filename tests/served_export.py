"""A version folder and a real TensorFlow Serving, started here or at an address, in; answers over
gRPC out.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

AVAILABLE, NAME, SECONDS = 30, "groupvit", 300.0
LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Served:
    """Asks one version of the model ``groupvit``."""

    def __init__(self, address: str, version: int) -> None:
        self.channel, self.version = grpc.insecure_channel(address, LIMITS), version
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def wait(self) -> None:
        """Until the version is AVAILABLE: a status that answers is not readiness."""
        stub, end = (
            model_service_pb2_grpc.ModelServiceStub(self.channel),
            time.monotonic() + SECONDS,
        )
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = NAME
        while time.monotonic() < end:
            try:
                found = stub.GetModelStatus(request, timeout=5).model_version_status
                if any(one.version == self.version and one.state == AVAILABLE for one in found):
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.5)
        raise TimeoutError(f"version {self.version} of {NAME} did not become AVAILABLE")

    def answer(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = NAME, signature
        request.model_spec.version.value = self.version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(np.asarray(value)))
        try:
            outputs, error = self.stub.Predict(request, timeout=SECONDS).outputs, None
        except grpc.RpcError as refused:
            outputs, error = {}, (refused.code().value[0], refused.details())
        arrays = {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}
        return dict(signature=signature, inputs=inputs, outputs=arrays, error=error)

    def close(self) -> None:
        self.channel.close()


class LocalServer(Served):
    """``tensorflow_model_server`` in a process of its own."""

    def __init__(self, binary: str, path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        flags = [f"--port={port}", f"--model_name={NAME}", f"--model_base_path={path.parent}"]
        self.process = subprocess.Popen([binary, *flags])
        super().__init__(f"127.0.0.1:{port}", int(path.name))
        self.wait()

    def close(self) -> None:
        super().close()
        self.process.kill()
        self.process.wait()


class AddressedServer(Served):
    """A server that runs already and watches TF_SERVING_BASE_PATH, where the export is put as the
    next version.
    """

    def __init__(self, address: str, path: Path) -> None:
        base = Path(os.environ["TF_SERVING_BASE_PATH"])
        version = (
            max((int(child.name) for child in base.iterdir() if child.name.isdigit()), default=0)
            + 1
        )
        shutil.copytree(path, base / f"copying-{version}")
        (base / f"copying-{version}").rename(base / str(version))
        super().__init__(address, version)
        self.wait()
