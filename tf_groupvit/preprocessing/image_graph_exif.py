"""The bytes of a JPEG, PNG or WebP in; its EXIF orientation, 1 to 8, read in the graph, out."""

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import big, little, matches, read
from tf_groupvit.preprocessing.image_reading import ORIENTATIONS

# Where the EXIF block is not among that many parts of a file, the picture is taken as it lies. A phone
# writes it first; a file made of millions of empty parts must not keep a server busy.
_MOST_PARTS = 4096
_MOST_ENTRIES = 512
_NOT_FOUND = -1
_PREFIX = b"Exif\x00\x00"
_TAG, _SHORT, _LONG = 0x0112, 3, 4


def orientation_of(data: tf.Tensor, kind: str) -> tf.Tensor:
    """Find the EXIF block of a file, uint8 (L + 1), and read its orientation: int32 scalar, 1 if there is none."""
    first, next_part = {"JPEG": (2, _next_in_jpeg), "PNG": (8, _next_in_png), "WebP": (12, _next_in_webp)}[kind]
    end = tf.size(data, out_type=tf.int64) - 1

    def step(at: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return next_part(data, at, end)

    start = (tf.constant(first, tf.int64), tf.constant(_NOT_FOUND, tf.int64))
    _, block = tf.while_loop(
        lambda at, block: (at < end) & (block == _NOT_FOUND), step, start, maximum_iterations=_MOST_PARTS
    )
    return tf.cond(block == _NOT_FOUND, lambda: tf.constant(1), lambda: _orientation_in(data, block))


def _next_in_jpeg(data: tf.Tensor, at: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Step over one segment: where the next one is, and where this one's EXIF block is, if it has one."""
    marker, length = big(data, at, 2), big(data, at + 2, 2)
    segment = (marker >= 0xFFC0) & ((marker < 0xFFD0) | (marker > 0xFFDA))  # the rest begins the picture, or is none
    after = tf.where(marker == 0xFFFF, at + 1, at + 2 + length)  # FF may be repeated as filling
    found = (marker == 0xFFE1) & matches(data, at + 4, _PREFIX)
    return tf.where(segment, after, end), tf.where(found, at + 4, _NOT_FOUND)


def _next_in_png(data: tf.Tensor, at: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    after = at + 12 + big(data, at, 4)
    return tf.where(matches(data, at + 4, b"IEND"), end, after), tf.where(
        matches(data, at + 4, b"eXIf"), at + 8, _NOT_FOUND
    )


def _next_in_webp(data: tf.Tensor, at: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    length = little(data, at + 4, 4)
    return at + 8 + length + length % 2, tf.where(matches(data, at, b"EXIF"), at + 8, _NOT_FOUND)


def _orientation_in(data: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    """Read the orientation in the first directory of an EXIF block, in either byte order; 1 if it is broken."""
    block += tf.where(matches(data, block, _PREFIX), tf.constant(6, tf.int64), 0)
    intel = matches(data, block, b"II*\x00")
    known = intel | matches(data, block, b"MM\x00*")
    directory = block + tf.where(intel, little(data, block + 4, 4), big(data, block + 4, 4))
    count = tf.minimum(tf.where(intel, little(data, directory, 2), big(data, directory, 2)), _MOST_ENTRIES)
    entries = tf.reshape(read(data, directory + 2, 12 * _MOST_ENTRIES), [_MOST_ENTRIES, 12])[:count]
    pair = tf.where(intel, tf.constant([1, 256], tf.int64), [256, 1])
    tag, form = tf.reduce_sum(entries[:, :2] * pair, 1), tf.reduce_sum(entries[:, 2:4] * pair, 1)
    first, second = tf.reduce_sum(entries[:, 8:10] * pair, 1), tf.reduce_sum(entries[:, 10:12] * pair, 1)
    value = tf.where((form == _LONG) & ~intel, second, first)  # the low half of four bytes is the second in MM
    wanted = known & (tag == _TAG) & ((form == _SHORT) | (form == _LONG))
    value = tf.reduce_max(tf.concat([tf.where(wanted, value, 0), [0]], 0))
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn pixels (H, W, 3) as an EXIF orientation, 1 to 8, says."""
    swap, mirror, flip = tf.unstack(tf.gather(tf.constant([ORIENTATIONS[i] for i in range(1, 9)]), orientation - 1))
    pixels = tf.cond(swap, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    pixels = tf.cond(mirror, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.cond(flip, lambda: tf.reverse(pixels, [0]), lambda: pixels)
