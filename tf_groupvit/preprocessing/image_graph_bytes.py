"""The bytes of an image file (a scalar string tensor) in; numbers, marks and its kind, read in the graph, out."""

import tensorflow as tf

# Kind -> the bytes that its files begin with, as (position, bytes).
KINDS = {
    "JPEG": ((0, b"\xff\xd8\xff"),),
    "PNG": ((0, b"\x89PNG\r\n\x1a\n"),),
    "GIF": ((0, b"GIF8"),),
    "BMP": ((0, b"BM"),),
    "WebP": ((0, b"RIFF"), (8, b"WEBP")),
}


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
    """Tell the kind of the file by its first bytes: its number in KINDS, or len(KINDS): int32 scalar."""
    found = [tf.reduce_all([matches(data, at, mark) for at, mark in marks]) for marks in KINDS.values()]
    return tf.argmax(tf.stack([*found, tf.constant(True)]), output_type=tf.int32)


def only_if(condition: tf.Tensor | bool, words: list[str | tf.Tensor], value: tf.Tensor) -> tf.Tensor:
    """Give ``value`` back, or fail with INVALID_ARGUMENT and these words, numbers among them, in one line.

    What is made of the result cannot run before the check has passed: the check hangs on the data, since
    nothing else keeps it in a SavedModel.
    """
    message = tf.strings.join([word if isinstance(word, str) else tf.strings.as_string(word) for word in words])
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        return tf.identity(value)


def within_limit(height: tf.Tensor, width: tf.Tensor, max_pixels: int, value: tf.Tensor) -> tf.Tensor:
    """Give ``value`` back if an image of height x width (int64) has at least one pixel and not too many."""
    some = (height > 0) & (width > 0)
    value = only_if(some, ["Expected an image of at least one pixel, came ", width, " x ", height, "."], value)
    few = (height <= max_pixels) & (width <= max_pixels) & (height * width <= max_pixels)
    words = ["An image of ", width, " x ", height, f" is over the limit of {max_pixels} pixels: shrink it."]
    return only_if(few, words, value)


def place(
    pixels: tf.Tensor, top: tf.Tensor, left: tf.Tensor, height: tf.Tensor, width: tf.Tensor, colour: tf.Tensor
) -> tf.Tensor:
    """Lay pixels (H, W, 3) on a canvas (height, width, 3) of one colour (3)."""
    H, W = tf.unstack(tf.shape(pixels, out_type=tf.int64)[:2])
    edges = [[top, height - top - H], [left, width - left - W], [0, 0]]
    covered = tf.pad(tf.ones([H, W, 1], tf.bool), edges)
    return tf.where(covered, tf.pad(pixels, edges), colour)
