"""The bytes of an image file (a scalar string tensor) in; numbers, marks and its kind, read in the
graph, out.
"""

from typing import NamedTuple

import tensorflow as tf

from tf_groupvit.preprocessing.image_reading import MAX_SIDE

Words = list[str | tf.Tensor]  # a message, numbers among its parts

# Kind -> the bytes that its files begin with, as (position, bytes).
KINDS = {
    "JPEG": ((0, b"\xff\xd8\xff"),),
    "PNG": ((0, b"\x89PNG\r\n\x1a\n"),),
    "GIF": ((0, b"GIF8"),),
    "BMP": ((0, b"BM"),),
    "WebP": ((0, b"RIFF"), (8, b"WEBP")),
}


class Header(NamedTuple):
    """What an image file says before anything is decoded; tensors, the same for every kind."""

    words: tf.Tensor  # scalar string: why the image cannot be read, "" where it may be decoded
    size: tf.Tensor  # int64 (2): height and width as stored, before the image is turned
    still: tf.Tensor  # scalar string: the file that the decoder gets
    corner: (
        tf.Tensor
    )  # int64 (2): where the decoded part lies within the size, from the top and from the left
    color: tf.Tensor  # uint8 (3): what is around that part
    orientation: tf.Tensor  # scalar int32: how EXIF says that the image is turned, 1 to 8
    kind: tf.Tensor  # scalar int32: its number in KINDS, len(KINDS) for none


def header(
    words: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    still: tf.Tensor,
    corner: tuple[tf.Tensor, tf.Tensor] | None = None,
    color: tf.Tensor | None = None,
    orientation: tf.Tensor | None = None,
) -> Header:
    """A ``Header`` whose image fills its size and is not turned, unless given otherwise."""
    return Header(
        words,
        tf.stack([tf.cast(height, tf.int64), tf.cast(width, tf.int64)]),
        still,
        tf.zeros([2], tf.int64) if corner is None else tf.stack(corner),
        tf.zeros([3], tf.uint8) if color is None else color,
        tf.constant(1) if orientation is None else orientation,
        tf.constant(0),  # whoever told the kinds apart fills it in
    )


def bytes_of(contents: tf.Tensor) -> tf.Tensor:
    """Give the bytes as uint8 (L + 1), with a zero at the end that every read beyond the end gets."""
    return tf.concat([tf.io.decode_raw(contents, tf.uint8), tf.zeros([1], tf.uint8)], axis=0)


def read(data: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Read ``count`` bytes at a position as int64 (count); zeros beyond the end."""
    last = tf.size(data, out_type=tf.int64) - 1
    places = tf.clip_by_value(tf.cast(at, tf.int64) + tf.range(count, dtype=tf.int64), 0, last)
    return tf.cast(tf.gather(data, places), tf.int64)


def byte(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Read one byte as int64 scalar; zero beyond the end. The position is not negative."""
    return tf.cast(tf.gather(data, tf.minimum(at, tf.size(data, out_type=tf.int64) - 1)), tf.int64)


def big(data: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Read an unsigned number, its most significant byte first: int64 scalar."""
    return tf.reduce_sum(read(data, at, count) * [256**i for i in reversed(range(count))])


def little(data: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Read an unsigned number, its least significant byte first: int64 scalar."""
    return tf.reduce_sum(read(data, at, count) * [256**i for i in range(count)])


def matches(data: tf.Tensor, at: tf.Tensor | int, mark: bytes) -> tf.Tensor:
    """Say whether the bytes at a position are these: bool scalar."""
    return tf.reduce_all(read(data, at, len(mark)) == list(mark))


def kind_of(data: tf.Tensor) -> tf.Tensor:
    """Tell the kind of the file by its first bytes: its number in KINDS, or len(KINDS): int32
    scalar.
    """
    found = [
        tf.reduce_all([matches(data, at, mark) for at, mark in marks]) for marks in KINDS.values()
    ]
    return tf.argmax(tf.stack([*found, tf.constant(True)]), output_type=tf.int32)


def only_if(condition: tf.Tensor | bool, words: Words, value: tf.Tensor) -> tf.Tensor:
    """Give ``value`` back, or fail with INVALID_ARGUMENT and these words, numbers among them, in
    one line.

    What is made of the result cannot run before the check has passed: the check hangs on the data,
    since nothing else keeps it in a SavedModel.
    """
    with tf.control_dependencies([tf.debugging.Assert(condition, [joined(words)])]):
        return tf.identity(value)


def joined(words: Words) -> tf.Tensor:
    """Words, and numbers among them, as one string: scalar."""
    return tf.strings.join(
        [word if isinstance(word, str) else tf.strings.as_string(word) for word in words]
    )


def first_fault(*checks: tuple[tf.Tensor | bool, Words]) -> tf.Tensor:
    """The words of the first check whose condition does not hold, "" where all hold: scalar string."""
    said = tf.constant("")
    for condition, words in reversed(checks):
        said = tf.where(condition, said, joined(words))
    return said


def within_limit(
    height: tf.Tensor, width: tf.Tensor, max_pixels: int
) -> list[tuple[tf.Tensor, Words]]:
    """Checks that an image of height x width (int64) has at least one pixel and not too many."""
    some = (height > 0) & (width > 0)
    short = (height <= MAX_SIDE) & (width <= MAX_SIDE)
    few = (height <= max_pixels) & (width <= max_pixels) & (height * width <= max_pixels)
    return [
        (some, ["Expected an image of at least one pixel, came ", width, " x ", height, "."]),
        (
            few,
            [
                "An image of ",
                width,
                " x ",
                height,
                f" is over the limit of {max_pixels} pixels: shrink it.",
            ],
        ),
        (
            short,
            [
                "An image of ",
                width,
                " x ",
                height,
                f" is over the limit of {MAX_SIDE} pixels a side: shrink it.",
            ],
        ),
    ]


def place(pixels: tf.Tensor, corner: tf.Tensor, size: tf.Tensor, color: tf.Tensor) -> tf.Tensor:
    """Lay pixels (H, W, 3) on a canvas of one color (3); corner and size are int64 (2)."""
    H, W = tf.unstack(tf.shape(pixels, out_type=tf.int64)[:2])
    (top, left), (height, width) = tf.unstack(corner), tf.unstack(size)
    edges = [[top, height - top - H], [left, width - left - W], [0, 0]]
    covered = tf.pad(tf.ones([H, W, 1], tf.bool), edges)
    return tf.where(covered, tf.pad(pixels, edges), color)
