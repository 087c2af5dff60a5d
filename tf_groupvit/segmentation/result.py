"""A label map (H, W) and its image in; areas, pictures, files and JSON out. numpy and Pillow, no
TensorFlow.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

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
from tf_groupvit.segmentation import views
from tf_groupvit.segmentation.palette import picture_colors
from tf_groupvit.segmentation.picture import encode_image, open_picture, png, seen_size

__all__ = ["ImageLike", "Segmentation", "encode_image", "several"]

SCREEN = (1600, 1200)  # the largest picture that a notebook is given
Deferred = (
    Any  # a value, or a function without arguments that works it out when it is first asked for
)

# What may be there or not, by attribute: said in the error of one that is not.
PARTS = {
    "scores": "scores of every pixel",
    "groups": "group maps",
    "group_embeds": "group embeddings",
    "group_scores": "class scores of the groups",
}


class Segmentation:
    """One image, segmented: a class number for every pixel, at the size of the image as a person
    sees it.

    Attributes:
        labels: (H, W) class numbers, uint8 up to 256 classes, else int32.
        class_names: the K classes in the order of their numbers; "background" is first where there
            is one.
        image: (H, W, 3) uint8 RGB.
        scores: (K, H, W) float, worked out when first asked for.
        groups: for each grouping stage the group number of every pixel, (H, W); ``first_group`` and
            ``final_group`` are the ends of the list.
        group_embeds: (G, D) embeddings of the final groups; ``group_scores`` (G, K) their affinity
            to the classes.

    Args:
        labels: (H, W) integers in 0..K-1.
        class_names: K different names.
        image: (H, W, 3) uint8, a PIL image, the bytes of an encoded image, or a function without
            arguments that returns one of these. Bytes are decoded when the image is first asked
            for.
        class_scores: the highest pixel score of each class, K numbers or by name; left out, it
            comes from ``scores``. scores, groups, group_embeds, group_scores: values, functions
            without arguments that return them, or None.
        absence: why those that are None are not there: one sentence for the error.

    Raises:
        InputError: shapes or numbers do not go together; or, on access, a part is not there.
    """

    def __init__(
        self,
        labels: np.ndarray,
        class_names: Sequence[str],
        image: Deferred,
        *,
        class_scores: Deferred = None,
        scores: Deferred = None,
        groups: Deferred = None,
        group_embeds: Deferred = None,
        group_scores: Deferred = None,
        absence: str = "They were not kept.",
    ) -> None:
        self.class_names: list[str] = [str(name) for name in class_names]
        self.labels: np.ndarray = _checked_labels(labels, self.class_names)
        self._image = image
        self._class_scores = class_scores
        self._parts = {
            "scores": scores,
            "groups": groups,
            "group_embeds": group_embeds,
            "group_scores": group_scores,
        }
        self._absence = absence
        if not callable(image) and not isinstance(image, bytes):
            self.image  # noqa: B018 - a picture of another size is refused here, not when it is drawn

    @classmethod
    def from_png(
        cls,
        mask: bytes,
        class_names: Sequence[str],
        image: bytes,
        *,
        class_scores: Deferred = None,
        absence: str = "They were not kept.",
    ) -> "Segmentation":
        """From a PNG of class numbers, gray of any depth or palette, and the encoded image that it
        belongs to.

        Raises ``InputError`` if the mask is no such PNG, or has another size than the image as a
        person sees it.
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
        """Everything as data, for pickle and copy: parts whose functions could not go along are
        worked out.
        """
        state = dict(vars(self))
        given = {"image": self._image, "class_scores": self._class_scores, **self._parts}
        for name in (name for name, part in given.items() if callable(part) and not _is_data(part)):
            given[name] = getattr(self, name)
        state.update(
            _image=given.pop("image"), _class_scores=given.pop("class_scores"), _parts=given
        )
        return state

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = [f"{name} {100 * area:.1f}%" for name, area in self._by_area()]
        return (
            f"Segmentation({width}x{height}:"
            f" {', '.join([*shares[:5], *(['...'] if shares[5:] else [])])})"
        )

    # Numbers

    @cached_property
    def areas(self) -> dict[str, float]:
        """{name: fraction of the pixels, 0..1} for every class, in the order of their numbers; they
        sum to 1.
        """
        pixels = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        return dict(zip(self.class_names, (pixels / self.labels.size).tolist(), strict=True))

    @cached_property
    def class_scores(self) -> dict[str, float]:
        """{name: the highest score of any pixel} for every class, in the order of their numbers."""
        given = self._class_scores() if callable(self._class_scores) else self._class_scores
        if isinstance(given, Mapping):
            given = [given[name] for name in self.class_names]
        highest = self.scores.max(axis=(1, 2)) if given is None else np.asarray(given, np.float64)
        if highest.shape != (len(self.class_names),):
            raise InputError(
                f"{len(self.class_names)} class scores are expected, {highest.shape} came."
            )
        return dict(zip(self.class_names, map(float, highest), strict=True))

    @cached_property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, the image as a person sees it."""
        image = self._image() if callable(self._image) else self._image
        if isinstance(image, bytes):
            image = read_image(image)
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if pixels.shape != (*self.labels.shape, 3) or pixels.dtype != np.uint8:
            wanted = (*self.labels.shape, 3)
            raise InputError(
                f"The image is expected as uint8 {wanted}, {pixels.dtype} {pixels.shape} came."
            )
        return pixels

    @cached_property
    def scores(self) -> np.ndarray:
        """(K, H, W) score of every class at every pixel."""
        scores = np.asarray(self._part("scores"))
        wanted = (len(self.class_names), *self.labels.shape)
        if scores.shape != wanted:
            raise InputError(f"Scores are expected as {wanted}, {scores.shape} came.")
        return scores

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """The group number of every pixel, (H, W), for each grouping stage from the first to the
        last.
        """
        groups = [np.asarray(stage) for stage in self._part("groups")]
        for stage in groups:
            if stage.shape != self.labels.shape:
                raise InputError(
                    f"Group maps are expected as {self.labels.shape}, {stage.shape} came."
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
        """For each final group its ``count`` best classes with their scores, best first."""
        order = np.argsort(-self.group_scores, axis=1, kind="stable")[:, :count]
        rows = zip(order, self.group_scores, strict=True)
        return [[(self.class_names[k], float(scores[k])) for k in best] for best, scores in rows]

    def _part(self, name: str) -> Any:
        part = self._parts[name]
        if part is None:
            raise InputError(f"This segmentation has no {PARTS[name]}. {self._absence}")
        return part() if callable(part) else part

    def _by_area(self) -> list[tuple[str, float]]:
        """The classes that are present and their areas, largest first."""
        present = [(name, area) for name, area in self.areas.items() if area]
        return sorted(present, key=lambda item: -item[1])

    # Pictures

    def view(self, name: str) -> Image.Image:
        """One of the seven views of the original demo, as an RGB picture.

        ``input`` the image; ``pred`` the classes in their colors; ``input_pred`` half of each, but
        for the background, which is left as it is; ``input_pred_label`` that with names inside the
        regions (a region without room for its name stays without); ``first_group`` and
        ``final_group`` half image, half groups of that stage; ``all_groups`` such a panel for every
        stage, under captions. All but the last have the size of the image.

        Raises ``InputError`` for another name, and where group maps are asked for and not there.
        """
        return views.VIEWS[views.check_view(name)](self)

    @cached_property
    def colors(self) -> np.ndarray:
        """(K, 3) uint8 colors of the classes in the pictures of this result; "background" is black.

        A class has the same color in every result, with and without background, unless it could
        hardly be seen over its own region of this image, or told from another class in it: then it
        has another one here.
        """
        return picture_colors(self.class_names, self.labels, self.image)

    def overlay(
        self, alpha: float = 0.5, legend: bool = True, contours: bool = True
    ) -> Image.Image:
        """The image covered by its classes, and their legend (swatch, name, area) below it or to
        its right.

        The picture is at the top left at its own size; the legend lists the classes that are
        present, largest first. A name in letters that no font at hand has is given by its number,
        e.g. ``#3``.

        Args:
            alpha: how much of the colors covers the image, from 0, none of them, to 1, nothing
                else.
            legend: whether there is one; without, the picture has the size of the image.
            contours: whether a line runs between the classes.

        Raises ``InputError`` for other values.
        """
        return views.overlay(self, alpha, legend, contours)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay, made smaller where it is larger than a screen."""
        picture = self.overlay()
        picture.thumbnail(SCREEN)
        return png(picture)

    def label_image(self) -> Image.Image:
        """The class numbers as a gray image, mode "L", one byte a pixel: every reader of its PNG
        finds the numbers.

        Over 256 classes do not fit a byte: two bytes a pixel then, mode "I;16", which TensorFlow
        reads with ``tf.io.decode_png(content, dtype=tf.uint16)``.
        """
        return views.label_image(self)

    def color_image(self) -> Image.Image:
        """The classes in their colors: mode "P", with the class number as palette entry; "RGB" over
        256 classes.
        """
        return views.color_image(self)

    # Files

    def to_dict(self) -> dict[str, Any]:
        """Size, class names, areas, class scores and labels, in plain Python values.

        The labels are run lengths in reading order:
        ``np.repeat(d["labels"]["values"], d["labels"]["counts"]).reshape(d["height"],
        d["width"])``. Class scores are None where there are none, and so is one that is not finite.
        """
        flat = self.labels.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        counts = np.diff(np.append(starts, flat.size))
        return {
            **self.summary(),
            "labels": {"values": flat[starts].tolist(), "counts": counts.tolist()},
        }

    def summary(self) -> dict[str, Any]:
        """``to_dict`` without the labels."""
        known = self._class_scores is not None or self._parts["scores"] is not None
        scores = (
            {name: score if isfinite(score) else None for name, score in self.class_scores.items()}
            if known
            else None
        )
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
        """Write ``.png``: the label image, in gray numbers, or ``.json``: the JSON text; whole or
        not at all.

        Raises ``InputError`` for another extension, a missing folder, or a place that cannot be
        written.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind not in WRITERS:
            raise InputError(
                f"'{path.name}' ends in '{path.suffix}': name a file ending in .png or .json."
            )
        atomic_write(path, WRITERS[kind](self))


def _checked_labels(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The labels in their own dtype, after a look at shape, type, range and the names."""
    labels = np.asarray(labels)
    if len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if class_names.count(name) > 1)
        raise InputError(f"Class names must differ: '{twice}' is there twice.")
    if labels.ndim != 2 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"Labels are expected as integers (H, W), {labels.dtype} {labels.shape} came."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        wrong = low if low < 0 else high
        raise InputError(
            f"Labels are expected in 0..{len(class_names) - 1}, {wrong} is among them."
        )
    return np.ascontiguousarray(labels, np.uint8 if len(class_names) <= 256 else np.int32)


def _is_data(part: Callable[[], Any]) -> bool:
    """Whether a deferred part is a function of a module, or a method, with arguments that were
    given beforehand.
    """
    return isinstance(part, partial) and "<" not in getattr(part.func, "__qualname__", "<")


WRITERS: dict[str, Callable[[Segmentation], bytes]] = {
    ".png": lambda result: png(result.label_image()),
    ".json": lambda result: (result.to_json() + "\n").encode(),
}
