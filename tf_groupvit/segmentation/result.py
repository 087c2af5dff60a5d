"""``Segmentation``: a label map with its image, areas, pictures, files and JSON.

Needs NumPy and Pillow, no TensorFlow: the client returns it, too.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from tf_groupvit.errors import InputError
from tf_groupvit.files import atomic_write
from tf_groupvit.preprocessing.image_reading import (
    ImageLike,
    read_class_numbers,
    read_image,
    several,
)
from tf_groupvit.segmentation import overlay
from tf_groupvit.segmentation.image_encoding import encode_image, open_picture, png, seen_size
from tf_groupvit.segmentation.palette import picture_colors

__all__ = ["ImageLike", "Segmentation", "encode_image", "several"]

SCREEN = (1600, 1200)  # the largest picture, in pixels, that a notebook is given

# What a segmentation is made from: values, or functions that compute them when they are first used.
Picture = np.ndarray | Image.Image | bytes
ClassScores = Mapping[str, float] | Sequence[float] | np.ndarray
Array = np.ndarray | Callable[[], np.ndarray] | None

# Attributes that may be missing, and how an error calls them.
PARTS = {
    "scores": "scores of every pixel",
    "margins": "margins of every pixel",
    "groups": "group maps",
    "group_embeds": "group embeddings",
    "group_scores": "class scores of the groups",
}


class Segmentation:
    """One segmented image: a class number for every pixel, at the size of the upright image.

    Attributes:
        labels: (H, W) class numbers, uint8 up to 256 classes, else int32.
        class_names: the K classes in the order of their numbers; "background" can only be first.
        image: (H, W, 3) uint8 RGB.
        scores: (K, H, W) float, computed when they are first used; of protocol "paper" from 0 to 1,
            unless masks were refined: these can lie outside.
        margins: (H, W) float32, by how much the best class of each pixel is ahead of the second,
            from 0 to 1, and 0 along borders of classes: of protocol "paper" the scores are
            compared, refined or not, of "hf" their softmax.
        groups: the group number of every pixel, (H, W), for each grouping stage; ``first_group``
            and ``final_group`` are the ends of the list.
        group_embeds: (G, D) embeddings of the final groups.
        group_scores: (G, K) affinity of the final groups to the classes.

    Args:
        labels: (H, W) integers in 0..K-1.
        class_names: K different names.
        image: (H, W, 3) uint8, a PIL image, the bytes of an encoded image, which are decoded when
            the image is first used, or a function without arguments that returns one of these.
        class_scores: the highest pixel score of each class, K numbers or by name; computed from
            ``scores`` if left out.
        scores, margins, groups, group_embeds, group_scores: values, functions without arguments
            that return them, or None.
        absence: why those that are None are missing: one sentence for the error.

    Raises:
        InputError: shapes or numbers do not match; or, on access, a part is missing.
    """

    def __init__(
        self,
        labels: np.ndarray,
        class_names: Sequence[str],
        image: Picture | Callable[[], Picture],
        *,
        class_scores: ClassScores | Callable[[], ClassScores] | None = None,
        scores: Array = None,
        margins: Array = None,
        groups: Sequence[np.ndarray] | Callable[[], Sequence[np.ndarray]] | None = None,
        group_embeds: Array = None,
        group_scores: Array = None,
        absence: str = "They were not kept.",
    ) -> None:
        self.class_names: list[str] = [str(name) for name in class_names]
        self.labels: np.ndarray = _checked_labels(labels, self.class_names)
        self._image = image
        self._class_scores = class_scores
        self._parts = {
            "scores": scores,
            "margins": margins,
            "groups": groups,
            "group_embeds": group_embeds,
            "group_scores": group_scores,
        }
        self._absence = absence
        if not callable(image) and not isinstance(image, bytes):
            self.image  # noqa: B018 - an image of another size is refused now, not when drawn

    @classmethod
    def from_png(
        cls,
        mask: bytes,
        class_names: Sequence[str],
        image: bytes,
        *,
        class_scores: ClassScores | Callable[[], ClassScores] | None = None,
        absence: str = "They were not kept.",
    ) -> Self:
        """From a PNG of class numbers, gray of any depth or palette, and the encoded image.

        Raises ``InputError`` if the mask is no such PNG, or not of the size of the upright image.
        """
        picture = open_picture(image, "The image")
        drawn = open_picture(mask, "The mask")
        if drawn.size != seen_size(picture):
            (w, h), (width, height) = drawn.size, seen_size(picture)
            raise InputError(
                f"The mask is {w}x{h} and the image {width}x{height}: they must be of one size."
            )
        labels = read_class_numbers(drawn, "The mask")
        return cls(labels, class_names, bytes(image), class_scores=class_scores, absence=absence)

    def __getstate__(self) -> dict[str, Any]:
        """Everything as data, for pickle and copy: what functions would compute is computed."""
        state = dict(vars(self))
        given = {"image": self._image, "class_scores": self._class_scores, **self._parts}
        for name in (name for name, part in given.items() if callable(part) and not _is_data(part)):
            given[name] = getattr(self, name)
        image, class_scores = given.pop("image"), given.pop("class_scores")
        return {**state, "_image": image, "_class_scores": class_scores, "_parts": given}

    def __repr__(self) -> str:
        height, width = self.labels.shape
        present = sorted(self.areas.items(), key=lambda item: -item[1])
        shares = [f"{name} {100 * area:.1f}%" for name, area in present if area]
        more = ["..."] if shares[5:] else []
        return f"Segmentation({width}x{height}: {', '.join([*shares[:5], *more])})"

    # Numbers

    @cached_property
    def areas(self) -> dict[str, float]:
        """{name: fraction of the pixels, 0..1} of every class, in the order of their numbers."""
        pixels = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        return dict(zip(self.class_names, (pixels / self.labels.size).tolist(), strict=True))

    @cached_property
    def class_scores(self) -> dict[str, float]:
        """{name: the highest score of any pixel} of every class, in the order of their numbers."""
        given = self._class_scores() if callable(self._class_scores) else self._class_scores
        if isinstance(given, Mapping):
            given = [given[name] for name in self.class_names]
        highest = self.scores.max(axis=(1, 2)) if given is None else np.asarray(given, np.float64)
        if highest.shape != (len(self.class_names),):
            raise InputError(
                f"Expected {len(self.class_names)} class scores, received {highest.shape}."
            )
        return dict(zip(self.class_names, map(float, highest), strict=True))

    @cached_property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        image = self._image() if callable(self._image) else self._image
        if isinstance(image, bytes):
            image = read_image(image)
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        wanted = (*self.labels.shape, 3)
        if pixels.shape != wanted or pixels.dtype != np.uint8:
            raise InputError(
                f"Expected the image as uint8 {wanted}, received {pixels.dtype} {pixels.shape}."
            )
        return pixels

    @cached_property
    def scores(self) -> np.ndarray:
        """(K, H, W) score of every class at every pixel."""
        scores = np.asarray(self._part("scores"))
        wanted = (len(self.class_names), *self.labels.shape)
        if scores.shape != wanted:
            raise InputError(f"Expected scores {wanted}, received {scores.shape}.")
        return scores

    @cached_property
    def margins(self) -> np.ndarray:
        """(H, W) by how much the best class of each pixel is ahead of the second."""
        margins = np.asarray(self._part("margins"))
        if margins.shape != self.labels.shape:
            raise InputError(f"Expected margins {self.labels.shape}, received {margins.shape}.")
        return margins

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """The group number of every pixel, (H, W), for each grouping stage, first to last."""
        groups = [np.asarray(stage) for stage in self._part("groups")]
        for stage in groups:
            if stage.shape != self.labels.shape:
                raise InputError(
                    f"Expected group maps {self.labels.shape}, received {stage.shape}."
                )
        return groups

    @property
    def first_group(self) -> np.ndarray:
        """(H, W) group numbers of the first grouping stage."""
        return self.groups[0]

    @property
    def final_group(self) -> np.ndarray:
        """(H, W) group numbers of the last grouping stage."""
        return self.groups[-1]

    @cached_property
    def group_embeds(self) -> np.ndarray:
        """(G, D) embeddings of the final groups."""
        return np.asarray(self._part("group_embeds"))

    @cached_property
    def group_scores(self) -> np.ndarray:
        """(G, K) affinity of the final groups to the classes."""
        return np.asarray(self._part("group_scores"))

    def group_classes(self, count: int = 3) -> list[list[tuple[str, float]]]:
        """The ``count`` best classes of each final group with their scores, best first."""
        order = np.argsort(-self.group_scores, axis=1, kind="stable")[:, :count]
        rows = zip(order, self.group_scores, strict=True)
        return [[(self.class_names[k], float(scores[k])) for k in best] for best, scores in rows]

    def _part(self, name: str) -> Any:
        part = self._parts[name]
        if part is None:
            raise InputError(f"This segmentation has no {PARTS[name]}. {self._absence}")
        return part() if callable(part) else part

    # Pictures

    def view(self, name: str) -> Image.Image:
        """One of the seven views of the original demo, as an RGB picture.

        ``input``: the image. ``pred``: the classes in their colors. ``input_pred``: half of each,
        except for the background, which is the image. ``input_pred_label``: that with names inside
        the regions that have room for them. ``first_group``, ``final_group``: half image, half
        groups of that stage. ``all_groups``: such a picture of every stage, under captions. All
        but the last have the size of the image.

        Raises ``InputError`` for another name, and where group maps are missing.
        """
        if name not in overlay.VIEWS:
            raise InputError(f"There is no view '{name}': choose from {', '.join(overlay.VIEWS)}.")
        return overlay.VIEWS[name](self)

    @cached_property
    def colors(self) -> np.ndarray:
        """(K, 3) uint8 colors of the classes in the pictures of this result; "background" is black.

        A class has the same color in every result, with and without background, unless that would
        be hard to see over its own region of this image, or hard to tell from another class in it.
        """
        return picture_colors(self.class_names, self.labels, self.image)

    def overlay(
        self, alpha: float = 0.5, legend: bool = True, contours: bool = True
    ) -> Image.Image:
        """The image covered by its classes, with a legend (swatch, name, area).

        The picture is at the top left at its own size; the legend lists the classes that are
        present, largest first, below it or to its right. A class whose name no font can write is
        called by its number, e.g. ``#3``.

        Args:
            alpha: opacity of the colors, from 0, the image alone, to 1, the colors alone.
            legend: whether there is a legend; without, the picture has the size of the image.
            contours: whether lines are drawn between the classes.

        Raises ``InputError`` for other values.
        """
        return overlay.overlay(self, alpha, legend, contours)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay, reduced to the size of a screen."""
        picture = self.overlay()
        picture.thumbnail(SCREEN)
        return png(picture)

    def label_image(self) -> Image.Image:
        """The class numbers as a gray image, mode "L", one byte a pixel.

        Over 256 classes do not fit a byte: two bytes a pixel then, mode "I;16", which TensorFlow
        reads with ``tf.io.decode_png(content, dtype=tf.uint16)``.
        """
        small = len(self.class_names) <= 256
        return Image.fromarray(self.labels if small else self.labels.astype(np.uint16))

    def color_image(self) -> Image.Image:
        """The classes in their colors: mode "P" with class numbers as palette entries.

        Over 256 classes do not fit a palette: the view "pred" then, mode "RGB".
        """
        if len(self.class_names) > 256:
            return self.view("pred")
        picture = Image.fromarray(self.labels)
        # All 256 entries, or Pillow would pack several pixels into a byte.
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.class_names)] = self.colors
        picture.putpalette(palette.tobytes())
        return picture

    # Files

    def to_dict(self) -> dict[str, Any]:
        """``summary`` and the labels, in plain Python values.

        The labels are run lengths in reading order: ``np.repeat(d["labels"]["values"],
        d["labels"]["counts"]).reshape(d["height"], d["width"])`` gives them back.
        """
        flat = self.labels.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        counts = np.diff(np.append(starts, flat.size))
        labels = {"values": flat[starts].tolist(), "counts": counts.tolist()}
        return {**self.summary(), "labels": labels}

    def summary(self) -> dict[str, Any]:
        """Size, class names, areas and class scores, in plain Python values.

        Class scores are None without any, and so is a score that is not finite.
        """
        scores: dict[str, float | None] | None = None
        if self._class_scores is not None or self._parts["scores"] is not None:
            scores = {name: x if isfinite(x) else None for name, x in self.class_scores.items()}
        height, width = self.labels.shape
        return {
            "width": width,
            "height": height,
            "class_names": list(self.class_names),
            "areas": dict(self.areas),
            "class_scores": scores,
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON text, in one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``.png``, the label image in gray numbers, or ``.json``; whole or not at all.

        Raises ``InputError`` for another extension, a missing folder, or a file that cannot be
        written.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind not in (".png", ".json"):
            raise InputError(
                f"'{path.name}' ends in '{path.suffix}': name a file ending in .png or .json."
            )
        text = kind == ".json"
        atomic_write(path, f"{self.to_json()}\n".encode() if text else png(self.label_image()))


def _checked_labels(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The labels (H, W) as uint8 or int32, if shape, type, range and names are right."""
    labels = np.asarray(labels)
    if len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if class_names.count(name) > 1)
        raise InputError(f"Class names must differ: '{twice}' is there twice.")
    if labels.ndim != 2 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"Expected labels as integers (H, W), received {labels.dtype} {labels.shape}."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        wrong = low if low < 0 else high
        raise InputError(f"Expected labels in 0..{len(class_names) - 1}, received {wrong}.")
    return np.ascontiguousarray(labels, np.uint8 if len(class_names) <= 256 else np.int32)


def _is_data(part: Callable[[], object]) -> bool:
    """Whether a function can be pickled: one of a module, or a method, with its arguments."""
    return isinstance(part, partial) and "<" not in getattr(part.func, "__qualname__", "<")
