"""The bytes of a WebP in; its header, with a file of its first picture alone, and the pixels of
that (H, W, 3) out.
"""

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import (
    Header,
    big,
    first_fault,
    header,
    little,
    matches,
    within_limit,
)
from tf_groupvit.preprocessing.image_graph_exif import orientation_of

_MOST_PARTS = 4096
_PICTURES = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")  # parts that hold a picture, or begin one
_ALPHA_FLAG = 0x10


def webp_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Find a still, or the first frame of an animation, which the decoder gets alone, and its place
    on the canvas.

    The decoder never sees the file itself: TensorFlow 2.21 writes beyond its memory when it is
    given an animation and asked for the first frame. What it sees is a still file made of the first
    picture alone.
    """
    end = tf.size(data, out_type=tf.int64) - 1
    part = _first_picture(data, end)
    moving = matches(data, part, b"ANMF")
    alpha = tf.where(
        moving, part + 24, part
    )  # a frame's place, size and duration come before its picture
    picture = tf.where(matches(data, alpha, b"ALPH"), _after(data, alpha), alpha)
    H, W = _sides(data, picture)
    left, top = (tf.where(moving, 2 * little(data, part + i, 3), 0) for i in (8, 11))
    canvas = [tf.where(matches(data, 12, b"VP8X"), little(data, i, 3) + 1, 0) for i in (27, 24)]
    height, width = tf.maximum(canvas[0], top + H), tf.maximum(canvas[1], left + W)
    words = first_fault(
        (
            (H > 0) & (W > 0) & (_after(data, picture) <= end + 1),
            ["Expected a whole WebP, came a broken or truncated one of ", end, " bytes."],
        ),
        *within_limit(height, width, max_pixels),
        (
            moving | ((height == H) & (width == W)),
            ["Expected a WebP of ", width, " x ", height, ", came ", W, " x ", H, "."],
        ),
    )
    stop = _after(data, picture)
    still = tf.cond(
        words == "", lambda: _still(contents, alpha, picture, stop, H, W), lambda: contents
    )
    return header(
        words, height, width, still, (top, left), orientation=orientation_of(data, "WebP")
    )


def decode_webp(still: tf.Tensor) -> tf.Tensor:
    """Decode a still; alpha is dropped: uint8 (H, W, 3)."""
    pixels = tf.io.decode_image(still, channels=0, expand_animations=False)[
        ..., :3
    ]  # 4 channels where it has alpha
    return tf.ensure_shape(pixels, [None, None, 3])


def _after(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    length = little(data, at + 4, 4)
    return at + 8 + length + length % 2


def _first_picture(data: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(
        lambda at: (at < end) & ~tf.reduce_any([matches(data, at, mark) for mark in _PICTURES]),
        lambda at: (_after(data, at),),
        (tf.constant(12, tf.int64),),
        maximum_iterations=_MOST_PARTS,
    )[0]


def _sides(data: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Read (H, W) from the head of a lossy or lossless picture; zeros if it is neither."""
    packed = little(data, at + 9, 4)  # lossless: 14 bits each, one less than the size
    lossy = (little(data, at + 16, 2) % 2**14, little(data, at + 14, 2) % 2**14)
    lossless = (packed // 2**14 % 2**14 + 1, packed % 2**14 + 1)
    is_lossy = matches(data, at, b"VP8 ") & matches(data, at + 11, b"\x9d\x01\x2a")
    is_lossless = matches(data, at, b"VP8L") & (big(data, at + 8, 1) == 0x2F)
    H, W = (tf.where(is_lossy, lossy[i], tf.where(is_lossless, lossless[i], 0)) for i in range(2))
    return H, W


def _packed(number: tf.Tensor, count: int) -> tf.Tensor:
    """Write a number in ``count`` bytes, the least significant first: scalar string."""
    digits = tf.stack([number // 256**i % 256 for i in range(count)])
    return tf.strings.reduce_join(tf.gather([bytes([i]) for i in range(256)], digits))


def _still(
    contents: tf.Tensor,
    alpha: tf.Tensor,
    picture: tf.Tensor,
    stop: tf.Tensor,
    H: tf.Tensor,
    W: tf.Tensor,
) -> tf.Tensor:
    """Write a WebP of one picture of H x W, whose alpha and colours are these parts of a file."""
    body = tf.strings.substr(contents, alpha, stop - alpha)
    flags = tf.constant(_ALPHA_FLAG, tf.int64)
    head = tf.strings.join(
        [b"VP8X", b"\x0a\0\0\0", _packed(flags, 4), _packed(W - 1, 3), _packed(H - 1, 3)]
    )
    body = tf.cond(alpha < picture, lambda: tf.strings.join([head, body]), lambda: body)
    length = tf.cast(tf.strings.length(body), tf.int64) + 4
    return tf.strings.join([b"RIFF", _packed(length, 4), b"WEBP", body])
