"""This package: as it is, folded for inference, and folded in a Session, which is how a server runs an export."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

PIXELS = tf.TensorSpec([None, 3, None, None], tf.float32, name="pixels")
IDS = tf.TensorSpec([None, None], tf.int32)


def make(name: str, folder: Path, threads: int) -> Any:
    from tf_groupvit import TFGroupViTModel

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = TFGroupViTModel.from_pretrained(folder)
    if "plain" in name:
        return InProcess(model, model, folder)
    folded = model.optimized()
    return InSession(folded, threads) if "Session" in name else InProcess(folded, model, folder)


def looking(model: Any) -> Any:
    """Pixels -> group features and soft assignments."""

    def look(pixels: Any) -> dict[str, Any]:
        found = model.vision_model(pixels, output_attentions=True, training=False)
        return {"groups": found.last_hidden_state, "assignment": found.attentions[0]}

    return tf.function(look, input_signature=[PIXELS], autograph=False)


class InProcess:
    def __init__(self, model: Any, plain: Any, folder: Path) -> None:
        self.plain, self.folder, self.look = plain, folder, looking(model)
        self.segmenters: dict[tuple[str, ...], Any] = {}
        self.read = tf.function(
            lambda ids: {"texts": model.get_text_features(ids, training=False)}, input_signature=[IDS], autograph=False
        )

    def gemm(self, a: np.ndarray) -> dict[str, Any]:
        return {"product": tf.matmul(a, a).numpy()}

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        return {name: value.numpy() for name, value in self.look(pixels).items()}

    def text(self, ids: np.ndarray) -> dict[str, Any]:
        return {name: value.numpy() for name, value in self.read(ids.astype("int32")).items()}

    def photo(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """JPEG bytes to a label map; the classes are encoded when they come for the first time."""
        from tf_groupvit import Segmenter

        key = tuple(classes.tolist())
        if key not in self.segmenters:
            self.segmenters[key] = Segmenter.from_pretrained(self.folder, list(key), protocol="hf")
        return {"labels": self.segmenters[key](jpeg.tobytes()).labels}


class InSession:
    """The folded tower saved and loaded as a server loads it."""

    def __init__(self, model: Any, threads: int) -> None:
        module = tf.Module()
        module.model, module.look = model, looking(model)
        v1 = tf.compat.v1
        with tempfile.TemporaryDirectory(prefix="bench_tower_") as saved:
            tf.saved_model.save(module, saved, signatures={"look": module.look})
            config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
            self.session = v1.Session(graph=tf.Graph(), config=config)
            loaded = v1.saved_model.load(self.session, ["serve"], saved)
        signature = loaded.signature_def["look"]
        self.pixels = signature.inputs["pixels"].name
        self.outputs = {name: tensor.name for name, tensor in signature.outputs.items()}

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        return self.session.run(self.outputs, {self.pixels: pixels})
