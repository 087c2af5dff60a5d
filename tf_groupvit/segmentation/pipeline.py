"""The one way from pixels and class embeddings to labels, class scores and areas.

``Segmenter``, its ``predict``, exported signatures, evaluation and what training shows all go this
way. Its steps, in their order, and where each lives:

1. Pictures are resized: here, in Python ``Pipeline.square``, in graphs ``resize_to_square``, and in
   mode window ``score_windows``; the arithmetic is in preprocessing/image_arrays.py and
   image_graph.py.
2. Pixels are normalized: here, ``encode_pixels``; the arithmetic is in
   ``image_graph.to_pixel_values``.
3. Patches become groups: ``protocol.encode_image``, which calls models/vision.py.
4. Groups become scores for classes: ``protocol.compact_scores``, here in ``score_squares``; for
   windows ``protocol.pixel_scores``, which ``sliding_window.merge_windows`` averages.
5. Scores are refined where the settings ask for it: here, ``refine``.
6. Scores become pixels of the picture, and the arg max is the label: ``upsampling.label_map``; for
   class scores, ``upsampling.highest_scores``.
7. Labels become areas: here, ``class_areas``.

Functions marked ``live`` run as graphs that are traced once for pictures of every size, and inside
other graphs. Called from Python, the model is a graph of its own. With a Keras backend other than
TensorFlow, steps 3 and 4 run on that backend and the rest on TensorFlow, with the same code.
"""

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tf_groupvit.memory import nothing_to_collect
from tf_groupvit.models.base_model import VariablesOf
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image_arrays import resize_bicubic
from tf_groupvit.preprocessing.image_graph import resize_bicubic as resize_bicubic_in_graph
from tf_groupvit.preprocessing.image_graph import resize_bilinear, to_pixel_values
from tf_groupvit.segmentation import sliding_window
from tf_groupvit.segmentation.protocol import (
    Groups,
    Thresholds,
    class_affinity,
    class_probabilities,
    compact_scores,
    encode_image,
    pixel_scores,
    with_background,
)
from tf_groupvit.segmentation.refinement import resize, sharpen
from tf_groupvit.segmentation.settings import REFINEMENTS, Settings
from tf_groupvit.segmentation.upsampling import BAND, LowResScores, label_map
from tf_groupvit.types import Tensor

AT_ONCE = 4  # pictures of a batch that are resized or labeled at the same time
PIXEL_VALUES = tf.TensorSpec([None, None, None, None], tf.float32)  # (B, C, H, W)
PICTURES = tf.TensorSpec([None, None, None, 3], tf.uint8)
PICTURE = tf.TensorSpec([None, None, 3], tf.uint8)
TEXTS = tf.TensorSpec([None, None], tf.float32)  # (N, D)
THRESHOLDS = tf.TensorSpec([None], tf.float32)
GROUPS = (  # maps of the last stage, group_embeds, image_embeds, scale
    *(tf.TensorSpec([None] * rank, tf.float32) for rank in (4, 3, 2)),
    tf.TensorSpec([], tf.float32),
)

_as_they_are = ContextVar("as_they_are", default=False)
Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def untraced(alone: bool = True) -> Iterator[None]:
    """Inside, a model runs without a graph: a single picture need not wait for tracing."""
    token = _as_they_are.set(alone)
    try:
        yield
    finally:
        _as_they_are.reset(token)


