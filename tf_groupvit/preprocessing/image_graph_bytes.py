"""Read numbers, marks and the EXIF orientation out of an image file's bytes, in the graph.

Positions are int64 scalars, counted from the start of the file; a read beyond its end gives zeros.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_groupvit.files import EXIF_ORIENTATION
from tf_groupvit.preprocessing.image_reading import MAX_SIDE, ORIENTATIONS

Message = list[str | tf.Tensor]  # the parts of a message: texts, and numbers in the graph


class Header(NamedTuple):
    """What an image file says before anything is decoded; tensors, the same for every format."""

    error: tf.Tensor  # scalar string: why the image cannot be read, "" where it may be decoded
    size: tf.Tensor  # int64 (2): height and width as stored, before the image is turned
    still: tf.Tensor  # scalar string: the file that the decoder gets
    corner: tf.Tensor  # int64 (2): top and left of the decoded part within the size
    color: tf.Tensor  # uint8 (3): what is around that part
    orientation: tf.Tensor  # scalar int32: the EXIF orientation, 1 to 8
    format: tf.Tensor  # scalar int32: its row in FORMATS, len(FORMATS) for none


def header(
    error: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    still: tf.Tensor,
    corner: tuple[tf.Tensor, tf.Tensor] | None = None,
    color: tf.Tensor | None = None,
    orientation: tf.Tensor | None = None,
) -> Header:
    """Make a ``Header`` whose image fills its size and is not turned, unless given otherwise.

    Args:
        error, height, width, still: scalars, as in ``Header``.
        corner: top and left, int64 scalars; ``color`` uint8 (3); ``orientation`` int32 scalar.
    """
    return Header(
        error,
        tf.stack([tf.cast(height, tf.int64), tf.cast(width, tf.int64)]),
        still,
        tf.zeros([2], tf.int64) if corner is None else tf.stack(corner),
        tf.zeros([3], tf.uint8) if color is None else color,
        tf.constant(1) if orientation is None else orientation,
        tf.constant(0),  # filled in by the caller, who knows the format
    )


# ---- numbers and marks ----


def bytes_of(contents: tf.Tensor) -> tf.Tensor:
    """Bytes of a scalar string as uint8 (L + 1): the zero at the end is what reads beyond get."""
    return tf.concat([tf.io.decode_raw(contents, tf.uint8), tf.zeros([1], tf.uint8)], axis=0)


def size_of(data: tf.Tensor) -> tf.Tensor:
    """The length of the file whose bytes are uint8 (L + 1): int64 scalar."""
    return tf.size(data, out_type=tf.int64) - 1


def read(data: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Read ``count`` bytes of uint8 (L + 1) at a position as int64 (count)."""
    places = tf.cast(at, tf.int64) + tf.range(count, dtype=tf.int64)
    return tf.cast(tf.gather(data, tf.clip_by_value(places, 0, size_of(data))), tf.int64)


