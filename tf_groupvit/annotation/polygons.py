"""Label maps as polygons: connected regions, traced along the edges of pixels, then simplified.

Needs NumPy alone. Coordinates are (x, y) in pixels, (0, 0) being the outer corner of the first.
"""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.5  # pixels; IoU over 0.98 where the area is over 4 times the length of the outline
OUTSIDE = -1  # the label around the picture


@dataclass(frozen=True)
class Region:
    """The pixels of one class that are connected by their sides.

    Attributes:
        label: the class number.
        number: in ``component_map`` of the same labels.
        area: pixels, before simplifying.
        box: x, y, width, height of the pixels.
        outer: (N, 2) corners of the outline, clockwise as one sees it, the first not repeated.
        holes: such corners for each hole, counterclockwise.
    """

    label: int
    number: int
    area: int
    box: tuple[int, int, int, int]
    outer: np.ndarray
    holes: list[np.ndarray]

    @property
    def rings(self) -> list[np.ndarray]:
        """The outline, then the holes: even-odd filling gives the region."""
        return [self.outer, *self.holes]


def regions_of(
    labels: np.ndarray, tolerance: float = TOLERANCE, minimum_area: int = 0
) -> list[Region]:
    """The regions of a label map (H, W), from top to bottom by their first pixel.

    Neighbors keep their shared borders: no gaps and no overlaps, except where a region would vanish
    by simplifying, which keeps its outline of pixels.

    Args:
        labels: integers from 0.
        tolerance: how far, in pixels, an outline may be from the middle of the steps that pixels
            make. 0 keeps every corner: filled by the even-odd rule, the pixels come back exactly.
        minimum_area: smaller regions are left out, and smaller holes filled.
    """
    traced = _Traced(labels)
    areas = np.zeros(len(traced.areas), np.int64)
    np.add.at(areas, traced.outer_of, traced.areas)
    points = traced.simplified(tolerance) if tolerance else traced.corners()
    found: dict[int, Region] = {}
    for ring in np.flatnonzero((traced.areas > 0) & (areas >= minimum_area)).tolist():
        edges = traced.edges[traced.starts[ring] : traced.starts[ring + 1]]
        y, x = np.divmod(traced.pixels[edges], traced.stride)
        left, top = int(x.min()), int(y.min())
        found[ring] = Region(
            label=int(traced.labels[ring]),
            number=int(np.searchsorted(traced.outers, ring)),
            area=int(areas[ring]),
            box=(left - 1, top - 1, int(x.max()) - left + 1, int(y.max()) - top + 1),
            outer=points[ring],
            holes=[],
        )
    for hole in np.flatnonzero((traced.areas < 0) & (-traced.areas >= minimum_area)).tolist():
        if traced.outer_of[hole] in found:
            found[traced.outer_of[hole]].holes.append(points[hole])
    return list(found.values())


