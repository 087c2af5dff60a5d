"""Scores of a small picture in, labels and scores of the image out, as arrays: what is compiled once for every size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_groupvit.models.processes import check_process
from tf_groupvit.segmentation.compact import label_map_of_patches, scores_between_patches
from tf_groupvit.segmentation.labelling import highest_scores, label_map, score_map

SCORES = tf.TensorSpec([None, None, None], tf.float32)
ROWS = tf.TensorSpec([None, None], tf.float32)
OWNER = tf.TensorSpec([None, None], tf.int32)
SIDE = tf.TensorSpec([], tf.int32)

_label = tf.function(label_map, input_signature=[SCORES, SIDE, SIDE], autograph=False)
_label_owned = tf.function(label_map, input_signature=[ROWS, SIDE, SIDE, OWNER], autograph=False)
_label_patches = tf.function(
    lambda scores, h, w, height, width: label_map_of_patches(scores, (h, w), height, width),
    input_signature=[SCORES, *[SIDE] * 4],
    autograph=False,
)
_highest = tf.function(highest_scores, input_signature=[SCORES, SIDE, SIDE], autograph=False)
_between_patches = tf.function(scores_between_patches, input_signature=[SCORES, SIDE, SIDE], autograph=False)
_enlarge = tf.function(score_map, input_signature=[SCORES, SIDE, SIDE], autograph=False)


class SmallScores(NamedTuple):
    """Scores of the pixels of a small picture, in the smallest form that holds them.

    rows: (h, w, K), one for each pixel; or, with ``owner`` int32 (h, w), (G, K), one for each group: pixel (y, x) has
    ``rows[owner[y, x]]``; or, with ``size`` (h, w) alone, (r, c, K), one for each patch, between which pixels lie.
    """

    rows: np.ndarray
    owner: np.ndarray | None = None
    size: tuple[int, int] | None = None

    def of_pixels(self) -> np.ndarray:
        """(h, w, K)."""
        check_process()
        if self.owner is not None:
            return self.rows[self.owner]
        return self.rows if self.size is None else _between_patches(self.rows, *self.size).numpy()

    def of_classes(self, numbers: Sequence[int]) -> "SmallScores":
        """Of the same pixels the scores of some classes, in that order."""
        return self._replace(rows=self.rows[..., list(numbers)])

    def labels(self, height: int, width: int) -> np.ndarray:
        """(height, width), uint8 where they fit."""
        check_process()
        if self.owner is not None:
            found = _label_owned(self.rows, height, width, self.owner)
        elif self.size is not None:
            found = _label_patches(self.rows, *self.size, height, width)
        else:
            found = _label(self.rows, height, width)
        return found.numpy().astype("uint8" if self.rows.shape[-1] <= 256 else "int32")

    def highest(self, height: int, width: int) -> np.ndarray:
        """Each class's highest among the pixels of (height, width), (K)."""
        return _highest(self.of_pixels(), height, width).numpy()

    def enlarged(self, height: int, width: int) -> np.ndarray:
        """(K, height, width)."""
        return _enlarge(self.of_pixels(), height, width).numpy().transpose(2, 0, 1)
