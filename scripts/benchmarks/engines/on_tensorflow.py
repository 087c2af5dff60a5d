"""This package: folded or as it is, run by TensorFlow, LiteRT, OpenVINO, and in a Session, as a
server runs it; and LiteRT and OpenVINO with the same weights and nothing of this package around.
"""

import io
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from engines.process import OPENVINO_SETTINGS

VERSION = f"TensorFlow {tf.__version__}, Keras {version('keras')}"
PIXELS = tf.TensorSpec([None, 3, None, None], tf.float32, name="pixels")
IDS = tf.TensorSpec([None, None], tf.int32)
BARE, BEFORE, PLAIN = "bare", "before", "not folded"  # ends of a name
# What stands between "ours" and such an end -> what runs the tower.
KINDS = {
    "": "graph",
    "Eigen's kernels": "graph",
    "in a Session": "graph",
    "LiteRT": "lite",
    "LiteRT in int8": "lite_int8",
    "OpenVINO": "openvino",
}


def make(name: str, folder: Path, threads: int) -> Any:
    from tf_groupvit import TFGroupViTModel

    kind, end = kind_of(name)
    runtime = KINDS[kind]
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = TFGroupViTModel.from_pretrained(folder)
    if end == BARE:
        return Bare(model.optimized(), runtime, threads)
    runs = unfolded(model, runtime) if end == PLAIN else model.optimized(runtime)
    if kind == "in a Session":
        return InSession(runs, model, folder, threads)
    return InProcess(runs, model if runtime == "graph" else runs, folder)


def kind_of(name: str) -> tuple[str, str]:
    """What stands after "ours" in an engine's name, and the end after it, if there is one."""
    kind = name.removeprefix("ours").strip(", ")
    end = next((end for end in (BARE, BEFORE, PLAIN) if kind.endswith(end)), "")
    return kind.removesuffix(end).strip(", "), end


def unfolded(model: Any, runtime: str) -> Any:
    """A model whose vision tower a runtime runs with weights as they are in the checkpoint."""
    from tf_groupvit.models.optimized import CompiledVisionTower

    if runtime != "graph":
        model.vision_model = CompiledVisionTower(model.vision_model, runtime)
    return model


def looking(model: Any) -> Any:
    """Pixels -> group features and soft assignments."""

    def look(pixels: Any) -> dict[str, Any]:
        found = model.vision_model(pixels, output_attentions=True, training=False)
        return {"groups": found.last_hidden_state, "assignment": found.attentions[0]}

    return tf.function(look, input_signature=[PIXELS], autograph=False)


