"""Limit the pixels of images that are worked on at the same time.

An image of 10 kB may have 80 million pixels, which take hundreds of megabytes while they are worked
on. So requests take turns by pixels: those that run together have a limited number of them, and a
larger one runs alone.
"""

import re
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from tf_groupvit.server.admission import Deadline
from tf_groupvit.server.status import TIMED_OUT, StatusError

_LARGE_FILE = 2**20  # bytes
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_AFTER_FILL, _MOST_MARKERS = re.compile(rb"[^\xff]"), 1000
_ALONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # markers without a length


def pixels_in(arrays: Iterable[np.ndarray]) -> int:
    """The pixels of the images in string arrays of any shape, and a third of the numbers in arrays
    of three and more dimensions.

    A file of over a megabyte counts at least a third of its bytes: to read it takes several times
    its size, whatever its header claims.
    """
    total = 0
    for array in arrays:
        if array.dtype.kind == "O":
            for file in array.flat:
                claimed = pixels_of(file) if len(file) >= 10 else 0
                total += max(claimed, len(file) // 3 if len(file) > _LARGE_FILE else 0)
        elif array.ndim > 2:
            total += array.size // 3
    return total


def pixels_of(content: bytes) -> int:
    """The pixels that the header of a PNG, JPEG, GIF, BMP or WebP file claims; 0 for anything else.

    No library reads headers alone: Pillow's readers of some formats take memory for all pixels.
    """
    try:
        width, height = _size_of(content)
    except struct.error:
        return 0
    return abs(width * height)


def _size_of(content: bytes) -> tuple[int, int]:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return struct.unpack_from(">II", content, 16)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_size(content)
    if content.startswith(b"GIF8"):
        return struct.unpack_from("<HH", content, 6)
    if content.startswith(b"BM"):
        old = struct.unpack_from("<I", content, 14)[0] == 12
        return struct.unpack_from("<HH" if old else "<ii", content, 18)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp_size(content)
    return 0, 0


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """The size in the frame's header, which follows segments of other kinds; the largest there can
    be where those are very many.
    """
    at = 2
    for _ in range(_MOST_MARKERS):
        start = content.find(b"\xff", at)
        found = _AFTER_FILL.search(content, start) if start >= 0 else None
        if found is None:
            return 0, 0
        marker, at = found[0][0], found.end()
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", content, at + 3)
            return width, height
        if marker not in _ALONE:
            at += struct.unpack_from(">H", content, at)[0]
    return 0xFFFF, 0xFFFF


def _webp_size(content: bytes) -> tuple[int, int]:
    if content[12:16] == b"VP8X":
        width, height = content[24:27], content[27:30]
        return 1 + int.from_bytes(width, "little"), 1 + int.from_bytes(height, "little")
    if content[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


class PixelLimit:
    """At most ``most`` pixels at work at once, first come, first served; 0 for any number."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.at_work = 0
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @property
    def waiting(self) -> int:
        """Requests that wait for others to end."""
        return len(self._queue)

    @contextmanager
    def hold(self, pixels: int, timeout: float | None) -> Iterator[float | None]:
        """Wait until this number of pixels may run, for ``timeout`` seconds at most; gives the
        seconds that are left. Raises StatusError (DEADLINE_EXCEEDED).
        """
        if not self.most or not pixels:
            yield timeout
            return
        deadline, turn = Deadline(timeout), object()
        with self._changed:
            self._queue.append(turn)
            fits = self._changed.wait_for(
                lambda: (
                    self._queue[0] is turn
                    and (not self.at_work or self.at_work + pixels <= self.most)
                ),
                timeout,
            )
            self._queue.remove(turn)
            self.at_work += pixels if fits else 0
            self._changed.notify_all()
        if not fits:
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT)
        try:
            yield deadline.remaining()
        finally:
            with self._changed:
                self.at_work -= pixels
                self._changed.notify_all()


UNBOUNDED = PixelLimit(0)
