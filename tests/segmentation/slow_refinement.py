"""Refinement as its papers say it, pixel by pixel in float64: what tests compare the package with."""

from collections.abc import Sequence

import numpy as np


def pamr(
    scores: np.ndarray, pixels: np.ndarray, dilations: Sequence[int], rounds: int
) -> np.ndarray:
    """Araslanov and Roth 2020, section 3.3: scores (h, w, C) of a picture (h, w, 3)."""
    size = pixels.shape[:2]
    colors, scores = pixels.astype(float), scores.astype(float)
    neighbors = {place: ring(place, dilations, size) for place in np.ndindex(size)}
    weights = {}
    for place, there in neighbors.items():
        samples = np.vstack([colors[there], [colors[place]] * len(dilations)])
        sigma = samples.std(axis=0, ddof=1)
        likeness = -(np.abs(colors[there] - colors[place]) / (1e-8 + 0.1 * sigma)).mean(axis=1)
        powers = np.exp(likeness - likeness.max())
        weights[place] = powers / powers.sum()
    for _ in range(rounds):
        last, scores = scores, np.empty_like(scores)
        for place, there in neighbors.items():
            scores[place] = weights[place] @ last[there]
    return scores


def ring(
    place: tuple[int, int], dilations: Sequence[int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the eight neighbors at each distance; beyond the border the nearest."""
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    found = [np.array(place) + far * np.array(step) for far in dilations for step in steps]
    inside = np.clip(found, 0, np.array(size) - 1)
    return inside[:, 0], inside[:, 1]


def guided_upsampling(
    scores: np.ndarray, small: np.ndarray, pixels: np.ndarray, radius: int, epsilon: float
) -> np.ndarray:
    """He and Sun 2015: scores (r, c, C) and colors (r, c, 3) of cells, for pixels (h, w, 3)."""
    (rows, columns), (height, width) = small.shape[:2], pixels.shape[:2]
    lines = np.empty((rows, columns, 4, scores.shape[2]))
    for y, x in np.ndindex(rows, columns):
        window = around(y, x, radius)
        color, score = small[window].reshape(-1, 3), scores[window].reshape(-1, scores.shape[2])
        # Least squares with a penalty of epsilon on slopes for each cell, as equations more.
        penalty = np.hstack([np.sqrt(len(color) * epsilon) * np.eye(3), np.zeros((3, 1))])
        left = np.vstack([np.hstack([color, np.ones((len(color), 1))]), penalty])
        right = np.vstack([score, np.zeros((3, scores.shape[2]))])
        lines[y, x] = np.linalg.lstsq(left.astype(float), right.astype(float), rcond=None)[0]
    smooth = np.empty_like(lines)
    for y, x in np.ndindex(rows, columns):
        smooth[y, x] = lines[around(y, x, radius)].mean(axis=(0, 1))
    found = np.empty((height, width, scores.shape[2]))
    for y, x in np.ndindex(height, width):
        line = between(smooth, (y + 0.5) * rows / height, (x + 0.5) * columns / width)
        found[y, x] = pixels[y, x] @ line[:3] + line[3]
    return found


def around(y: int, x: int, radius: int) -> tuple[slice, slice]:
    """The window of a cell, as far as there are cells."""
    return slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), x + radius + 1)


def between(cells: np.ndarray, y: float, x: float) -> np.ndarray:
    """The value at a place, bilinear between the middles of cells, which are at 0.5, 1.5 ..."""
    y, x = np.clip(y - 0.5, 0, len(cells) - 1), np.clip(x - 0.5, 0, len(cells[0]) - 1)
    top, left = int(y), int(x)
    down, right = min(top + 1, len(cells) - 1), min(left + 1, len(cells[0]) - 1)
    upper = cells[top, left] * (1 - x + left) + cells[top, right] * (x - left)
    lower = cells[down, left] * (1 - x + left) + cells[down, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)
