"""This package under Keras' JAX backend: the vision tower compiled by XLA, on the device that JAX
finds.

Pixels and results stay on the device while a call is timed.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

VERSION = f"JAX {jax.__version__}, Keras {version('keras')}, {jax.devices()[0].device_kind}"
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}


def make(name: str, folder: Path, threads: int) -> Any:
    from tf_groupvit import TFGroupViTModel

    kind = name.split()[-1]
    jax.config.update("jax_default_matmul_precision", PRECISIONS[kind])
    return OnDevice(
        TFGroupViTModel.from_pretrained(
            folder, dtype="bfloat16" if kind == "bfloat16" else "float32"
        )
    )


class OnDevice:
    def __init__(self, model: Any) -> None:
        @jax.jit
        def look(pixels: Any) -> dict[str, Any]:
            found = model.vision_model(pixels, output_attentions=True, training=False)
            named = {"groups": found.last_hidden_state, "assignment": found.attentions[0]}
            return {key: value.astype("float32") for key, value in named.items()}

        self.look = look
        self.given, self.pixels = (
            np.zeros(0),
            None,
        )  # the last ones that came, and where they lie on the device

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        if pixels is not self.given:
            self.given, self.pixels = pixels, jax.device_put(pixels)
        return jax.block_until_ready(self.look(self.pixels))