class InProcess:
    """``given`` is what a segmenter is made with."""

    def __init__(self, model: Any, given: Any, folder: Path) -> None:
        self.given, self.folder, self.look = given, folder, looking(model)
        self.read = tf.function(
            lambda ids: {"texts": model.get_text_features(ids, training=False)},
            input_signature=[IDS],
            autograph=False,
        )
        self.segmenters: dict[tuple[str, ...], Any] = {}
        square = np.random.default_rng(0).normal(size=(2048, 2048)).astype("float32")
        self.square = tf.constant(square)

    def gemm(self) -> dict[str, Any]:
        return {"product": tf.matmul(self.square, self.square)[:8].numpy()}

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        return {name: value.numpy() for name, value in self.look(pixels).items()}

    def text(self, ids: np.ndarray) -> dict[str, Any]:
        return {name: value.numpy() for name, value in self.read(ids.astype("int32")).items()}

    def photo(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """JPEG bytes to a label map; the classes are encoded when they come for the first time."""
        return self._segment(jpeg, classes, mode="whole")

    def windows(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        return self._segment(jpeg, classes, mode="window")

    def _segment(self, jpeg: np.ndarray, classes: np.ndarray, mode: str) -> dict[str, Any]:
        key = (mode, *classes.tolist())
        if key not in self.segmenters:
            self.segmenters.clear()  # those of earlier works
            self.segmenters[key] = segmenter_of(
                self.given, self.folder, list(classes.tolist()), mode
            )
        return {"labels": self.segmenters[key](jpeg.tobytes()).labels}


class Bare:
    """The folded tower, compiled for each batch by LiteRT or OpenVINO themselves."""

    def __init__(self, model: Any, runtime: str, threads: int) -> None:
        self.tower_of, self.threads = model.vision_model, threads
        self.compiled = {"lite": by_lite, "openvino": by_openvino}[runtime]
        self.programs: dict[tuple[int, ...], Any] = {}

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        if pixels.shape not in self.programs:
            self.programs[pixels.shape] = self.compiled(self._traced(pixels.shape), self.threads)
        groups, assignment = self.programs[pixels.shape](pixels)
        return {"groups": groups, "assignment": assignment}

    def _traced(self, shape: tuple[int, ...]) -> Any:
        def look(pixels: Any) -> list[Any]:
            found = self.tower_of(pixels, output_attentions=True, training=False)
            return [found.last_hidden_state, found.attentions[0]]

        spec = tf.TensorSpec(shape, tf.float32)
        return tf.function(look, autograph=False).get_concrete_function(spec)


def by_lite(function: Any, threads: int) -> Any:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    interpreter = tf.lite.Interpreter(model_content=converter.convert(), num_threads=threads)
    interpreter.allocate_tensors()
    (given,), wanted = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(given["index"], pixels)
        interpreter.invoke()
        return [interpreter.get_tensor(one["index"]) for one in wanted]

    return run


def by_openvino(function: Any, threads: int) -> Any:
    import openvino

    names = [result.name for result in function.outputs]
    model = openvino.convert_model(function, output=names, share_weights=False)
    settings = {**OPENVINO_SETTINGS, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda pixels: [compiled([pixels])[number] for number in range(2)]


def segmenter_of(model: Any, folder: Path, classes: list[str], mode: str) -> Any:
    from tf_groupvit import ImageProcessor, Segmenter, Tokenizer

    parts = Tokenizer.from_pretrained(folder), ImageProcessor.from_pretrained(folder)
    return Segmenter(model, *parts, classes, protocol="hf", mode=mode)


class InSession:
    """The tower saved and loaded as a server loads it; and an export of a segmenter."""

    def __init__(self, folded: Any, plain: Any, folder: Path, threads: int) -> None:
        self.plain, self.folder, self.threads = plain, folder, threads
        self.exports: dict[tuple[str, ...], Any] = {}
        module = tf.Module()
        module.weights, module.look = (
            [variable.value for variable in folded.variables],
            looking(folded),
        )
        with tempfile.TemporaryDirectory(prefix="bench_tower_") as saved:
            tf.saved_model.save(module, saved, signatures={"look": module.look})
            self.look = self._signature(saved, "look")

    def _signature(self, saved: str, name: str) -> Any:
        """A function of arrays by name: a signature in a session of its own."""
        v1 = tf.compat.v1
        config = v1.ConfigProto(
            intra_op_parallelism_threads=self.threads, inter_op_parallelism_threads=self.threads
        )
        session = v1.Session(graph=tf.Graph(), config=config)
        with session.graph.as_default():
            signature = v1.saved_model.load(session, ["serve"], saved).signature_def[name]
        outputs = {name: tensor.name for name, tensor in signature.outputs.items()}
        return lambda **given: session.run(
            outputs, {signature.inputs[key].name: given[key] for key in given}
        )

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        return self.look(pixels=pixels)

    def photo(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """The export's answer: the label map as a PNG, decoded here."""
        return {"labels": self._masks([jpeg.tobytes()], classes)[0]}

    def batch(self, jpeg: np.ndarray, count: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """The same of one request that has the photo ``count`` times."""
        return {"labels": np.stack(self._masks([jpeg.tobytes()] * int(count), classes))}

    def _masks(self, images: list[bytes], classes: np.ndarray) -> list[np.ndarray]:
        key = tuple(classes.tolist())
        if key not in self.exports:
            self.exports[key] = self._export(list(key))
        found = self.exports[key](image_bytes=np.array(images, object))
        return [np.asarray(Image.open(io.BytesIO(mask))) for mask in found["mask_bytes"]]

    def _export(self, classes: list[str]) -> Any:
        from tf_groupvit.export import export_saved_model

        with tempfile.TemporaryDirectory(prefix="bench_tower_") as base:
            version = export_saved_model(
                segmenter_of(self.plain, self.folder, classes, "whole"), base
            )
            return self._signature(str(version), "segment")