def on_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow, so that models can be parts of graphs."""
    return keras.backend.backend() == "tensorflow"


def live(*signature: tf.TensorSpec) -> Callable[[Function], Function]:
    """Have ``function(model, settings, *tensors)`` run as a graph that reads the model's weights.

    Answers are those of the weights as they are at each call. A model's graph is traced at the
    first call under a setting, for all who use the model, and again where it has other variables
    than then: it was quantized, or LoRA was enabled. On other backends than TensorFlow, and inside
    ``untraced``, the function runs as it is.
    """

    def decorate(function: Function) -> Function:
        graphs: weakref.WeakKeyDictionary[keras.Model, dict[Any, tuple[VariablesOf, Any]]]
        graphs = weakref.WeakKeyDictionary()

        @functools.wraps(function)
        def run(model: keras.Model, settings: Settings | None, *tensors: Any) -> Any:
            if not on_tensorflow():
                return function(model, settings, *tensors)
            if _as_they_are.get():
                return function(model, settings, *map(tf.convert_to_tensor, tensors))
            of_model = graphs.setdefault(model, {})
            if settings not in of_model or not of_model[settings][0].still_in(model):
                held = weakref.ref(model)  # whose graphs go when it goes

                def of_tensors(*given: Any) -> Any:
                    return function(held(), settings, *given)

                of_tensors.__name__ = function.__name__  # which graphs show
                graph = tf.function(of_tensors, input_signature=signature, autograph=False)
                with nothing_to_collect():
                    of_model[settings] = VariablesOf(model), graph.get_concrete_function()
            return of_model[settings][1](*tensors)

        return run  # type: ignore[return-value]

    return decorate


@live(PIXEL_VALUES)
def encode_values(model: TFGroupViTModel, _: None, pixel_values: Tensor) -> Groups:
    """Normalized pixels (B, 3, H, W) -> ``Groups``."""
    return encode_image(model, pixel_values if on_tensorflow() else pixel_values.numpy())


def encode_pixels(model: TFGroupViTModel, settings: Settings, pixels: Tensor) -> Groups:
    """Squares or windows uint8 (B, h, w, 3) -> ``Groups``."""
    return encode_values(model, None, to_pixel_values(pixels, settings.mean, settings.std))


def classify(model: TFGroupViTModel, settings: Settings, squares: Tensor, texts: Tensor) -> Tensor:
    """How likely each class (N, D) is of whole pictures, uint8 (B, S, S, 3): -> (B, N)."""
    groups = encode_pixels(model, settings, squares)
    return class_probabilities(groups["image_embeds"], groups["scale"], texts)


@live(*GROUPS, PICTURES, TEXTS, THRESHOLDS)
def _compare(
    _: TFGroupViTModel,
    settings: Settings,
    maps: Tensor,
    group_embeds: Tensor,
    image_embeds: Tensor,
    scale: Tensor,
    squares: Tensor,
    texts: Tensor,
    thresholds: Tensor,
) -> dict[str, Any]:
    """``score_squares`` as a graph of its own: ``scores``, and ``group_scores`` (B, G, K)."""
    groups = Groups.of(
        maps=(maps,), group_embeds=group_embeds, image_embeds=image_embeds, scale=scale
    )
    scores = score_squares(groups, settings, squares, texts, thresholds)._asdict()
    return {
        "scores": {name: part for name, part in scores.items() if part is not None},
        "group_scores": with_background(class_affinity(groups, texts), thresholds),
    }


def see_squares(
    model: TFGroupViTModel, settings: Settings, squares: Tensor, texts: Tensor, thresholds: Tensor
) -> dict[str, Any]:
    """Whole pictures uint8 (B, S, S, 3) and classes (N, D) -> all that a result shows of them.

    -> ``scores``, the parts of ``LowResScores`` that are there, with a leading dimension (B);
    ``maps`` of each stage (B, rows, columns, G), ``group_embeds`` (B, G, D) and ``group_scores``
    (B, G, K).
    """
    groups = encode_pixels(model, settings, squares)
    found = _compare(model, settings, *_of_last_stage(groups), squares, texts, thresholds)
    maps = tuple(keras.ops.transpose(stage, (0, 2, 3, 1)) for stage in groups["maps"])
    return {**found, "maps": maps, "group_embeds": groups["group_embeds"]}


def _of_last_stage(groups: Groups) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    embeds = groups["group_embeds"], groups["image_embeds"]
    return groups["maps"][-1], *embeds, groups["scale"]


def score_squares(
    groups: Groups, settings: Settings, squares: Tensor, texts: Tensor, thresholds: Thresholds
) -> LowResScores:
    """Scores of whole pictures, uint8 (B, S, S, 3), from their groups; each part has B rows."""
    found = compact_scores(groups, texts, *settings.size, settings.protocol, thresholds)
    parts = {name: _for_tensorflow(part) for name, part in found.items()}
    size = None if "owner" in parts else tf.constant(settings.size)
    return refine(LowResScores(**parts, size=size), squares, settings)


def score_windows(
    model: TFGroupViTModel, settings: Settings, pixels: Tensor, texts: Tensor, thresholds: Tensor
) -> Tensor:
    """Resize a picture uint8 (H, W, 3) and slide windows over it: scores of pixels (h, w, K)."""
    small, windows, corners = _cut(model, settings, pixels)
    groups = encode_pixels(model, settings, windows)
    return _merge(model, settings, *_of_last_stage(groups), small, corners, texts, thresholds)


@live(PICTURE)
def _cut(_: TFGroupViTModel, settings: Settings, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The resized picture (h, w, 3), its windows (n, tall, wide, 3), and their corners (n, 2)."""
    H, W = tf.unstack(tf.shape(pixels)[:2])
    height, width = sliding_window.resized(H, W, settings.image_size, settings.patch)
    small = resize_bilinear(pixels, height, width)
    corners = sliding_window.corners_of(height, width, settings.window)
    sides = tf.minimum(height, settings.window), tf.minimum(width, settings.window)
    return small, sliding_window.cut_windows(small, corners, *sides), corners