def component_map(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) number of the region of each pixel, and (R,) the class number of each region.

    Numbers are the order of ``regions_of(labels)``.
    """
    traced = _Traced(labels)
    number_of = np.zeros(len(traced.areas), np.int32)
    number_of[traced.outers] = np.arange(len(traced.outers), dtype=np.int32)
    return number_of[traced.outlines()], traced.labels[traced.outers]


def bridged(rings: list[np.ndarray]) -> np.ndarray:
    """One ring (N, 2) of an outline and its holes, for formats without holes.

    A line of no width leads from each hole to the left, to the outline or another hole, and back.
    """
    whole, *holes = rings
    for hole in sorted(holes, key=lambda hole: hole[:, 0].min()):
        first = np.lexsort((hole[:, 1], hole[:, 0]))[0]
        x, y = hole[first]
        ends = np.roll(whole, -1, axis=0)
        low, high = np.minimum(whole[:, 1], ends[:, 1]), np.maximum(whole[:, 1], ends[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (y - whole[:, 1]) / (ends[:, 1] - whole[:, 1])
            met = whole[:, 0] + share * (ends[:, 0] - whole[:, 0])
        met = np.where(low == high, np.maximum(whole[:, 0], ends[:, 0]), met)
        met[(y < low) | (y > high) | (met > x)] = -np.inf
        nearest = int(np.argmax(met))
        bridge = np.array([[met[nearest], y]])
        turned = np.roll(hole, -first, axis=0)
        parts = [whole[: nearest + 1], bridge, turned, turned[:1], bridge, whole[nearest + 1 :]]
        whole = np.concatenate(parts)
    return whole


class _Traced:
    """The rings of a label map.

    An edge is a side of a pixel whose neighbor has another label; it leads so that its pixel is on
    its right: 0 east above it, 1 south to its right, 2 west below it, 3 north to its left.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.height, self.width = labels.shape
        padded = np.pad(labels.astype(np.int32), 1, constant_values=OUTSIDE)
        self.stride = padded.shape[1]
        self.flat = flat = padded.ravel()
        self.steps = np.array([1, self.stride, -1, -self.stride])
        inside, above, below = padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1]
        neighbors = above, padded[1:-1, 2:], below, padded[1:-1, :-2]
        places = [np.nonzero(inside != neighbor) for neighbor in neighbors]
        sides = [(y + 1) * self.stride + x + 1 for y, x in places]
        self.pixels = np.concatenate(sides)
        self.directions = np.repeat(np.arange(4), [len(side) for side in sides])
        self.edges, self.starts = _cycles(self._following())  # ring after ring
        self.ring = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        # Pixels inside, negative for a hole: what is above the west edges, less what is above east.
        direction = self.directions[self.edges]
        sign = np.where(direction == 2, 1, np.where(direction == 0, -1, 0))
        rows = self.pixels[self.edges] // self.stride + (direction == 2)
        self.areas = np.add.reduceat(sign * rows, self.starts[:-1])
        self.labels = flat[self.pixels[self.edges[self.starts[:-1]]]]
        self.outers = np.flatnonzero(self.areas > 0)
        self.outer_of = self._outer_of()

    def _following(self) -> np.ndarray:
        """The edge after each edge: regions touching by a corner alone are two."""
        flat, steps = self.flat, self.steps
        own, ahead = flat[self.pixels], self.pixels + steps[self.directions]
        beside = ahead + steps[self.directions - 1]
        right, left = flat[ahead] != own, flat[beside] == own
        pixels = np.where(right, self.pixels, np.where(left, beside, ahead))
        directions = (self.directions + np.where(right, 1, np.where(left, -1, 0))) % 4
        size = len(flat)  # edges are sorted by direction and pixel
        return np.searchsorted(self.directions * size + self.pixels, directions * size + pixels)

    def _runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each run of equal pixels in a row begins, in reading order, and what ring it is at.

        Left of a run is another label, or the end of the picture: there is an edge north.
        """
        north = np.flatnonzero(self.directions[self.edges] == 3)
        pixels = self.pixels[self.edges[north]]
        order = np.argsort(pixels)
        return pixels[order], self.ring[north[order]]

    def _outer_of(self) -> np.ndarray:
        """The outline of each ring: its own, or of a hole the one that the hole is in.

        Left of a hole's leftmost pixel is the outline, or a hole that is further left.
        """
        outer_of = np.arange(len(self.areas))
        holes = np.flatnonzero(self.areas < 0)
        if len(holes):
            x = self.pixels[self.edges] % self.stride
            leftmost = np.lexsort((x, self.ring))[self.starts[holes]]
            begins, rings = self._runs()
            places = np.searchsorted(begins, self.pixels[self.edges[leftmost]], side="right") - 1
            outer_of[holes] = rings[places]
        while (self.areas[outer_of] < 0).any():
            outer_of = outer_of[outer_of]
        return outer_of

    def outlines(self) -> np.ndarray:
        """(H, W) the outline, a ring, that each pixel is in."""
        begins, rings = self._runs()
        y, x = np.divmod(begins, self.stride)
        places = (y - 1) * self.width + x - 1
        lengths = np.diff(places, append=self.height * self.width)
        return self.outer_of[rings].repeat(lengths).reshape(self.height, self.width)

    def _stops(self, fixed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The vertices where rings turn (N, 2), their rings, and which ones are fixed.

        Fixed is where more than two regions, or two sides of the picture, meet.
        """
        directions = self.directions[self.edges]
        y, x = np.divmod(self.pixels[self.edges], self.stride)
        x, y = x - 1 + np.isin(directions, (1, 2)), y - 1 + np.isin(directions, (2, 3))
        stop = directions != directions[_before(self.starts)]
        meeting = np.zeros(len(x), bool)
        if fixed:
            place = (y + 1) * self.stride + x + 1
            a, b, c, d = (self.flat[place - back] for back in (self.stride + 1, self.stride, 1, 0))
            changes = (a != b).astype(int) + (b != d) + (d != c) + (c != a)
            corner = np.isin(x, (0, self.width)) & np.isin(y, (0, self.height))
            meeting = (changes > 2) | corner
            stop |= meeting
        return np.stack([x, y], axis=1)[stop].astype(np.float64), self.ring[stop], meeting[stop]

    def corners(self) -> list[np.ndarray]:
        """(N, 2) corners of each ring."""
        points, ring, _ = self._stops(fixed=False)
        return np.split(points, np.flatnonzero(np.diff(ring)) + 1)

    def simplified(self, tolerance: float) -> list[np.ndarray]:
        """(N, 2) points of each ring: fixed ones, and between them those that the shape needs.

        Where that leaves nothing, the corners.
        """
        points, ring, fixed = _middles(*self._stops(fixed=True))
        count = len(self.areas)
        starts = np.searchsorted(ring, np.arange(count + 1))
        # A ring without a fixed point begins at its topmost one, whichever region sees it.
        top = np.lexsort((points[:, 0], points[:, 1], ring))[starts[:-1]]
        free = np.add.reduceat(fixed, starts[:-1]) == 0
        fixed[top[free]] = True
        first = np.flatnonzero(fixed)[np.searchsorted(ring[fixed], np.arange(count))]
        turned = np.arange(len(ring)) - starts[ring] + (first - starts[:-1])[ring]
        turned = starts[ring] + turned % np.diff(starts)[ring]
        points, fixed = points[turned], fixed[turned]
        # Each path between fixed points ends in the point that the next one begins with.
        ends = np.flatnonzero(fixed)
        last = np.append(ring[ends[1:]] != ring[ends[:-1]], True)
        nexts = np.where(last, starts[ring[ends]], np.append(ends[1:], 0))
        places = np.append(ends[1:], len(points))
        path = np.insert(points, places, points[nexts], axis=0)
        whole = np.insert(np.ones(len(points), bool), places, False)
        fixed = np.insert(fixed, places, True)
        keep = _straightened(path, fixed, tolerance)[whole]
        simple = np.split(points[keep], np.searchsorted(ring[keep], np.arange(1, count)))
        exact = self.corners()
        return [s if len(s) > 2 and _has_area(s) else e for s, e in zip(simple, exact, strict=True)]