def byte(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Read one byte of uint8 (L + 1) as int64 scalar. The position is not negative."""
    return tf.cast(tf.gather(data, tf.minimum(at, size_of(data))), tf.int64)


def big(data: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Read an unsigned big-endian number of ``count`` bytes: int64 scalar."""
    return tf.reduce_sum(read(data, at, count) * [256**i for i in reversed(range(count))])


def little(data: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Read an unsigned little-endian number of ``count`` bytes: int64 scalar."""
    return tf.reduce_sum(read(data, at, count) * [256**i for i in range(count)])


def matches(data: tf.Tensor, at: tf.Tensor | int, mark: bytes) -> tf.Tensor:
    """Whether the bytes of uint8 (L + 1) at a position are these: bool scalar."""
    return tf.reduce_all(read(data, at, len(mark)) == list(mark))


# ---- errors ----


def assert_with_message(
    condition: tf.Tensor | bool, message: Message, value: tf.Tensor
) -> tf.Tensor:
    """Give ``value`` (of any shape) back, or fail with INVALID_ARGUMENT and the message.

    Whatever is made of the result cannot run before the check has passed. The check has to depend
    on the data in that way: nothing else keeps it in a SavedModel.
    """
    with tf.control_dependencies([tf.debugging.Assert(condition, [joined(message)])]):
        return tf.identity(value)


def joined(message: Message) -> tf.Tensor:
    """The parts of a message as one string, of the shape of its tensors (scalar or (B))."""
    return tf.strings.join(
        [part if isinstance(part, str) else tf.strings.as_string(part) for part in message]
    )


def first_error(*checks: tuple[tf.Tensor | bool, Message]) -> tf.Tensor:
    """The message of the first check that fails, "" where none does: string, scalar or (B)."""
    error = tf.constant("")
    for condition, message in reversed(checks):
        error = tf.where(condition, error, joined(message))
    return error


def size_checks(
    height: tf.Tensor, width: tf.Tensor, max_pixels: int
) -> list[tuple[tf.Tensor, Message]]:
    """Checks that an image of height x width, int64 scalars, is neither empty nor too large."""
    some = (height > 0) & (width > 0)
    few = (height <= max_pixels) & (width <= max_pixels) & (height * width <= max_pixels)
    short = (height <= MAX_SIDE) & (width <= MAX_SIDE)
    image = ["An image of ", width, " x ", height]
    return [
        (some, ["Expected an image of at least one pixel, got ", width, " x ", height, "."]),
        (few, [*image, f" is over the limit of {max_pixels} pixels: shrink it."]),
        (short, [*image, f" is over the limit of {MAX_SIDE} pixels a side: shrink it."]),
    ]


# ---- EXIF orientation ----

# Where the EXIF block is not among that many parts of a file, the image is taken as it is stored. A
# phone writes it first; a file made of millions of empty parts must not keep a server busy.
MAX_PARTS = 4096
_MAX_ENTRIES = 512
_NOT_FOUND = -1
_PREFIX = b"Exif\x00\x00"
_NO_FRAMES = (0xFFC4, 0xFFC8, 0xFFCC)  # of the markers FFC0 to FFCF, those that begin no frame
_SHORT, _LONG = 3, 4

# Position and end of the file -> position of the next part, and of the EXIF block in this one.
NextPart = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def orientation_of(data: tf.Tensor, first: int, next_part: NextPart) -> tf.Tensor:
    """Find the EXIF block of a file of parts, uint8 (L + 1), and read its orientation.

    Args:
        first: where the first part begins.
        next_part: ``next_in_png`` or ``next_in_webp``.

    Returns:
        int32 scalar, 1 to 8; 1 if there is no such block.
    """
    end = size_of(data)
    start = (tf.constant(first, tf.int64), tf.constant(_NOT_FOUND, tf.int64))
    _, block = tf.while_loop(
        lambda at, block: (at < end) & (block == _NOT_FOUND),
        lambda at, _: next_part(data, at, end),
        start,
        maximum_iterations=MAX_PARTS,
    )
    return _orientation_at(data, block)


def next_in_png(data: tf.Tensor, at: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The part after the one at ``at``, and where the EXIF block begins if this one is: scalars."""
    after = at + 12 + big(data, at, 4)
    return (
        tf.where(matches(data, at + 4, b"IEND"), end, after),
        tf.where(matches(data, at + 4, b"eXIf"), at + 8, _NOT_FOUND),
    )


def next_in_webp(data: tf.Tensor, at: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As ``next_in_png``, of a RIFF file: scalars."""
    return after_riff_part(data, at), tf.where(matches(data, at, b"EXIF"), at + 8, _NOT_FOUND)


def after_riff_part(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Where the part of a RIFF file, uint8 (L + 1), that begins at ``at`` ends: int64 scalar."""
    length = little(data, at + 4, 4)
    return at + 8 + length + length % 2


def jpeg_parts(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Walk through the segments of a JPEG, uint8 (L + 1), before its pixels.

    Returns:
        The EXIF orientation, int32, and height and width, int64, as the decoder finds them, or -1
        and -1 where segments do not follow each other as they should.
    """
    end = size_of(data)

    def step(
        at: tf.Tensor, block: tf.Tensor, frame: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        pairs = tf.reshape(read(data, at, 4), [2, 2])
        marker, length = tf.unstack(tf.reduce_sum(pairs * [256, 1], axis=1))
        # Any other marker begins the pixels, or is none.
        segment = (marker >= 0xFFC0) & ((marker < 0xFFD0) | (marker > 0xFFDA))
        after = tf.where(marker == 0xFFFF, at + 1, at + 2 + length)  # FF may be repeated as filling
        is_exif = (block == _NOT_FOUND) & (marker == 0xFFE1) & matches(data, at + 4, _PREFIX)
        is_frame = segment & (frame == _NOT_FOUND) & (marker < 0xFFD0)
        is_frame &= tf.reduce_all(marker != _NO_FRAMES)
        after = tf.where(segment, after, end)
        return after, tf.where(is_exif, at + 4, block), tf.where(is_frame, at + 5, frame)

    unknown = tf.constant(_NOT_FOUND, tf.int64)
    _, block, frame = tf.while_loop(
        lambda at, block, frame: (at < end) & ((block == _NOT_FOUND) | (frame == _NOT_FOUND)),
        step,
        (tf.constant(2, tf.int64), unknown, unknown),
        maximum_iterations=MAX_PARTS,
    )
    height, width = big(data, tf.maximum(frame, 0), 2), big(data, tf.maximum(frame, 0) + 2, 2)
    known = (frame != _NOT_FOUND) & (frame + 4 <= end)
    return _orientation_at(data, block), tf.where(known, height, -1), tf.where(known, width, -1)


def _orientation_at(data: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        block == _NOT_FOUND, lambda: tf.constant(1), lambda: _orientation_in(data, block)
    )


def _orientation_in(data: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    """Read the orientation in the first directory of an EXIF block, in either byte order.

    A broken block gives 1.
    """
    block += tf.where(matches(data, block, _PREFIX), tf.constant(6, tf.int64), 0)
    intel = matches(data, block, b"II*\x00")
    known = intel | matches(data, block, b"MM\x00*")
    directory = block + tf.where(intel, little(data, block + 4, 4), big(data, block + 4, 4))
    count = tf.where(intel, little(data, directory, 2), big(data, directory, 2))
    count = tf.minimum(count, _MAX_ENTRIES)
    entries = tf.reshape(read(data, directory + 2, 12 * _MAX_ENTRIES), [_MAX_ENTRIES, 12])[:count]
    pair = tf.where(intel, tf.constant([1, 256], tf.int64), [256, 1])
    tag, form, first, second = (
        tf.reduce_sum(entries[:, at : at + 2] * pair, 1) for at in (0, 2, 8, 10)
    )
    # The low half of a big-endian number of four bytes is the second.
    value = tf.where((form == _LONG) & ~intel, second, first)
    wanted = known & (tag == EXIF_ORIENTATION) & ((form == _SHORT) | (form == _LONG))
    value = tf.reduce_max(tf.concat([tf.where(wanted, value, 0), [0]], 0))
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn pixels (H, W, 3) as an EXIF orientation, int32 scalar from 1 to 8, says."""
    table = tf.constant([ORIENTATIONS[i] for i in range(1, 9)])
    swap, mirror, flip = tf.unstack(tf.gather(table, orientation - 1))
    pixels = tf.cond(swap, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    pixels = tf.cond(mirror, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.cond(flip, lambda: tf.reverse(pixels, [0]), lambda: pixels)