@live(*GROUPS, PICTURE, tf.TensorSpec([None, 2], tf.int32), TEXTS, THRESHOLDS)
def _merge(
    _: TFGroupViTModel,
    settings: Settings,
    maps: Tensor,
    group_embeds: Tensor,
    image_embeds: Tensor,
    scale: Tensor,
    small: Tensor,
    corners: Tensor,
    texts: Tensor,
    thresholds: Tensor,
) -> Tensor:
    """Groups of the windows of a small picture (h, w, 3) -> scores of its pixels (h, w, K)."""
    groups = Groups.of(
        maps=(maps,), group_embeds=group_embeds, image_embeds=image_embeds, scale=scale
    )
    height, width = tf.unstack(tf.shape(small)[:2])
    tall, wide = tf.minimum(height, settings.window), tf.minimum(width, settings.window)
    if not on_tensorflow():
        tall, wide = int(tall), int(wide)
    scores = pixel_scores(groups, texts, tall, wide, settings.protocol, thresholds)
    merged = sliding_window.merge_windows(_for_tensorflow(scores), corners, height, width)
    return refine(LowResScores(merged[None]), small[None], settings).rows[0]


def _for_tensorflow(tensor: Any) -> Tensor:
    """A tensor of Keras' backend as one of TensorFlow's."""
    if on_tensorflow():
        return tensor
    return tf.convert_to_tensor(keras.ops.convert_to_numpy(tensor))


def refine(scores: LowResScores, small: Tensor, settings: Settings) -> LowResScores:
    """Sharpen masks along the edges of the picture, if the settings say so.

    Whichever way scores were found, and for whomever, they pass here before they become labels,
    class scores or maps; those of windows are averaged by then, and a background is one of the
    classes. Where pixels belong to groups it is the groups' maps that are refined, and their scores
    are mixed where they are needed: refining is linear, and groups are fewer than classes.

    Args:
        scores: of the pixels of small pictures, each part with a leading dimension (B).
        small: these pictures, uint8 (B, h, w, 3).
    """
    if settings.refine is None:
        return scores
    how = REFINEMENTS[settings.refine]
    if scores.owner is not None:
        maps = tf.one_hot(scores.owner, tf.shape(scores.rows)[1])
        return LowResScores(scores.rows, shares=sharpen(maps, small, how))
    if scores.size is None:
        return LowResScores(sharpen(scores.rows, small, how))
    return LowResScores(sharpen(resize(scores.rows, *tf.unstack(scores.size)), small, how))


def label_batch(
    model: TFGroupViTModel,
    settings: Settings,
    pixels: Tensor,
    texts: Tensor,
    label: Callable[..., Tensor] = label_map,
) -> Tensor:
    """Labels (B, H, W) of pictures of one size, uint8 (B, H, W, 3), in graphs: uint8.

    label: ``upsampling.label_map``, or ``label_map_wide`` for int32.
    """
    height, width = tf.shape(pixels)[1], tf.shape(pixels)[2]
    size, thresholds = settings.size, thresholds_of(settings)
    kind, at_once = (tf.uint8 if label is label_map else tf.int32), AT_ONCE
    if settings.mode == "window":
        at_once = 1

        def one(i: Tensor) -> Tensor:
            rows = score_windows(model, settings, pixels[i], texts, thresholds)
            return label(LowResScores(rows), height, width)

    else:
        squares = tf.map_fn(
            lambda image: resize_to_square(image, size),
            pixels,
            fn_output_signature=tf.TensorSpec((*size, 3), tf.uint8),
            parallel_iterations=AT_ONCE,
        )
        groups = encode_pixels(model, settings, squares)
        scores = score_squares(groups, settings, squares, texts, thresholds)

        def one(i: Tensor) -> Tensor:
            return label(scores.of_image(i), height, width)

    none = tf.zeros([0, height, width], kind)
    return for_each(tf.shape(pixels)[0], one, tf.TensorSpec([None, None], kind), none, at_once)


def thresholds_of(settings: Settings) -> np.ndarray:
    """The background's threshold, float32 (1), or none, (0)."""
    return np.array([] if settings.background is None else [settings.background], "float32")