def _cycles(following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cycles of a permutation one after another, and where each begins, and the end."""
    after = following.tolist()
    seen = bytearray(len(after))
    order: list[int] = []
    starts = []
    for start in range(len(after)):
        if not seen[start]:
            starts.append(len(order))
            at = start
            while not seen[at]:
                seen[at] = 1
                order.append(at)
                at = after[at]
    return np.array(order), np.array([*starts, len(order)])


def _before(starts: np.ndarray) -> np.ndarray:
    """The place before each place, in rings that begin at these."""
    before = np.arange(starts[-1]) - 1
    before[starts[:-1]] = starts[1:] - 1
    return before


def _middles(
    stops: np.ndarray, ring: np.ndarray, fixed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rings of corners, whose steps of one pixel are cut: they lead through their middles."""
    starts = np.flatnonzero(np.diff(ring, prepend=-1, append=-1))
    before = _before(starts)
    runs = stops - stops[before]
    lengths = np.abs(runs).sum(axis=1)
    halves = runs / lengths[:, None] / 2
    after = np.argsort(before)
    cut = (np.minimum(lengths, lengths[after]) == 1) & ~fixed
    points = np.stack([stops - halves * cut[:, None], stops + halves[after] * cut[:, None]], 1)
    points, ring, fixed = points.reshape(-1, 2), ring.repeat(2), fixed.repeat(2)
    starts = np.flatnonzero(np.diff(ring, prepend=-1, append=-1))
    new = (points != points[_before(starts)]).any(axis=1)
    return points[new], ring[new], fixed[new]


def _straightened(path: np.ndarray, fixed: np.ndarray, tolerance: float) -> np.ndarray:
    """Which points of the paths between fixed ones stay: Douglas and Peucker (1973).

    The choice is the same in both directions of a path.
    """
    keep = fixed.copy()
    rank = np.empty(len(path), np.int64)
    rank[np.lexsort(path.T)] = np.arange(len(path))
    while True:
        ends = np.flatnonzero(keep)
        span = np.cumsum(keep) - 1
        pair = np.stack([ends, np.append(ends[1:], ends[-1])])
        pair = np.where(rank[pair[0]] < rank[pair[1]], pair, pair[::-1])[:, span]
        away = _distances(path, path[pair[0]], path[pair[1]])
        away[keep] = 0
        far = np.maximum.reduceat(away, ends)[span]
        chosen = np.flatnonzero((away == far) & (far > tolerance))
        if not len(chosen):
            return keep
        chosen = chosen[np.lexsort((rank[chosen], span[chosen]))]
        keep[chosen[np.diff(span[chosen], prepend=-1) > 0]] = True


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(N,) distances of points (N, 2) from segments between starts and ends (N, 2)."""
    along, beside = end - start, points - start
    length = np.maximum((along * along).sum(axis=1), 1e-9)
    share = np.clip((beside * along).sum(axis=1) / length, 0, 1)
    away = beside - share[:, None] * along
    return np.hypot(away[:, 0], away[:, 1])


def _has_area(ring: np.ndarray) -> bool:
    x, y = ring.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) > 0
