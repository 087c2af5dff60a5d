"""uint8 pixels in, scores of the small picture out: what runs between reading an image and
labelling it.

On the TensorFlow backend the model is traced at its first call, once for images of every size and
for all segmenters that use it; so is what compares its groups with classes. The graphs read the
model's variables: they answer as the weights are. Other Keras backends run the same functions as
they are.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_groupvit.models.base_model import VariablesOf
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image_arrays import normalize, resize_bicubic, resize_bilinear
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
from tf_groupvit.segmentation.sliding_window import boxes, merge_windows, resized
from tf_groupvit.segmentation.upsampling import SIDE, SmallScores

PIXELS = tf.TensorSpec([None, 3, None, None], tf.float32)
TEXTS = tf.TensorSpec([None, None], tf.float32)
EMBEDS, SCALE = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([], tf.float32)
GROUP_EMBEDS, MAPS = tf.TensorSpec([None] * 3, tf.float32), tf.TensorSpec([None] * 4, tf.float32)
THRESHOLDS = tf.TensorSpec([None], tf.float32)

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


_as_they_are = ContextVar("as_they_are", default=False)


@contextmanager
def untraced(alone: bool = True) -> Iterator[None]:
    """Inside, a model runs as it is: an image that is ``alone`` is answered before its graph would
    be traced.
    """
    token = _as_they_are.set(alone)
    try:
        yield
    finally:
        _as_they_are.reset(token)


def traced(function: Callable[..., Any], *signature: tf.TensorSpec) -> Callable[..., Any]:
    """The function as a graph for inputs of every size, traced at the first call; as it is on other
    backends.
    """
    graph = tf.function(function, input_signature=signature, autograph=False)

    def run(*tensors: Any) -> Any:
        if keras.backend.backend() == "tensorflow" and not _as_they_are.get():
            return graph(*tensors)
        return function(*map(keras.ops.convert_to_tensor, tensors))

    return run


class LiveGraph:
    """A function of a model and tensors as a graph for tensors of every size, which reads the
    weights at each call.

    It is traced at the first call, and anew where the model has other variables than then: it was
    quantized, or LoRA was enabled. The model is held by whoever calls.
    """

    def __init__(
        self, model: keras.Model, function: Callable[..., Any], *signature: tf.TensorSpec
    ) -> None:
        self._model: Callable[[], Any] = weakref.ref(model)
        self._function, self._signature = function, signature
        self._made: tuple[VariablesOf, Callable[..., Any]] | None = None

    def __call__(self, *tensors: Any) -> Any:
        model, made = self._model(), self._made
        if made is None or not made[0].still_in(model):
            made = self._made = VariablesOf(model), traced(self._run, *self._signature)
        return made[1](*tensors)

    def _run(self, *tensors: Any) -> Any:
        return self._function(self._model(), *tensors)


def looking(model: TFGroupViTModel) -> Callable[[Any], Groups]:
    """``read_groups`` of a model, one graph for all that use it: tracing takes a second at the
    published size.
    """
    if model not in _looking:
        _looking[model] = LiveGraph(model, read_groups, PIXELS)
    return _looking[model]


_looking: "weakref.WeakKeyDictionary[TFGroupViTModel, LiveGraph]" = weakref.WeakKeyDictionary()


@cache
def _comparing(protocol: str, whole: bool) -> Callable[..., dict[str, Any]]:
    """What compares groups with texts: the arrays of ``SmallScores``, in mode window a row for each
    pixel; and ``group_scores`` (B, G, K). Several thresholds give a background each, before the
    classes; none gives none.
    """

    def compare(
        maps: Any,
        embeds: Any,
        images: Any,
        scale: Any,
        texts: Any,
        thresholds: Any,
        height: Any,
        width: Any,
    ) -> dict[str, Any]:
        groups = Groups(maps=(maps,), group_embeds=embeds, image_embeds=images, scale=scale)
        what = (groups, texts, height, width, protocol, thresholds)
        if not whole:
            return {"rows": group_scores(*what)}
        return compact_scores(*what) | {
            "group_scores": with_background(class_affinity(groups, texts), thresholds)
        }

    return traced(compare, MAPS, GROUP_EMBEDS, EMBEDS, SCALE, TEXTS, THRESHOLDS, SIDE, SIDE)


_classify = traced(class_probabilities, EMBEDS, SCALE, TEXTS)


class Found(NamedTuple):
    """What was found in one image: scores of its pixels; and, if the model saw it whole, of its
    groups the maps (rows, columns, G) of each stage, ``group_embeds`` (G, D), and ``group_scores``
    (G, K).
    """

    scores: SmallScores
    groups: dict[str, Any] | None


class Inference:
    """One model under one setting. Pixels are uint8 (H, W, 3); texts (N, D) are class embeddings.

    With several ``thresholds``, scores have a background for each of them before the classes.
    """

    def __init__(
        self, model: TFGroupViTModel, settings: Settings, thresholds: Sequence[float] | None = None
    ) -> None:
        self.model, self.settings = model, settings
        alone = () if settings.background is None else (settings.background,)
        self.thresholds = alone if thresholds is None else tuple(thresholds)

    def find(self, images: list[np.ndarray], texts: np.ndarray) -> list[Found]:
        """Of each image what is in it; in mode whole the images go through the model together."""
        if self.settings.mode == "window":
            return [
                Found(SmallScores(self._window_scores(pixels, texts)), None) for pixels in images
            ]
        return self._find_whole(images, texts)

    def scores(self, images: list[np.ndarray], texts: np.ndarray) -> list[SmallScores]:
        """The scores of each image alone."""
        return [found.scores for found in self.find(images, texts)]

    def groups(self, pixels: np.ndarray, texts: np.ndarray) -> dict[str, Any]:
        """The groups of an image as a whole, whatever the mode: those of ``Found``."""
        return self._find_whole([pixels], texts)[0].groups or {}

    def probabilities(self, images: list[np.ndarray], texts: np.ndarray) -> np.ndarray:
        """How likely each class is of the image as a whole, (B, N), whatever the mode."""
        groups = self._look(self._squares(images))
        return keras.ops.convert_to_numpy(_classify(groups["image_embeds"], groups["scale"], texts))

    def square(self, pixels: np.ndarray) -> np.ndarray:
        """The whole image at the one size of mode whole: bicubic, antialiased."""
        return resize_bicubic(pixels, *self.settings.size)

    def _squares(self, images: list[np.ndarray]) -> np.ndarray:
        return np.stack([self.square(pixels) for pixels in images])

    def _look(self, pixels: np.ndarray) -> Groups:
        """uint8 (B, H, W, 3) -> ``Groups``."""
        return looking(self.model)(normalize(pixels, self.settings.mean, self.settings.std))

    def _compare(
        self, groups: Groups, texts: np.ndarray, size: tuple[int, int], whole: bool
    ) -> dict[str, np.ndarray]:
        sides = (
            groups["maps"][-1],
            groups["group_embeds"],
            groups["image_embeds"],
            groups["scale"],
        )
        thresholds = np.array(self.thresholds, "float32")
        found = _comparing(self.settings.protocol, whole)(*sides, texts, thresholds, *size)
        return {name: keras.ops.convert_to_numpy(values) for name, values in found.items()}

    def _find_whole(self, images: list[np.ndarray], texts: np.ndarray) -> list[Found]:
        groups = self._look(self._squares(images))
        found = self._compare(groups, texts, self.settings.size, whole=True)
        fitting = found.pop("group_scores")
        maps = [keras.ops.convert_to_numpy(stage).transpose(0, 2, 3, 1) for stage in groups["maps"]]
        embeds = keras.ops.convert_to_numpy(groups["group_embeds"])
        return [
            Found(
                SmallScores(
                    **{name: values[i] for name, values in found.items()}, size=self.settings.size
                ),
                {
                    "maps": [stage[i] for stage in maps],
                    "group_embeds": embeds[i],
                    "group_scores": fitting[i],
                },
            )
            for i in range(len(images))
        ]

    def _window_scores(self, pixels: np.ndarray, texts: np.ndarray) -> np.ndarray:
        settings = self.settings
        height, width = resized(
            pixels.shape[0], pixels.shape[1], settings.image_size, settings.patch
        )
        small = resize_bilinear(pixels, height, width)
        corners = np.array(boxes(height, width, settings.window, settings.window // 2), "int32")
        tall, wide = min(height, settings.window), min(width, settings.window)
        cut = np.stack([small[y : y + tall, x : x + wide] for y, x in corners])
        rows = self._compare(self._look(cut), texts, (tall, wide), whole=False)["rows"]
        return merge(rows, corners, height, width).numpy()