def resize_to_square(
    pixels: Tensor, size: tuple[int, int], swapped: Tensor | bool = False, **how: Tensor
) -> Tensor:
    """Resize a whole picture (H, W, 3) for mode whole to ``size``, uint8 (S, S, 3).

    ``Pipeline.square`` does the same to arrays, one gray level apart where a value falls between
    two.

    Args:
        swapped: the picture lies on its side; so does its square then.
        how: further arguments of ``image_graph.resize_bicubic``.
    """
    sides = tf.where(swapped, tf.constant(size[::-1]), size)
    return resize_bicubic_in_graph(pixels, sides[0], sides[1], **how)


def class_areas(labels: Tensor, count: Tensor | int) -> Tensor:
    """The fraction of the pixels (H, W) that each class has, float32 (K).

    Counted in whole numbers, some at a time, then divided.
    """
    flat = tf.reshape(labels, [-1])

    def step(at: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        some = tf.cast(flat[at : at + BAND], tf.int32)
        return at + BAND, found + tf.math.bincount(some, minlength=count, maxlength=count)

    start = (0, tf.zeros([count], tf.int32))
    pixels = tf.while_loop(lambda at, _: at < tf.size(flat), step, start, parallel_iterations=1)[1]
    return tf.cast(tf.cast(pixels, tf.float64) / tf.cast(tf.size(labels), tf.float64), tf.float32)


class Found(NamedTuple):
    """What was found in one picture, as arrays.

    scores: of its pixels. groups: where the model saw it whole, the ``maps`` (rows, columns, G) of
    each stage, ``group_embeds`` (G, D), and ``group_scores`` (G, K).
    """

    scores: LowResScores
    groups: dict[str, Any] | None


class Pipeline:
    """The way for pictures as arrays, of one model, or a snapshot of one, under one setting.

    Texts (N, D) are class embeddings. With several ``thresholds``, scores have a background for
    each of them before the classes; otherwise that of the settings.
    """

    def __init__(
        self, model: TFGroupViTModel, settings: Settings, thresholds: Sequence[float] | None = None
    ) -> None:
        self.model, self.settings = model, settings
        self._thresholds = thresholds_of(settings)
        if thresholds is not None:
            self._thresholds = np.array(thresholds, "float32")
        self._shared = replace(settings, background=None)  # whose graphs serve all thresholds

    def square(self, pixels: np.ndarray) -> np.ndarray:
        """A whole picture (H, W, 3) as the square of mode whole, uint8 (S, S, 3)."""
        return resize_bicubic(pixels, *self.settings.size)

    def find(self, images: Sequence[np.ndarray], texts: np.ndarray) -> list[Found]:
        """What is in each picture uint8 (H, W, 3), of any size.

        In mode whole the pictures go through the model together.
        """
        if self.settings.mode == "whole":
            return self._find_whole(images, texts)
        given = self.model, self._shared
        rows = [score_windows(*given, pixels, texts, self._thresholds) for pixels in images]
        return [Found(LowResScores(np.asarray(one)), None) for one in rows]

    def groups(self, pixels: np.ndarray, texts: np.ndarray) -> dict[str, Any]:
        """The groups of a picture (H, W, 3) as a whole, whatever the mode: those of ``Found``."""
        return self._find_whole([pixels], texts)[0].groups or {}

    def probabilities(self, images: Sequence[np.ndarray], texts: np.ndarray) -> np.ndarray:
        """How likely each class is of each whole picture, (B, N), whatever the mode."""
        squares = np.stack([self.square(pixels) for pixels in images])
        return keras.ops.convert_to_numpy(classify(self.model, self._shared, squares, texts))

    def _find_whole(self, images: Sequence[np.ndarray], texts: np.ndarray) -> list[Found]:
        squares = np.stack([self.square(pixels) for pixels in images])
        found = see_squares(self.model, self._shared, squares, texts, self._thresholds)
        found = tf.nest.map_structure(keras.ops.convert_to_numpy, found)
        scores, maps = LowResScores(**found["scores"]), found["maps"]
        return [
            Found(
                scores.of_image(i),
                {
                    "maps": [stage[i] for stage in maps],
                    "group_embeds": found["group_embeds"][i],
                    "group_scores": found["group_scores"][i],
                },
            )
            for i in range(len(images))
        ]


def for_each(
    count: Tensor, one: Callable[[Tensor], Any], kinds: Any, none: Any, at_once: int
) -> Any:
    """``one(i)`` for every number below ``count``, stacked; ``none`` where there is not one.

    Args:
        kinds: what ``one`` gives, as specs. none: the same with a leading dimension of 0, since
            no sizes are known then. at_once: how many run side by side in a graph.
    """
    return tf.cond(
        count > 0,
        lambda: tf.map_fn(
            one, tf.range(count), fn_output_signature=kinds, parallel_iterations=at_once
        ),
        lambda: none,
    )
