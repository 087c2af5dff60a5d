"""The bytes of a JPEG, PNG or WebP in; its EXIF orientation, 1 to 8, read in the graph, out."""

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import big, little, matches, read
from tf_groupvit.preprocessing.image_reading import ORIENTATIONS

# Where the EXIF block is not among that many parts of a file, the picture is taken as it lies. A
# phone writes it first; a file made of millions of empty parts must not keep a server busy.
_MOST_PARTS = 4096
_MOST_ENTRIES = 512
_NOT_FOUND = -1
_PREFIX = b"Exif\x00\x00"
_NO_FRAMES = (0xFFC4, 0xFFC8, 0xFFCC)  # of the markers FFC0 to FFCF, those that begin no frame
_TAG, _SHORT, _LONG = 0x0112, 3, 4


def orientation_of(data: tf.Tensor, kind: str) -> tf.Tensor:
    """Find the EXIF block of a file, uint8 (L + 1), and read its orientation: int32 scalar, 1 if
    there is none.
    """
    first, next_part = {"PNG": (8, _next_in_png), "WebP": (12, _next_in_webp)}[kind]
    end = tf.size(data, out_type=tf.int64) - 1

    def step(at: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return next_part(data, at, end)

    start = (tf.constant(first, tf.int64), tf.constant(_NOT_FOUND, tf.int64))
    _, block = tf.while_loop(
        lambda at, block: (at < end) & (block == _NOT_FOUND),
        step,
        start,
        maximum_iterations=_MOST_PARTS,
    )
    return _orientation_at(data, block)


def _orientation_at(data: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        block == _NOT_FOUND, lambda: tf.constant(1), lambda: _orientation_in(data, block)
    )


def jpeg_parts(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Walk through the segments of a JPEG before its picture: its EXIF orientation, int32, and (H,
    W), int64.

    (H, W) is what the decoder finds, or (-1, -1) where segments do not follow each other as they
    should.
    """
    end = tf.size(data, out_type=tf.int64) - 1

    def step(
        at: tf.Tensor, block: tf.Tensor, frame: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        marker, length = tf.unstack(
            tf.reduce_sum(tf.reshape(read(data, at, 4), [2, 2]) * [256, 1], axis=1)
        )
        # The rest begins the picture, or is none.
        segment = (marker >= 0xFFC0) & ((marker < 0xFFD0) | (marker > 0xFFDA))
        after = tf.where(marker == 0xFFFF, at + 1, at + 2 + length)  # FF may be repeated as filling
        is_exif = (block == _NOT_FOUND) & (marker == 0xFFE1) & matches(data, at + 4, _PREFIX)
        is_frame = (
            segment
            & (frame == _NOT_FOUND)
            & (marker < 0xFFD0)
            & tf.reduce_all(marker != _NO_FRAMES)
        )
        after = tf.where(segment, after, end)
        return after, tf.where(is_exif, at + 4, block), tf.where(is_frame, at + 5, frame)

    unknown = tf.constant(_NOT_FOUND, tf.int64)
    _, block, frame = tf.while_loop(
        lambda at, block, frame: (at < end) & ((block == _NOT_FOUND) | (frame == _NOT_FOUND)),
        step,
        (tf.constant(2, tf.int64), unknown, unknown),
        maximum_iterations=_MOST_PARTS,
    )
    height, width = big(data, tf.maximum(frame, 0), 2), big(data, tf.maximum(frame, 0) + 2, 2)
    known = (frame != _NOT_FOUND) & (frame + 4 <= end)
    return _orientation_at(data, block), tf.where(known, height, -1), tf.where(known, width, -1)


def _next_in_png(data: tf.Tensor, at: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    after = at + 12 + big(data, at, 4)
    return tf.where(matches(data, at + 4, b"IEND"), end, after), tf.where(
        matches(data, at + 4, b"eXIf"), at + 8, _NOT_FOUND
    )


def _next_in_webp(data: tf.Tensor, at: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    length = little(data, at + 4, 4)
    return at + 8 + length + length % 2, tf.where(matches(data, at, b"EXIF"), at + 8, _NOT_FOUND)


def _orientation_in(data: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    """Read the orientation in the first directory of an EXIF block, in either byte order; 1 if it
    is broken.
    """
    block += tf.where(matches(data, block, _PREFIX), tf.constant(6, tf.int64), 0)
    intel = matches(data, block, b"II*\x00")
    known = intel | matches(data, block, b"MM\x00*")
    directory = block + tf.where(intel, little(data, block + 4, 4), big(data, block + 4, 4))
    count = tf.minimum(
        tf.where(intel, little(data, directory, 2), big(data, directory, 2)), _MOST_ENTRIES
    )
    entries = tf.reshape(read(data, directory + 2, 12 * _MOST_ENTRIES), [_MOST_ENTRIES, 12])[:count]
    pair = tf.where(intel, tf.constant([1, 256], tf.int64), [256, 1])
    tag, form = tf.reduce_sum(entries[:, :2] * pair, 1), tf.reduce_sum(entries[:, 2:4] * pair, 1)
    first, second = (
        tf.reduce_sum(entries[:, 8:10] * pair, 1),
        tf.reduce_sum(entries[:, 10:12] * pair, 1),
    )
    value = tf.where(
        (form == _LONG) & ~intel, second, first
    )  # the low half of four bytes is the second in MM
    wanted = known & (tag == _TAG) & ((form == _SHORT) | (form == _LONG))
    value = tf.reduce_max(tf.concat([tf.where(wanted, value, 0), [0]], 0))
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn pixels (H, W, 3) as an EXIF orientation, 1 to 8, says."""
    swap, mirror, flip = tf.unstack(
        tf.gather(tf.constant([ORIENTATIONS[i] for i in range(1, 9)]), orientation - 1)
    )
    pixels = tf.cond(swap, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    pixels = tf.cond(mirror, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.cond(flip, lambda: tf.reverse(pixels, [0]), lambda: pixels)
