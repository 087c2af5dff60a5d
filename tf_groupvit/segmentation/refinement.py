"""Sharpen masks along the edges of the picture: pixel-adaptive refinement and the guided filter.

Pure functions in TensorFlow operations that servers and converters have, for batches of any size.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_groupvit.segmentation.settings import Refinement
from tf_groupvit.types import Tensor

WEIGHT_OF_SIGMA = 0.1  # PAMR's published constants
TINY = 1e-8
RGB = range(3)
BAND = 2**22  # numbers that are upsampled at a time: 16 MB
RING = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


def sharpen(scores: Tensor, pixels: Tensor, how: Refinement) -> Tensor:
    """Scores (B, h, w, C) of pictures uint8 (B, h, w, 3), refined: (B, h, w, C).

    Scores and pictures are shrunk to a grid of cells, scores spread there among neighbors of like
    color, and the guided filter carries them back to the pixels.
    """
    height, width = tf.unstack(tf.shape(pixels)[1:3])
    side = tf.minimum(tf.minimum(height, width), how.side)
    rows = tf.maximum(side * height // tf.minimum(height, width), 1)
    columns = tf.maximum(side * width // tf.minimum(height, width), 1)
    colors = tf.cast(pixels, tf.float32) / 255.0
    cells, small = resize(scores, rows, columns), resize(colors, rows, columns)
    if how.dilations:
        cells = pamr(cells, small, how.dilations, how.rounds)
    return guided_upsampling(cells, small, colors, how.radius, how.epsilon)


def pamr(
    scores: Tensor, pixels: Tensor, dilations: Sequence[int] = (1, 2, 4, 8), rounds: int = 10
) -> Tensor:
    """Pixel-adaptive mask refinement: scores (B, h, w, C) spread among pixels of like color.

    In each round a score becomes the weighted mean of those of the eight neighbors at each
    dilation; beyond the border stands the nearest pixel. Weights are a softmax over the neighbors
    of the mean over channels of -|difference| / (1e-8 + 0.1 sigma), where sigma is the unbiased
    standard deviation of a channel among the neighbors and, once for each dilation, the pixel.
    Any linear scale of the colors gives the same. Scores and result have one sum in every pixel.
    Source: Araslanov and Roth, Single-Stage Semantic Segmentation from Image Labels, CVPR 2020,
    section 3.3 and the published code, which has ten rounds and dilations 1, 2, 4, 8, 12, 24.

    Args:
        scores: float32 (B, h, w, C).
        pixels: of the same places, (B, h, w, 3).
    """
    shape = tf.shape(scores)
    places = _neighbors(shape[1], shape[2], dilations)  # one (8 h w) for each dilation
    weights = _affinity(_flat(tf.cast(pixels, tf.float32)), places)

    def spread(index: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            tf.reduce_sum(weight[..., None] * _look(flat, place), axis=1)
            for weight, place in zip(weights, places, strict=True)
        ]
        return index + 1, tf.ensure_shape(tf.add_n(parts), flat.shape)

    start = (0, _flat(scores))
    found = tf.while_loop(lambda index, _: index < rounds, spread, start, parallel_iterations=1)
    return tf.reshape(found[1], shape)


def _flat(values: Tensor) -> Tensor:
    shape = tf.shape(values)
    return tf.reshape(values, [shape[0], shape[1] * shape[2], values.shape[-1] or shape[3]])


def _neighbors(height: Tensor, width: Tensor, dilations: Sequence[int]) -> list[Tensor]:
    """For each dilation the number of each neighbor of each pixel, int32 (8 h w)."""
    y, x, ring = tf.range(height)[None, :, None], tf.range(width)[None, None], tf.constant(RING)
    found = []
    for dilation in dilations:
        rows = tf.clip_by_value(y + dilation * ring[:, :1, None], 0, height - 1)
        columns = tf.clip_by_value(x + dilation * ring[:, 1:, None], 0, width - 1)
        found.append(tf.reshape(rows * width + columns, [-1]))
    return found


def _look(flat: Tensor, places: Tensor) -> Tensor:
    """Values (B, p, C) of the neighbors: (B, 8, p, C)."""
    shape = tf.shape(flat)
    return tf.reshape(tf.gather(flat, places, axis=1), [shape[0], len(RING), shape[1], shape[2]])


def _affinity(colors: Tensor, places: list[Tensor]) -> list[Tensor]:
    """The weights of the neighbors of colors (B, p, 3): for each dilation (B, 8, p)."""
    around = tf.concat([_look(colors, place) for place in places], axis=1)  # (B, n, p, 3)
    away = around - colors[:, None]  # the pixel itself is at 0, once for each dilation
    count = (len(RING) + 1) * len(places)
    mean = tf.reduce_sum(away, axis=1, keepdims=True) / count
    squares = tf.reduce_sum((away - mean) ** 2, axis=1, keepdims=True) + len(places) * mean**2
    sigma = tf.sqrt(squares / (count - 1))
    likeness = -tf.reduce_mean(tf.abs(away) / (TINY + WEIGHT_OF_SIGMA * sigma), axis=-1)
    return tf.split(tf.nn.softmax(likeness, axis=1), len(places), axis=1)


def guided_upsampling(
    scores: Tensor, small: Tensor, pixels: Tensor, radius: int = 2, epsilon: float = 1e-3
) -> Tensor:
    """Carry scores of cells (B, r, c, C) to pixels (B, h, w, 3): (B, h, w, C).

    Around each cell scores are taken for a linear function of the color, found by least squares;
    its coefficients are averaged, interpolated and applied to the pixels.
    Source: He and Sun, Fast Guided Filter, 2015; He, Sun and Tang, Guided Image Filtering, PAMI
    2013, equations 14 to 16 (color guide).

    Args:
        scores: of the cells.
        small: colors of the cells (B, r, c, 3), each from 0 to 1.
        pixels: colors of the pixels likewise.
        radius: cells on each side of one that belong to its window.
        epsilon: keeps the function flat where colors vary less than this.
    """
    grid = tf.shape(scores)[1:3]
    down, across = window_matrix(grid[0], radius), window_matrix(grid[1], radius)

    def mean(values: Tensor) -> Tensor:
        return along_both(values, down, across)

    color, score = mean(small), mean(scores)
    # Slices with a new axis are no part of LiteRT where sizes are open: tf.expand_dims is.
    # Windows: covariance of colors (B, r, c, 3, 3) and of colors with scores (B, r, c, 3, C).
    of_colors = [mean(small * small[..., i : i + 1]) - color * color[..., i : i + 1] for i in RGB]
    with_scores = [
        mean(scores * small[..., i : i + 1]) - score * color[..., i : i + 1] for i in RGB
    ]
    spread = tf.stack(of_colors, axis=-2) + epsilon * np.eye(3, dtype="float32")
    slopes = tf.matmul(inverse(spread), tf.stack(with_scores, axis=-2))
    offsets = score - tf.reduce_sum(slopes * tf.expand_dims(color, -1), axis=-2)
    lines = tf.concat([slopes, tf.expand_dims(offsets, -2)], axis=-2)  # (B, r, c, 4, C)
    shape = tf.shape(lines)
    flat = mean(tf.reshape(lines, tf.concat([shape[:3], [shape[3] * shape[4]]], 0)))
    height, width = tf.unstack(tf.shape(pixels)[1:3])
    to_rows, to_columns = resize_matrix(grid[0], height), resize_matrix(grid[1], width)

    def applied(flat: Tensor, to_rows: Tensor, pixels: Tensor) -> Tensor:
        found = along_both(flat, to_rows, to_columns)
        found = tf.reshape(found, tf.concat([tf.shape(pixels)[:3], shape[3:]], 0))
        return tf.reduce_sum(found[..., :3, :] * pixels[..., None], axis=-2) + found[..., 3, :]

    if None not in pixels.shape:  # one small picture of a file for LiteRT, which lacks such loops
        return applied(flat, to_rows, pixels)
    most = tf.maximum(BAND // (width * shape[3] * shape[4]), 1)
    bands = (height + most - 1) // most
    at_once = (height + bands - 1) // bands  # the last band has rows of nothing
    below = bands * at_once - height
    padded_rows = tf.pad(to_rows, [[0, below], [0, 0]])
    padded = tf.pad(pixels, [[0, 0], [0, below], [0, 0], [0, 0]])

    def band(index: Tensor) -> Tensor:
        """Some rows of one picture, (n, w, C)."""
        image, start = index // bands, index % bands * at_once
        some = tf.expand_dims(padded[image, start : start + at_once], 0)
        return applied(flat[image][None], padded_rows[start : start + at_once], some)[0]

    found = tf.TensorArray(tf.float32, shape[0] * bands, element_shape=[None, None, None])
    found = tf.while_loop(
        lambda index, _: index < shape[0] * bands,
        lambda index, found: (index + 1, found.write(index, band(index))),
        (0, found),
        parallel_iterations=1,
    )[1]
    stacked = tf.reshape(found.stack(), tf.stack([shape[0], bands * at_once, width, shape[4]]))
    return stacked[:, :height]


def resize(values: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Values (B, h, w, C), resized by triangles that grow as it shrinks: (B, height, width, C)."""
    shape = tf.shape(values)
    return along_both(values, resize_matrix(shape[1], height), resize_matrix(shape[2], width))


