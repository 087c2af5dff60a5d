"""uint8 pixels in, scores of the small picture out: what runs between reading an image and labelling it.

On the TensorFlow backend a step runs as it is for some images, then it is compiled, once for every size, with the model
folded for inference (models/optimized.py): a command over one image waits for neither. Other Keras backends run it as
it is.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.optimized import Twin, check_can_be_optimized
from tf_groupvit.models.runtimes import GRAPH
from tf_groupvit.preprocessing.image_resize import resize_bicubic, resize_bilinear
from tf_groupvit.preprocessing.image_statistics import normalise
from tf_groupvit.segmentation.protocol import (
    Groups,
    class_affinity,
    class_probabilities,
    compact_scores,
    group_scores,
    read_groups,
    with_background,
)
from tf_groupvit.segmentation.settings import Settings
from tf_groupvit.segmentation.small_scores import SIDE, SmallScores
from tf_groupvit.segmentation.window_tensors import merge_windows
from tf_groupvit.segmentation.windows import boxes, resized

PIXELS = tf.TensorSpec([None, 3, None, None], tf.float32)
TEXTS = tf.TensorSpec([None, None], tf.float32)

# Measured: at the published size, mode whole, a call took 0.50 s of the processor as it is and 0.17 s compiled, and
# compiling 6 s (two cores, busy with other work): few images are better off without, and nobody waits long for it.
# scripts/bench segment prints all three.
CALLS_BEFORE = 2

merge = tf.function(
    merge_windows,
    input_signature=[
        tf.TensorSpec([None, None, None, None], tf.float32),
        tf.TensorSpec([None, 2], tf.int32),
        SIDE,
        SIDE,
    ],
    autograph=False,
)


class Compiled:
    """A function that TensorFlow compiles for all sizes, where it runs the model, once it was called often enough."""

    def __init__(self, function: Callable[..., Any], *signature: tf.TensorSpec) -> None:
        self.function, self.signature, self.calls = function, signature, 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls <= CALLS_BEFORE or keras.backend.backend() != "tensorflow":
            return self.function(*map(keras.ops.convert_to_tensor, arguments))
        return self._traced(*arguments)

    @cached_property
    def _traced(self) -> Callable[..., Any]:
        return tf.function(self.function, input_signature=self.signature, autograph=False)


class Inference:
    """One model under one setting. Pixels are uint8 (H, W, 3); texts (N, D) are class embeddings.

    With several ``thresholds``, scores have a background for each of them before the classes. A ``runtime`` other than
    "graph" runs from the first image on: it was asked for.
    """

    def __init__(
        self,
        model: TFGroupViTModel,
        settings: Settings,
        thresholds: tuple[float, ...] | None = None,
        runtime: str = GRAPH,
    ) -> None:
        if runtime != GRAPH:
            check_can_be_optimized(model)
        self.model, self.settings, self.runtime = model, settings, runtime
        self.background = settings.background if thresholds is None else thresholds
        self.compiled: TFGroupViTModel | None = None  # what graphs were traced with, folded

    def for_graphs(self) -> TFGroupViTModel:
        """The model folded for inference, as its weights are now; itself where it cannot be folded."""
        return Twin.of(self.model, self.runtime).get()

    def _model(self) -> TFGroupViTModel:
        """The model as it is, or folded in a graph, which is made to be run often."""
        if self.runtime == GRAPH and not tf.inside_function():
            return self.model
        self.compiled = self.for_graphs()
        return self.compiled

    def renew(self) -> None:
        """Forget what was compiled if the model's weights have changed since."""
        if self.compiled is not None and self.compiled is not self.for_graphs():
            self.compiled = None
            for name in ("_scores", "_groups", "_probabilities"):
                self.__dict__.pop(name, None)

    @cached_property
    def _scores(self) -> Callable[..., dict[str, Any]]:
        """What ``SmallScores`` holds, of several images: in mode window a row for each pixel."""
        protocol, whole = self.settings.protocol, self.settings.mode == "whole"

        def scores(pixel_values: Any, texts: Any) -> dict[str, Any]:
            groups, (height, width) = read_groups(self._model(), pixel_values), keras.ops.shape(pixel_values)[2:]
            if whole:
                return compact_scores(groups, texts, height, width, protocol, self.background)
            return {"rows": group_scores(groups, texts, height, width, protocol, self.background)}

        return Compiled(scores, PIXELS, TEXTS)

    @cached_property
    def _groups(self) -> Callable[..., Groups]:
        return Compiled(lambda pixel_values: read_groups(self._model(), pixel_values), PIXELS)

    def scores(self, images: list[np.ndarray], texts: np.ndarray) -> list[SmallScores]:
        """Scores of each image; in mode whole the images go through the model together."""
        if self.settings.mode == "window":
            return [SmallScores(self._window_scores(pixels, texts)) for pixels in images]
        found = self._run(np.stack([self.square(pixels) for pixels in images]), texts)
        parts = [{name: values[i] for name, values in found.items()} for i in range(len(images))]
        return [SmallScores(**each, size=self.settings.size) for each in parts]

    def square(self, pixels: np.ndarray) -> np.ndarray:
        """The whole image at the one size of mode whole: bicubic, antialiased."""
        return resize_bicubic(pixels, *self.settings.size)

    def _run(self, pixels: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 (B, H, W, 3) -> the arrays of ``_scores``."""
        self.renew()
        pixel_values = normalise(pixels, self.settings.mean, self.settings.std)
        return {name: keras.ops.convert_to_numpy(values) for name, values in self._scores(pixel_values, texts).items()}

    def _window_scores(self, pixels: np.ndarray, texts: np.ndarray) -> np.ndarray:
        settings = self.settings
        height, width = resized(pixels.shape[0], pixels.shape[1], settings.image_size, settings.patch)
        small = resize_bilinear(pixels, height, width)
        corners = np.array(boxes(height, width, settings.window, settings.window // 2), "int32")
        tall, wide = min(height, settings.window), min(width, settings.window)
        cut = np.stack([small[y : y + tall, x : x + wide] for y, x in corners])
        return merge(self._run(cut, texts)["rows"], corners, height, width).numpy()

    @cached_property
    def _probabilities(self) -> Callable[..., Any]:
        def probabilities(pixel_values: Any, texts: Any) -> Any:
            return class_probabilities(self._model(), pixel_values, texts)

        return Compiled(probabilities, PIXELS, TEXTS)

    def probabilities(self, images: list[np.ndarray], texts: np.ndarray) -> np.ndarray:
        """How likely each class is of the image as a whole, (B, N), whatever the mode."""
        self.renew()
        pixels = np.stack([self.square(image) for image in images])
        pixel_values = normalise(pixels, self.settings.mean, self.settings.std)
        return keras.ops.convert_to_numpy(self._probabilities(pixel_values, texts))

    def groups(self, pixels: np.ndarray, texts: np.ndarray) -> dict[str, Any]:
        """Of the whole image: maps (rows, columns, G) of each stage, group embeddings (G, D), their scores (G, K)."""
        self.renew()
        pixel_values = normalise(self.square(pixels)[None], self.settings.mean, self.settings.std)
        groups = self._groups(pixel_values)
        affinity = with_background(class_affinity(groups, keras.ops.convert_to_tensor(texts)), self.background)
        array = keras.ops.convert_to_numpy
        return {
            "maps": [array(maps)[0].transpose(1, 2, 0) for maps in groups["maps"]],
            "group_embeds": array(groups["group_embeds"])[0],
            "group_scores": array(affinity)[0],
        }