def along_both(values: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Values (B, h, w, C), mixed along rows by (h', h) and along columns by (w', w)."""
    B, h, w, C = tf.unstack(tf.shape(values))
    rows = tf.matmul(down, tf.reshape(values, [B, h, w * C]))  # (B, h', w C)
    return tf.matmul(across, tf.reshape(rows, [B, -1, w, C]))


def resize_matrix(old: Tensor, new: Tensor) -> Tensor:
    """The share of each of the old pixels in each of the new ones, (new, old)."""
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    centers = (tf.range(new, dtype=tf.float32) + 0.5) * scale - 0.5
    away = tf.abs(tf.range(old, dtype=tf.float32)[None] - centers[:, None])
    return _shares(tf.maximum(1 - away / tf.maximum(scale, 1.0), 0.0))


def window_matrix(size: Tensor, radius: int) -> Tensor:
    """The share of each cell in the mean around each, which ends at the border: (size, size)."""
    places = tf.range(size)
    return _shares(tf.cast(tf.abs(places[None] - places[:, None]) <= radius, tf.float32))


def _shares(weights: Tensor) -> Tensor:
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def inverse(matrix: Tensor) -> Tensor:
    """The inverse of symmetric matrices (..., 3, 3): cross products over the determinant."""
    a, b, c = tf.unstack(matrix, axis=-2)
    crosses = tf.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -2)
    determinant = tf.reduce_sum(a * crosses[..., 0, :], axis=-1, keepdims=True)
    return crosses / tf.expand_dims(determinant, -1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """The cross products of vectors (..., 3), which no other runtime has as one operation."""
    one, two = tf.gather(a, [1, 2, 0], axis=-1), tf.gather(b, [2, 0, 1], axis=-1)
    other, last = tf.gather(a, [2, 0, 1], axis=-1), tf.gather(b, [1, 2, 0], axis=-1)
    return one * two - other * last
